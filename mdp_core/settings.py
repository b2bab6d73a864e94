"""All settings, from the environment; nothing is read at import time."""

from typing import Annotated, Literal, Self
from urllib.parse import urlsplit

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    PlainValidator,
    SecretStr,
    ValidationError,
)
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from db.connecting import session_conninfo
from mdp_core.domain.clock import Clock
from mdp_core.domain.queries import Limits

_SHORTEST_SECRET = 32
_PLACEHOLDERS = ("change", "secret", "example", "placeholder", "your", "xxxx", "password")


def _postgres_url(url: str) -> str:
    if not url.startswith(("postgresql://", "postgres://")):
        message = "must be a postgresql:// URL"
        raise ValueError(message)
    session_conninfo(url, name="")
    return url


def _http_url(url: str) -> str:
    address = urlsplit(url)
    if address.scheme not in {"http", "https"} or not address.hostname or " " in url:
        message = "must be a http:// or https:// URL"
        raise ValueError(message)
    return url


def _strong_secret(secret: SecretStr) -> SecretStr:
    text = secret.get_secret_value()
    if len(text) < _SHORTEST_SECRET:
        message = (
            f"must have at least {_SHORTEST_SECRET} characters: `openssl rand -hex 32` makes one"
        )
        raise ValueError(message)
    if len(set(text)) < 8 or any(word in text.lower() for word in _PLACEHOLDERS):  # noqa: PLR2004
        message = "looks like a placeholder: `openssl rand -hex 32` makes a secret"
        raise ValueError(message)
    return secret


def _clock(value: object) -> Clock:
    return value if isinstance(value, Clock) else Clock.parse(str(value))


def _seconds(value: object) -> object:
    """Read numbers with commas between them; anything else is left to be checked."""
    return tuple(part.strip() for part in value.split(",")) if isinstance(value, str) else value


def _origins(value: object) -> object:
    """Read origins with spaces between them; anything else is left to be checked."""
    return tuple(value.split()) if isinstance(value, str) else value


def _origin(origin: str) -> str:
    address = urlsplit(origin)
    if origin != "*" and (origin != f"{address.scheme}://{address.netloc}" or not address.netloc):
        message = "must be origins such as https://host:port, or *, with spaces between them"
        raise ValueError(message)
    return origin


def _ascending(seconds: tuple[float, ...] | None) -> tuple[float, ...] | None:
    if seconds is not None and (not seconds or list(seconds) != sorted(set(seconds))):
        message = "must be ascending numbers of seconds with commas between them"
        raise ValueError(message)
    return seconds


_Age = Annotated[float, Field(gt=0, allow_inf_nan=False)]
_PostgresUrl = Annotated[str, AfterValidator(_postgres_url)]
_HttpUrl = Annotated[str, AfterValidator(_http_url)]
_Secret = Annotated[SecretStr, AfterValidator(_strong_secret)]
_Ages = Annotated[
    tuple[_Age, ...] | None, NoDecode, BeforeValidator(_seconds), AfterValidator(_ascending)
]
_Origins = Annotated[
    tuple[Annotated[str, AfterValidator(_origin)], ...], NoDecode, BeforeValidator(_origins)
]
_Clock = Annotated[Clock, NoDecode, PlainValidator(_clock)]


def problems_of(error: ValidationError, prefix: str = "MDP_") -> list[str]:
    """Say what is wrong with each variable, by its name and without its value."""
    names = [str(entry["loc"][0]) for entry in error.errors()]
    variables = [name if name.isupper() else f"{prefix}{name.upper()}" for name in names]
    texts = [entry["msg"].removeprefix("Value error, ") for entry in error.errors()]
    return [f"{name}: {text}" for name, text in zip(variables, texts, strict=True)]


class ExchangeSettings(BaseSettings):
    """Settings of an exchange, `MDP_<EXCHANGE>_<FIELD>`; None: the adapter's fact."""

    model_config = SettingsConfigDict(frozen=True, extra="forbid", env_ignore_empty=True)

    url: _HttpUrl | None = None
    """Base URL of its REST interface."""
    share: float = Field(default=0.8, gt=0, le=1)
    """The part of the exchange's limit that this service may use."""
    settle_seconds: float | None = Field(default=None, ge=0, allow_inf_nan=False)
    """How long after its close a candle may still change."""
    absence_grace_seconds: float | None = Field(default=None, ge=0, allow_inf_nan=False)
    """How long after its close an absent candle may only be late."""
    rechecks: _Ages = None
    """Ages in seconds, with commas between them, at which an absent candle is asked for again."""

    @classmethod
    def from_environment(cls, exchange: str) -> Self:
        """Read the variables of one exchange."""
        return cls(_env_prefix=f"MDP_{exchange.upper()}_")  # pyright: ignore[reportCallIssue]


_CONFIG = SettingsConfigDict(
    env_prefix="MDP_",
    frozen=True,
    extra="forbid",
    populate_by_name=True,
    hide_input_in_errors=True,  # a refused secret is a secret still
    env_ignore_empty=True,  # Compose hands over empty variables that are not set
)


class LogSettings(BaseSettings):
    """Level and format of the log, on stderr."""

    model_config = _CONFIG

    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"
    """The least important lines that are written."""
    log_format: Literal["auto", "json", "text"] = "auto"
    """A line for machines or for people; "auto" is text where a person watches (a terminal)."""


class DatabaseSettings(BaseSettings):
    """The address of the database."""

    model_config = _CONFIG

    database_url: _PostgresUrl = Field(validation_alias="DATABASE_URL", repr=False)
    """The primary database."""


class UpgradeSettings(DatabaseSettings):
    """Settings of `mdp db upgrade`: the owner's URL and the roles' passwords."""

    service_password: _Secret | None = None
    """Of the role `mdp_service`, which the services log in as; None leaves it as it is."""
    analyst_password: _Secret | None = None
    """Of the role `mdp_analyst`, which may only read; None leaves it as it is."""


class TokenSettings(BaseSettings):
    """Keys and algorithm of tokens; only serving and making tokens need them."""

    model_config = _CONFIG

    jwt_secret: _Secret | None = Field(default=None, validation_alias="JWT_SECRET")
    """The key of HS256 tokens."""
    jwt_previous_secret: _Secret | None = None
    """The key before it, accepted during a rotation."""
    jwt_algorithm: Literal["HS256", "RS256", "ES256"] = "HS256"
    """The only algorithm that is accepted."""
    jwt_public_key: str | None = None
    """PEM text of the public key, for RS256 and ES256."""
    jwt_audience: str = Field(default="mdp", min_length=1)
    """The `aud` that a token must have."""


class Settings(DatabaseSettings, TokenSettings, LogSettings):
    """The whole environment of a service."""

    model_config = _CONFIG

    database_read_url: _PostgresUrl | None = Field(
        default=None, validation_alias="DATABASE_READ_URL", repr=False
    )
    """A streaming replica of it, which answers what it knows enough for."""
    pool_size: int = Field(default=10, ge=2)
    """Database connections of one process at the most."""
    # Whole milliseconds of 31 bits to the server, and none would be no limit.
    statement_timeout_seconds: float = Field(default=30, ge=0.001, le=2_147_483)
    """How long one statement may take."""
    egress: str = Field(default="default", min_length=1)
    """Names the IP address that exchanges see: processes of one egress share one budget."""
    attempt_timeout_seconds: float = Field(default=10, gt=0, allow_inf_nan=False)
    """How long one HTTP attempt at an exchange may take."""
    fetch_deadline_seconds: float = Field(default=30, gt=0, allow_inf_nan=False)
    """How long one upstream request may take with its attempts, once it was let through."""
    request_deadline_seconds: float = Field(default=60, gt=0, allow_inf_nan=False)
    """How long filling the window of one request may take."""
    max_rows: int = Field(default=1_000_000, ge=1)
    """Candles in one answer at the most."""
    max_pages: int = Field(default=100, ge=1)
    """Pages that one request fetches at the most."""
    second_look_seconds: float = Field(default=2, ge=0, allow_inf_nan=False)
    """How long after a first answer an absent candle is asked for a second time.

    A repair waits two and a half times as long.
    """
    clock_tolerance_seconds: float = Field(default=120, gt=0, allow_inf_nan=False)
    """By how much an exchange's clock and ours may differ."""
    concurrent_pages: int = Field(default=8, ge=1)
    """Pages of one exchange that a process fetches at once."""
    max_waiting: int = Field(default=500, ge=200)
    """Requests that wait for pages of one exchange at the most, in one process."""

    subject_jobs: int = Field(default=20, ge=1)
    """Open jobs of one subject without the scope `backfill:write` at the most."""
    subject_waiting: int = Field(default=128, ge=1)
    """Requests of one subject that wait for one exchange; at least half of `max_waiting`."""
    cors_origins: _Origins = ()
    """Origins of pages whose scripts may read answers, with spaces between them; "*": any."""

    hot: str = ""
    """EXCHANGE:SYMBOLS:INTERVALS …: series that the syncer always keeps warm."""
    keep: str = ""
    """The same: series of which nothing may be lost that the exchange forgets in time."""
    block_memory_mb: int = Field(default=256, ge=0)
    """Megabytes that a process may use to keep encoded candles; 0 keeps none."""

    dialect_passing: bool = True
    """Whether calls in an exchange's dialect that are not answered here are passed on to it."""

    clock: _Clock = Clock()
    """SHOWN_MS@SINCE_MS*SPEED: another clock than real time, for demos of old data."""

    @property
    def limits(self) -> Limits:
        """The bounds of one request."""
        return Limits(
            rows=self.max_rows,
            pages=self.max_pages,
            deadline_seconds=self.request_deadline_seconds,
        )
