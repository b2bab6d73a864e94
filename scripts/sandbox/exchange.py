"""Common ground of the exchanges: a call comes in, an answer goes out.

An exchange parses, validates, words its errors and prints its rows. Logging, latency and faults
are none of its business, so candles, times and lists leave it unprinted and can still be spoilt.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from itertools import count
from typing import ClassVar, Protocol, TypeAlias

import numpy as np
import orjson

from mdp_core.domain.clock import to_ms
from mdp_core.domain.intervals import Grid, Int64s, Interval
from scripts.sandbox.candles import DISTANT_FUTURE_MS, Columns, Decimals, Floats, PublishedSeries
from scripts.sandbox.invented import InventedSeries
from scripts.sandbox.limits import EXCEEDED, Refusal
from scripts.sandbox.markets import SandboxMarket, seed_of
from scripts.sandbox.replay import Replay

_PER_MS = {"ms": 1, "us": 1_000, "ns": 1_000_000}


@dataclass(frozen=True, slots=True)
class SandboxCall:
    """One request; `path` is without the exchange's prefix.

    `params` the query or the body.
    """

    method: str
    path: str
    params: Mapping[str, object]
    host: str
    headers: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Reply:
    """A finished answer."""

    status: int
    body: bytes
    media_type: str = "application/json"
    headers: Mapping[str, str] = field(default_factory=dict[str, str])


class Encode(Protocol):
    """Printing of candles, with times in the exchange's own unit or in another."""

    def __call__(self, rows: Columns, unit: str | None = None) -> bytes:
        """Print rows; `unit` is one of `s`, `ms`, `us`, `ns`."""
        ...


@dataclass(frozen=True, slots=True)
class CandleReply:
    """Candles that answer a candle request, ascending, before they are printed.

    Attributes:
        series: Source of the columns, for an answer to another question.
        fields: Place of each column in a printed row.
    """

    symbol: str
    interval: Interval
    series: PublishedSeries
    columns: Columns
    fields: Mapping[str, int | str]
    encode: Encode


@dataclass(frozen=True, slots=True)
class TimeReply:
    """The exchange's time that answers a time request, before it is printed."""

    now_ms: int
    encode: Callable[[int], bytes]


@dataclass(frozen=True, slots=True)
class SymbolsReply:
    """Descriptions of symbols that answer a metadata request, before they are printed.

    Attributes:
        key: Key of an entry's name.
        weak: A key that every client needs, and a value that none can use.
    """

    entries: Sequence[Mapping[str, object]]
    key: str
    weak: tuple[str, object]
    encode: Callable[[Sequence[Mapping[str, object]]], bytes]


Unprinted: TypeAlias = CandleReply | TimeReply | SymbolsReply
Answer: TypeAlias = Reply | Unprinted


def reply(content: object, status: int = 200) -> Reply:
    """Print an answer as JSON."""
    return Reply(status, orjson.dumps(content))


def in_unit(times_ms: Int64s, unit: str) -> Int64s:
    """Convert epoch milliseconds to another unit, rounded down."""
    return times_ms * _PER_MS[unit] if unit in _PER_MS else times_ms // 1000


def numbers(column: "Int64s | Floats", before: bytes = b"", after: bytes = b"") -> list[bytes]:
    """Print a column (at least one row), each number between two texts without commas."""
    text = orjson.dumps(column, option=orjson.OPT_SERIALIZE_NUMPY)[1:-1]
    if before or after:
        text = before + text.replace(b",", after + b"," + before) + after
    return text.split(b",")


def quoted_rows(*columns: Floats) -> list[bytes]:
    """Print each row (at least one) of some columns as quoted shortest decimals.

    With commas.
    """
    matrix = np.stack(columns, axis=1)
    text = orjson.dumps(matrix, option=orjson.OPT_SERIALIZE_NUMPY)[2:-2]
    quoted = text.replace(b",", b'","').replace(b']","[', b'"|"')
    return (b'"' + quoted + b'"').split(b"|")


def array_of(columns: Sequence[list[bytes]]) -> bytes:
    """Put printed columns of equal length together, row after row, as a JSON array."""
    tokens = [b""] * (len(columns) * len(columns[0]))
    for place, column in enumerate(columns):
        tokens[place :: len(columns)] = column
    return b"[" + b",".join(tokens) + b"]"


def markets_of(
    exchange: str, table: str, decimals: Callable[[float], Decimals]
) -> dict[str, SandboxMarket]:
    """Read a table of symbols.

    Name, usual price, first candle and, if delisted, the end.
    """
    found: dict[str, SandboxMarket] = {}
    for entry in table.strip().replace("\n", "·").split("·"):
        name, price, *dates = entry.split()
        born, dies = (*map(ms_of, dates), DISTANT_FUTURE_MS)[:2]
        shape = decimals(float(price))
        found[name] = SandboxMarket(
            seed_of(exchange, name), float(price), shape, born, dies_ms=dies
        )
    return found


def tail_of(names: str, first: str) -> str:
    """Write such a table for names alone.

    The first candle on a day, each next a week later.
    """
    days = (datetime.fromisoformat(first) + timedelta(weeks=week) for week in count())
    listed = zip(names.split(), days, strict=False)
    return " · ".join(f"{name} {price_of(name)} {day:%FT10:00Z}" for name, day in listed)


def price_of(name: str) -> float:
    """Give a usual price between 0.02 and 200 that depends on the name."""
    return float(f"{0.02 * 10 ** (seed_of('price', name) % 4000 / 1000):.4g}")


def ms_of(text: str) -> int:
    """Read an ISO-8601 time with its zone as epoch milliseconds."""
    return to_ms(datetime.fromisoformat(text))


def decimals_of(price: float, digits: int) -> Decimals:
    """Give decimals that leave a price so many digits, and volumes a fine enough step."""
    magnitude = math.floor(math.log10(price))
    return Decimals(max(0, digits - 1 - magnitude), max(0, magnitude - 1))


def step_of(decimals: int) -> str:
    """Print the smallest step of a number with so many decimals."""
    return f"{10**-decimals:.{decimals}f}"


class SandboxExchange(ABC):
    """One exchange.

    Attributes:
        candle_params: Names that its candle request takes.
        fields: Place of each column in a printed row.
        shows_unknown_status: Whether one symbol has a status that no client knows.
    """

    shows_unknown_status: bool = True
    name: ClassVar[str]
    candle_params: ClassVar[frozenset[str]]
    fields: ClassVar[Mapping[str, int | str]]

    @abstractmethod
    def answer(self, call: SandboxCall, now_ms: int) -> Answer:
        """Answer a call at the exchange's time `now_ms`."""

    @abstractmethod
    def charge(self, call: SandboxCall, answer: Answer) -> Refusal | None:
        """Book the call's cost; tell whether the limit is exceeded."""

    @abstractmethod
    def refuse(self, refusal: Refusal, now_ms: int) -> Reply:
        """Word a refusal (429, 418) as the exchange does."""

    @abstractmethod
    def fail(self) -> Reply:
        """Word an internal error (500) as the exchange does."""

    def error_body(self, now_ms: int) -> bytes:
        """Give the body of an error that comes with status 200."""
        return self.refuse(Refusal(EXCEEDED, 1), now_ms).body

    def headers(self, host: str) -> Mapping[str, str]:
        """Give the headers that every response to this address carries."""
        del host
        return {}


class SeriesBook:
    """The series of one exchange: replayed where a file has them, else invented."""

    def __init__(
        self,
        exchange: str,
        grids: Mapping[Interval, Grid],
        market: Callable[[str, Interval], SandboxMarket],
        replay: Replay,
    ) -> None:
        """Make the book of an exchange; `market` knows what is invented, by native symbol."""
        self._exchange = exchange
        self._grids = grids
        self._market = market
        self._replay = replay
        self._open: dict[tuple[str, Interval], PublishedSeries] = {}

    def __call__(self, symbol: str, interval: Interval) -> PublishedSeries:
        """Give the series of a known symbol."""
        key = (symbol, interval)
        if key not in self._open:
            self._open[key] = self._make(symbol, interval)
        return self._open[key]

    def _make(self, symbol: str, interval: Interval) -> PublishedSeries:
        grid = self._grids[interval]
        replayed = self._replay.series(self._exchange, symbol, interval, grid)
        if replayed is not None:
            return replayed
        return InventedSeries(self._market(symbol, interval), interval, grid)
