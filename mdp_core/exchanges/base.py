"""The adapter of an exchange: facts as data, and questions.

Paging, retries, budgets, validation and caching are not an adapter's: it translates. A new exchange
is one file with one subclass, named by an entry point of the group `mdp.exchanges`.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from copy import copy
from dataclasses import dataclass
from datetime import datetime
from typing import ClassVar, Self

from mdp_core.domain.candles import Candles
from mdp_core.domain.intervals import Grid, Interval
from mdp_core.domain.series import Symbol
from mdp_core.domain.windows import Window
from mdp_core.exchanges.contact import Contact
from mdp_core.exchanges.http import ExchangeHttp
from mdp_core.exchanges.relay import Question, Relayed
from mdp_core.ratelimit.context import RequestContext
from mdp_core.ratelimit.tariff import Tariff
from mdp_core.ratelimit.waiting_room import WaitingRoom


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
    """Facts of an exchange and market type; durations in seconds."""

    name: str
    title: str
    market_type: str
    base_url: str
    intervals: Mapping[Interval, OfferedInterval]
    tariff: Tariff
    page_size: int
    """Slots of one page: what costs the least weight per candle."""
    fills_empty_intervals: bool
    """True if an interval without a trade has a candle, too."""
    settle_seconds: float
    """How long after its close a candle may still change."""
    absence_grace_seconds: float
    """How long after its close an absent candle may only be late."""
    poll_seconds: float
    """How often the candles after the end of coverage are asked for at the most."""
    supports_first_candle: bool
    """Whether `fetch_first` can tell where a series' history begins."""
    forming_seconds: float = 3
    """How old a forming candle may be that is answered again."""
    history_start_interval: Interval | None = None
    """The interval that tells where all series of a symbol begin. None: each tells for itself."""
    retention_candles: int | None = None
    """How many candles of a series it remembers at the most; None: all."""
    pages_per_request: int = 1
    """How many adjacent pages one request may ask for."""
    overshoot_slots: int = 0
    """How many slots before a window's start its answers are known to begin."""
    reference_symbol: Symbol | None = None
    """A symbol that is traded all the time: whether the exchange answers is told by it at last."""


class ExchangeAdapter(ABC):
    """Translates between one exchange's REST interface and this service's types.

    Every method raises the subclasses of `ExchangeError`: `ExchangeUnavailable` and `RateLimited`
    for what may pass, `ExchangeRejected` for a refused request, `BadPayload` for an answer of the
    wrong shape.
    """

    facts: ClassVar[ExchangeFacts]

    def __init__(self, http: ExchangeHttp) -> None:
        self._http = http

    @property
    def contact(self) -> Contact:
        """The outcome of the last request of this process to the exchange."""
        return self._http.contact

    @property
    def room(self) -> WaitingRoom:
        """The place of the requests that wait for the exchange."""
        return self._http.room

    def bound(self, context: RequestContext) -> Self:
        """Return this adapter for requests of `context`: its urgency, permit and count.

        What it returns is a copy that shares everything but the HTTP helper.
        """
        bound = copy(self)
        bound._http = self._http.bound(context)  # noqa: SLF001 - of its own copy
        return bound

    async def relay(self, question: Question) -> Relayed:
        """Hand on a public question of another program, within the shared budget.

        Raises:
            ExchangeUnavailable, RateLimited, BadPayload: There is no answer to hand back.
        """
        return await self._http.relay(question)

    @abstractmethod
    async def fetch_page(self, symbol: Symbol, interval: Interval, window: Window) -> Candles:
        """Fetch the candles that open in `window`: on the grid, at most one page long.

        Returns:
            The rows as the exchange sent them, in our columns and units (times in epoch ms UTC,
            volume in base units): possibly unordered, outside the window, forming or wrong. The
            caller judges them, the same way for every exchange.
        """

    @abstractmethod
    async def fetch_symbols(self) -> Sequence[Symbol]:
        """Fetch everything of this market type that the exchange lists, active or not."""

    async def fetch_first(
        self, symbol: Symbol, interval: Interval, since: datetime | None
    ) -> Candles:
        """Fetch a series' first candle, with any that come at no cost; empty: none so far.

        Asked only where `facts.supports_first_candle`. What is brought of
        `facts.history_start_interval` is stored.

        Args:
            symbol: Whose candles.
            interval: Of the series.
            since: Where the symbol's series of `facts.history_start_interval` begins (UTC, an
                open); None for that series itself, and where there is no such interval.

        Returns:
            Rows as `fetch_page` gives them, but none from before trading began.
        """
        del symbol, interval, since
        return Candles.empty()

    async def fetch_first_again(
        self, symbol: Symbol, interval: Interval, since: datetime | None
    ) -> Candles:
        """Fetch a series' first candle by a question of another width, if there is one.

        Args and result are those of `fetch_first`.
        """
        return await self.fetch_first(symbol, interval, since)

    async def fetch_newest(self, symbol: Symbol, interval: Interval) -> Candles:
        """Fetch a series' newest candles, closed or not, without a window; empty: none.

        Returns:
            Rows as `fetch_page` gives them; at least the newest.
        """
        del symbol, interval
        return Candles.empty()

    def other_names(self, symbol: str) -> Sequence[str]:
        """Return the canonical names an unknown `symbol` may stand for, likeliest first."""
        del symbol
        return ()

    @abstractmethod
    async def server_time(self) -> datetime:
        """Fetch the exchange's clock (aware, UTC)."""
