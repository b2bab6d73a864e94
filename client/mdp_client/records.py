"""Answers other than candles: frozen, with the JSON's names and aware times."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from datetime import datetime
from functools import partial
from typing import Any, Self, TypeVar

from mdp_client.errors import BadBody
from mdp_client.times import aware

R = TypeVar("R", bound="Record")


_TIME: dict[str, Callable[[Any], Any]] = {"read": aware}


@dataclass(frozen=True, slots=True)
class Record:
    """A JSON object; members unknown to this version of the client are left out."""

    @classmethod
    def of(cls, body: Mapping[str, Any]) -> Self:
        """Build the record of a JSON object.

        Raises:
            BadBody: A member is missing, or of another kind.
        """
        try:
            return cls(
                **{field.name: _value(field, body) for field in fields(cls) if field.name in body}
            )
        except (TypeError, ValueError, AttributeError, OverflowError) as error:
            raise BadBody(detail=f"the answer holds no {cls.__name__}: {error}") from error


def _value(known: Any, body: Mapping[str, Any]) -> Any:
    value, read = body[known.name], known.metadata.get("read")
    return value if read is None or value is None else read(value)


def records(kind: type[R], bodies: Sequence[Mapping[str, Any]]) -> tuple[R, ...]:
    """Build the records of a JSON array."""
    return tuple(kind.of(body) for body in bodies)


@dataclass(frozen=True, slots=True)
class Window(Record):
    """A half-open window of open times, UTC."""

    start: datetime = field(metadata=_TIME)
    end: datetime = field(metadata=_TIME)

    @classmethod
    def between(cls, start: int, end: int) -> Self:
        """Build the window of two epoch milliseconds."""
        return cls(aware(start), aware(end))

    def until(self, end: datetime) -> Self:
        """Return the part before `end`."""
        return type(self)(**{**_members(self), "end": min(self.end, end)})


def _members(record: Record) -> dict[str, Any]:
    return {field.name: getattr(record, field.name) for field in fields(record)}


@dataclass(frozen=True, slots=True)
class Missing(Window):
    """A window that an answer lacks, and the code of the error that says why."""

    reason: str = ""
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Span(Window):
    """A window all of whose slots are in one state."""

    state: str = ""


@dataclass(frozen=True, slots=True)
class Coverage(Record):
    """Windows of a series, ascending and without holes, each with its state."""

    windows: tuple[Span, ...] = field(default=(), metadata={"read": partial(records, Span)})

    def __iter__(self) -> Iterator[Span]:
        return iter(self.windows)

    def __len__(self) -> int:
        return len(self.windows)


@dataclass(frozen=True, slots=True)
class Candle(Record):
    """One candle; what the exchange does not give is None."""

    time: datetime = field(metadata=_TIME)
    open: float
    high: float
    low: float
    close: float
    volume: float
    quote_volume: float | None = None
    trades: int | None = None
    taker_buy_volume: float | None = None
    taker_buy_quote_volume: float | None = None


@dataclass(frozen=True, slots=True)
class Latest(Record):
    """The newest candle, and what is known of it at `as_of`."""

    candle: Candle = field(metadata={"read": Candle.of})
    closed: bool
    settled: bool
    as_of: datetime = field(metadata=_TIME)
    unconfirmed: tuple[Window, ...] = field(default=(), metadata={"read": partial(records, Window)})


@dataclass(frozen=True, slots=True)
class Exchange(Record):
    """An exchange and its market types."""

    exchange: str
    name: str
    market_types: tuple[str, ...] = field(metadata={"read": tuple})


@dataclass(frozen=True, slots=True)
class Symbol(Record):
    """A symbol; listing times are information only."""

    exchange: str
    market_type: str
    symbol: str
    native_symbol: str
    base: str
    quote: str
    active: bool
    ccxt_symbol: str = ""
    multiplier: float = 1
    tick_size: float | None = None
    step_size: float | None = None
    listed_at: datetime | None = field(default=None, metadata=_TIME)
    delisted_at: datetime | None = field(default=None, metadata=_TIME)


@dataclass(frozen=True, slots=True)
class Interval(Record):
    """An interval of a market: the exchange's spelling, and the grid of its candles."""

    exchange: str
    market_type: str
    interval: str
    native: str
    grid: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class StoredSeries(Record):
    """A series of the store's inventory."""

    exchange: str
    market_type: str
    symbol: str
    interval: str
    start: datetime | None = field(default=None, metadata=_TIME)
    end: datetime | None = field(default=None, metadata=_TIME)
    covered_slots: int = 0
    unconfirmed_slots: int = 0
    last_requested: datetime | None = field(default=None, metadata=_TIME)


@dataclass(frozen=True, slots=True)
class Estimate(Record):
    """The work that is left: `eta_s` counts the wait for what is queued ahead."""

    candles: int = 0
    pages: int = 0
    weight: float = 0.0
    eta_s: float = 0.0
    cached_share: float = 0.0
    files: int = 0


@dataclass(frozen=True, slots=True)
class Progress(Record):
    """The number of slots of a job's window, and how many of them are covered."""

    slots: int
    covered: int
    share: float


@dataclass(frozen=True, slots=True)
class FailedSeries(Record):
    """A series that has no job, with the code and the detail of the reason."""

    exchange: str
    market_type: str
    symbol: str
    interval: str
    code: str
    detail: str


@dataclass(frozen=True, slots=True)
class JobStatus(Record):
    """A job as the service tells it."""

    job: int
    status_url: str
    exchange: str
    market_type: str
    symbol: str
    interval: str
    start: datetime = field(metadata=_TIME)
    end: datetime = field(metadata=_TIME)
    state: str = "queued"
    progress: Progress | None = field(default=None, metadata={"read": Progress.of})
    estimate: Estimate | None = field(default=None, metadata={"read": Estimate.of})
    created_at: datetime | None = field(default=None, metadata=_TIME)
    started_at: datetime | None = field(default=None, metadata=_TIME)
    ended_at: datetime | None = field(default=None, metadata=_TIME)
    error: str | None = None
    missing: tuple[Missing, ...] = field(default=(), metadata={"read": partial(records, Missing)})
    beyond_memory: tuple[Window, ...] = field(
        default=(), metadata={"read": partial(records, Window)}
    )
    begins_known: bool = True
    unconfirmed: int | None = None

    @property
    def has_ended(self) -> bool:
        """Tell whether nothing is worked on any more."""
        return self.state in ("done", "cancelled", "failed")

    @property
    def series(self) -> str:
        """Return the series' names for people."""
        return f"{self.exchange} {self.market_type} {self.symbol} {self.interval}"
