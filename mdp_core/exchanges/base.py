"""What an exchange is to this service: facts as data, and five questions that can be asked of it.

Paging, retries, budgets, validation and caching are not an adapter's: it translates. A new exchange
is one file with one subclass, named by an entry point of the group `mdp.exchanges`.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, ClassVar, cast

import numpy as np

from mdp_core.budget import Tariff
from mdp_core.exchanges.http import ExchangeHttp
from mdp_core.intervals import Grid, Int64s, Interval
from mdp_core.model import Candles, Float64s, Symbol, Window

_DECIMAL_CHARACTERS = b"0123456789.,eE+-"


@dataclass(frozen=True, slots=True)
class OfferedInterval:
    """An interval that the exchange publishes.

    `grid` is the usual one; with `phase_varies` the series' own first candle decides its phase.
    """

    native: str
    grid: Grid
    phase_varies: bool = False


@dataclass(frozen=True, slots=True)
class ExchangeFacts:
    """What is known of an exchange and market type; durations in seconds."""

    name: str
    title: str
    market_type: str
    base_url: str
    intervals: Mapping[Interval, OfferedInterval]
    tariff: Tariff
    page_size: int
    """Slots of one page: what costs the least weight per candle."""
    publishes_every_interval: bool
    """Whether there is a candle even where nobody traded."""
    settle_seconds: float
    """How long after its close a candle may still change."""
    absence_grace_seconds: float
    """How long after its close an absent candle may only be late."""
    tail_seconds: float
    """How often the candles after the end of coverage are asked for at the most."""
    probes_beginning: bool
    """Whether `fetch_first` can tell where a series' history begins."""
    forming_seconds: float = 3
    """How old a forming candle may be that is answered again."""
    beginning_interval: Interval | None = None
    """The interval that tells where all series of a symbol begin. None: each tells for itself."""
    memory: int | None = None
    """How many candles of a series it remembers at the most; None: all."""
    pages_per_request: int = 1
    """How many adjacent pages one request may ask for."""


class ExchangeAdapter(ABC):
    """Translates between one exchange's REST interface and this service's types.

    Every method raises the subclasses of `ExchangeError`: `ExchangeUnavailable` and `RateLimited`
    for what may pass, `ExchangeRejected` for a refused request, `BadPayload` for an answer of the
    wrong shape.
    """

    facts: ClassVar[ExchangeFacts]

    def __init__(self, http: ExchangeHttp) -> None:
        self._http = http

    @abstractmethod
    async def fetch_page(self, symbol: Symbol, interval: Interval, window: Window) -> Candles:
        """Fetch the candles that open in `window`: on the grid, at most one page long.

        Returns:
            The rows as the exchange sent them, in our columns and units (times in epoch ms UTC,
            volume in base units): possibly unordered, outside the window, forming or wrong. The
            caller sifts them, the same way for every exchange.
        """

    @abstractmethod
    async def fetch_symbols(self) -> Sequence[Symbol]:
        """Fetch everything of this market type that the exchange lists, active or not."""

    async def fetch_first(
        self, symbol: Symbol, interval: Interval, since: datetime | None
    ) -> Candles:
        """Fetch a series' first candle, with whatever follows it at no cost; empty: none so far.

        Asked only where `facts.probes_beginning`. What is brought of `facts.beginning_interval` is
        stored.

        Args:
            symbol: Whose candles.
            interval: Of the series.
            since: Where the symbol's series of `facts.beginning_interval` begins (UTC, an open);
                None for that series itself, and where there is no such interval.

        Returns:
            Rows as `fetch_page` gives them, but none from before trading began.
        """
        del symbol, interval, since
        return Candles.empty()

    def other_names(self, symbol: str) -> Sequence[str]:
        """Give the canonical names that an unknown `symbol` may stand for, the likeliest first."""
        del symbol
        return ()

    @abstractmethod
    async def server_time(self) -> datetime:
        """Fetch the exchange's clock (aware, UTC)."""


def integers(values: Sequence[object]) -> Int64s:
    """Make a column of JSON integers.

    Raises:
        TypeError: One of them is something else: a cast would change it silently.
    """
    if set(map(type, values)) - {int}:
        raise TypeError
    return np.array(values, np.int64)


def decimals(values: Sequence[object]) -> Float64s:
    """Make a column of decimals, written as strings or as JSON numbers.

    Raises:
        TypeError, ValueError: One of them is something else, or a number only to Python (`1_0`).
    """
    try:
        texts = ",".join(cast("Sequence[str]", values))  # is quicker than asking each for its type
    except TypeError:
        return _mixed_decimals(values)
    if texts.encode().translate(None, _DECIMAL_CHARACTERS):
        raise ValueError
    return np.fromiter(map(float, cast("Sequence[str]", values)), np.float64, len(values))


def _mixed_decimals(values: Sequence[object]) -> Float64s:
    kinds = set(map(type, values))
    if kinds <= {int, float}:
        return np.array(values, np.float64)
    if kinds - {str, int, float}:
        raise TypeError
    return decimals(list(map(str, values)))


def arrays(payload: object) -> list[list[Any]]:
    """Take a payload for a list of arrays.

    Raises:
        TypeError: It is something else.
    """
    return cast("list[list[Any]]", _list_of(list, payload))


def objects(payload: object) -> list[dict[str, Any]]:
    """Take a payload for a list of objects.

    Raises:
        TypeError: It is something else.
    """
    return cast("list[dict[str, Any]]", _list_of(dict, payload))


def _list_of(kind: type, payload: object) -> list[object]:
    if not isinstance(payload, list) or set(map(type, cast("list[object]", payload))) - {kind}:
        raise TypeError
    return cast("list[object]", payload)
