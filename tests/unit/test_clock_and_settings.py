"""Settings from the environment, and the clock that is one of them."""

import time
from dataclasses import asdict
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from pydantic_settings import BaseSettings
from support.strategies import steady, times, utc

from mdp_core.domain.clock import EPOCH, Clock, from_ms, to_ms
from mdp_core.settings import (
    ExchangeSettings,
    Settings,
    TokenSettings,
    UpgradeSettings,
    problems_of,
)

SECRET = "3f1c9a7be2d84056a1f7c03d9e6b58247c1de0f9"  # noqa: S105 - of the tests
URL = "postgresql://mdp@localhost/mdp"


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every test starts from a database URL and a secret alone."""
    for name in ("MDP_CLOCK", "MDP_JWT_ALGORITHM", "MDP_JWT_PREVIOUS_SECRET", "MDP_BINANCE_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("DATABASE_URL", URL)
    monkeypatch.setenv("JWT_SECRET", SECRET)


def read() -> Settings:
    return Settings()  # pyright: ignore[reportCallIssue]


# --- the clock


def test_clock_of_no_setting_shows_real_time() -> None:
    """Aware and UTC."""
    before, now, after = datetime.now(UTC), Clock()(), datetime.now(UTC)

    assert before <= now <= after
    assert now.tzinfo is UTC


def test_clock_starts_where_it_is_told() -> None:
    """At this moment it shows that one."""
    clock = Clock.starting_at(utc(2020, 6, 1))

    assert timedelta(0) <= clock() - utc(2020, 6, 1) < timedelta(seconds=5)


@pytest.mark.parametrize("speed", [0.5, 1.0, 1000.0])
def test_clock_runs_at_its_speed(speed: float) -> None:
    """Between two looks the time shown has gone on `speed` times as far."""
    clock = Clock.starting_at(utc(2020), speed)
    before, shown = datetime.now(UTC), clock()
    time.sleep(0.02)
    again, after = clock(), datetime.now(UTC)

    assert again - shown >= timedelta(seconds=0.02) * speed * 0.99
    assert again - shown <= (after - before) * speed


@steady
@given(
    times, times, st.floats(min_value=0, exclude_min=True, allow_infinity=False, allow_nan=False)
)
def test_clock_survives_its_text(shown: datetime, since: datetime, speed: float) -> None:
    """To the millisecond, with its speed bit for bit."""
    clock = Clock(from_ms(to_ms(shown)), from_ms(to_ms(since)), speed)

    assert Clock.parse(str(clock)) == clock


def test_text_of_a_clock_is_as_documented() -> None:
    """SHOWN_MS@SINCE_MS*SPEED."""
    text = "1577836800000@1718022600000*60.0"

    assert str(Clock.parse(text)) == text
    assert Clock.parse(text) == Clock(utc(2020), utc(2024, 6, 10, 12, 30), 60.0)


NO_CLOCKS = [
    "",
    "now",
    "2020-01-01",
    "1577836800000",
    "1577836800000@0",
    "1577836800000*2",
    "@*",
    "1@2*3*4",
    "1@2@3*4",
    "1.5@0*1",
    "a@0*1",
    "0@b*1",
    "0@0*fast",
    "0@0*nan",
    "0@0*inf",
    "0@0*-1",
    "0@0*0",
    f"{10**16}@0*1",
    f"0@-{10**16}*1",
]


@pytest.mark.parametrize("text", NO_CLOCKS)
def test_what_is_no_clock_is_refused(text: str) -> None:
    """Also speeds at which time stands still, runs backwards or is over at once."""
    with pytest.raises(ValueError, match="not a clock"):
        Clock.parse(text)


@steady
@given(st.text("0123456789@*.-+einfa", max_size=24))
def test_any_text_is_a_clock_or_a_value_error(text: str) -> None:
    """A setting that can't be read must not break in another way."""
    try:
        clock = Clock.parse(text)
    except ValueError:
        return
    assert Clock.parse(str(clock)) == clock


# --- settings


def test_clock_is_read_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every process that is given the same text shows the same time."""
    monkeypatch.setenv("MDP_CLOCK", "1577836800000@1718022600000*60")

    assert read().clock == Clock(utc(2020), utc(2024, 6, 10, 12, 30), 60.0)


@pytest.mark.parametrize("text", [" ", "yesterday", "0@0*nan"])
def test_environment_without_a_readable_clock_is_refused(
    monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    """Starting with another time than was meant would store lies."""
    monkeypatch.setenv("MDP_CLOCK", text)

    with pytest.raises(ValidationError, match="not a clock"):
        read()


def test_time_is_real_by_default() -> None:
    """No clock is set."""
    assert read().clock == Clock(EPOCH, EPOCH, 1.0)


@pytest.mark.parametrize(
    "secret",
    [
        pytest.param(" ", id="blank"),
        pytest.param(SECRET[:31], id="31 characters"),
        pytest.param("a" * 64, id="one letter"),
        pytest.param("abcdefg" * 8, id="seven letters"),
        pytest.param("change-me-change-me-change-me-now-42", id="change me"),
        pytest.param("CHANGEME0123456789abcdefghijklmnop", id="shouted"),
        pytest.param("my-super-secret-key-0123456789-abcdef", id="secret"),
        pytest.param("example-0123456789-abcdefghijklmnop", id="example"),
        pytest.param("your-256-bit-key-goes-in-this-place", id="your"),
        pytest.param("placeholder-0123456789-abcdefghijk", id="placeholder"),
        pytest.param("xxxxxxxxxxxxxxxx0123456789abcdefgh", id="xxxx"),
        pytest.param("Password-0123456789-abcdefghijklmn", id="password"),
    ],
)
@pytest.mark.parametrize("name", ["JWT_SECRET", "MDP_JWT_PREVIOUS_SECRET"])
def test_secret_that_anybody_could_guess_is_refused(
    monkeypatch: pytest.MonkeyPatch, name: str, secret: str
) -> None:
    """Short ones, placeholders, and seemingly long ones; the error names the variable."""
    monkeypatch.setenv(name, secret)

    with pytest.raises(ValidationError, match=rf"(?i){name.removeprefix('MDP_')}"):
        read()


@pytest.mark.parametrize("secret", [SECRET[:31], f"{SECRET[:28]}your"])
def test_refused_secret_is_not_repeated(monkeypatch: pytest.MonkeyPatch, secret: str) -> None:
    """It may be a real one, and what the start says is in a log."""
    monkeypatch.setenv("JWT_SECRET", secret)

    with pytest.raises(ValidationError) as caught:
        read()
    assert secret not in str(caught.value)


def test_secret_is_not_shown() -> None:
    """Nor is the database's URL, which may hold a password."""
    settings = read()

    assert settings.jwt_secret is not None
    assert settings.jwt_secret.get_secret_value() == SECRET
    assert SECRET not in repr(settings)
    assert URL not in repr(settings)


def test_secret_may_be_absent(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only serving and making tokens need one."""
    monkeypatch.delenv("JWT_SECRET")

    assert read().jwt_secret is None


@pytest.mark.parametrize("url", ["", "mysql://localhost/mdp", "localhost", "sqlite:///mdp.db"])
def test_database_must_be_postgres(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    """Nothing else could hold coverage."""
    monkeypatch.setenv("DATABASE_URL", url)

    with pytest.raises(ValidationError, match="DATABASE_URL"):
        read()


def test_refused_database_url_is_not_repeated(monkeypatch: pytest.MonkeyPatch) -> None:
    """It may hold a password, and what the start says is in a log."""
    monkeypatch.setenv("DATABASE_URL", "mysql://mdp:hunter2@localhost/mdp")

    with pytest.raises(ValidationError) as caught:
        read()
    assert "hunter2" not in str(caught.value)


def test_database_must_be_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """There is no default that could be another deployment's."""
    monkeypatch.delenv("DATABASE_URL")

    with pytest.raises(ValidationError, match="DATABASE_URL"):
        read()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("MDP_POOL_SIZE", "1"),
        ("MDP_MAX_ROWS", "0"),
        ("MDP_MAX_PAGES", "0"),
        ("MDP_CONCURRENT_PAGES", "0"),
        ("MDP_STATEMENT_TIMEOUT_SECONDS", "0"),
        ("MDP_STATEMENT_TIMEOUT_SECONDS", "0.0001"),
        ("MDP_STATEMENT_TIMEOUT_SECONDS", "2147484"),
        ("MDP_STATEMENT_TIMEOUT_SECONDS", "nan"),
        ("MDP_REQUEST_DEADLINE_SECONDS", "-1"),
        ("MDP_REQUEST_DEADLINE_SECONDS", "inf"),
        ("MDP_FETCH_DEADLINE_SECONDS", "nan"),
        ("MDP_ATTEMPT_TIMEOUT_SECONDS", "soon"),
        ("MDP_JWT_ALGORITHM", "none"),
        ("MDP_JWT_ALGORITHM", "HS512"),
    ],
)
def test_setting_that_cannot_be_meant_is_refused(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    """At the start, by name, not at the first request."""
    monkeypatch.setenv(name, value)

    with pytest.raises(ValidationError, match=name.lower().removeprefix("mdp_")):
        read()


def test_limits_are_those_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each in its place."""
    for name, value in {
        "MDP_MAX_ROWS": "11",
        "MDP_MAX_PAGES": "12",
        "MDP_REQUEST_DEADLINE_SECONDS": "14.5",
    }.items():
        monkeypatch.setenv(name, value)

    limits = read().limits

    assert asdict(limits) == {
        "rows": 11,
        "pages": 12,
        "deadline_seconds": 14.5,
    }


def test_settings_cannot_be_changed() -> None:
    """Validated settings can't be changed."""
    for settings, name in (
        (read(), "pool_size"),
        (TokenSettings(), "jwt_audience"),
        (ExchangeSettings.from_environment("binance"), "share"),
    ):
        with pytest.raises(ValidationError, match="frozen"):
            setattr(settings, name, getattr(settings, name))


def test_exchange_is_set_by_its_own_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    """`MDP_<EXCHANGE>_<FIELD>`; another exchange's are not read."""
    monkeypatch.setenv("MDP_BINANCE_URL", "http://127.0.0.1:9000")
    monkeypatch.setenv("MDP_BINANCE_SHARE", "0.25")
    monkeypatch.setenv("MDP_BINANCE_SETTLE_SECONDS", "0")
    monkeypatch.setenv("MDP_COINBASE_ABSENCE_GRACE_SECONDS", "7.5")
    monkeypatch.setenv("MDP_COINBASE_RECHECKS", "30, 600")

    assert ExchangeSettings.from_environment("binance").model_dump() == {
        "url": "http://127.0.0.1:9000",
        "share": 0.25,
        "settle_seconds": 0.0,
        "absence_grace_seconds": None,
        "rechecks": None,
    }
    assert ExchangeSettings.from_environment("coinbase").model_dump() == {
        "url": None,
        "share": 0.8,
        "settle_seconds": None,
        "absence_grace_seconds": 7.5,
        "rechecks": (30.0, 600.0),
    }


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("SHARE", "0"),
        ("SHARE", "-0.5"),
        ("SHARE", "1.01"),
        ("SHARE", "nan"),
        ("SHARE", "all"),
        ("SETTLE_SECONDS", "-1"),
        ("ABSENCE_GRACE_SECONDS", "-0.1"),
        ("ABSENCE_GRACE_SECONDS", "nan"),
        ("SETTLE_SECONDS", "inf"),
        ("URL", "notaurl"),
        ("URL", "fapi.binance.com"),
        ("URL", "ftp://fapi.binance.com"),
        ("URL", "https://"),
        ("URL", "https://fapi. binance.com"),
    ],
)
def test_exchange_setting_that_cannot_be_meant_is_refused(
    monkeypatch: pytest.MonkeyPatch, field: str, value: str
) -> None:
    """More than the whole limit, time that runs backwards or never ends, no address."""
    monkeypatch.setenv(f"MDP_BINANCE_{field}", value)

    with pytest.raises(ValidationError, match=field.lower()):
        ExchangeSettings.from_environment("binance")


# --- settings of the database


def every_name(kind: type[BaseSettings], prefix: str = "MDP_") -> list[str]:
    fields = kind.model_fields.items()
    return [str(info.validation_alias or f"{prefix}{name}".upper()) for name, info in fields]


def test_empty_is_not_set(monkeypatch: pytest.MonkeyPatch) -> None:
    """Compose hands over empty variables: all but the database's may be empty."""
    for kind in (Settings, UpgradeSettings):
        for name in every_name(kind):
            monkeypatch.setenv(name, "")
    for name in every_name(ExchangeSettings, "MDP_BINANCE_"):
        monkeypatch.setenv(name, "")
    monkeypatch.setenv("DATABASE_URL", URL)

    assert read() == Settings(database_url=URL)
    assert UpgradeSettings() == UpgradeSettings(database_url=URL)  # pyright: ignore[reportCallIssue]
    assert ExchangeSettings.from_environment("binance") == ExchangeSettings()
    assert read().jwt_secret is None
    assert read().database_read_url is None


def test_empty_database_is_none_at_all(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is told in one line, by its name."""
    monkeypatch.setenv("DATABASE_URL", "")

    with pytest.raises(ValidationError) as caught:
        read()
    assert problems_of(caught.value) == ["DATABASE_URL: Field required"]


def test_replica_must_be_postgres(monkeypatch: pytest.MonkeyPatch) -> None:
    """Another scheme is refused as for the primary."""
    monkeypatch.setenv("DATABASE_READ_URL", "redis://replica")

    with pytest.raises(ValidationError, match="must be a postgresql:// URL"):
        read()


@pytest.mark.parametrize("password", ["short", "password" * 5])
def test_weak_password_of_a_role_is_refused(monkeypatch: pytest.MonkeyPatch, password: str) -> None:
    """A role that may log in is reached over the network, like the API."""
    monkeypatch.setenv("MDP_SERVICE_PASSWORD", password)

    with pytest.raises(ValidationError):
        UpgradeSettings()  # pyright: ignore[reportCallIssue]
