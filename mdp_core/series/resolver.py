"""Resolve the four names of a request to a series."""

import asyncio
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from weakref import WeakValueDictionary

from cachetools import TLRUCache, TTLCache

from mdp_core.domain.intervals import Interval
from mdp_core.domain.series import Series
from mdp_core.errors import ExchangeError, UnsupportedInterval, copied
from mdp_core.exchanges.base import ExchangeAdapter
from mdp_core.ratelimit.context import DEFAULT_CONTEXT, RequestContext
from mdp_core.ratelimit.priority import Priority
from mdp_core.series.history_start import HistoryStarts
from mdp_core.series.symbol_directory import SymbolDirectory
from mdp_core.storage.catalog.catalog import Catalog

# How long this process believes what it read from the catalog.
_BELIEVED_SECONDS = 60.0
# How long one answer tells where all intervals of a symbol begin.
_TOLD_SECONDS = 30.0
# How many series it remembers: one has many names, in other letter cases.
_MOST_KNOWN = 20_000

SeriesKey = tuple[str, str, str, str]

# A series, and until when (monotonic) it is believed.
_Known = tuple[Series, float]


def _expires(_key: SeriesKey, known: _Known, _now: float) -> float:
    return known[1]


@dataclass(slots=True, weakref_slot=True)
class _Resolution:
    """The resolving of a name; callers that wait meanwhile share its failure."""

    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    failure: ExchangeError | None = None


class SeriesResolver:
    """Resolves the names of series, and remembers what it has resolved."""

    def __init__(
        self,
        catalog: Catalog,
        history_starts: HistoryStarts,
        directory: SymbolDirectory,
    ) -> None:
        self._catalog = catalog
        self._history_starts = history_starts
        self.directory = directory
        self._known = TLRUCache[SeriesKey, _Known](_MOST_KNOWN, _expires, time.monotonic)
        self._told_lately = TTLCache[int, Series](_MOST_KNOWN, _TOLD_SECONDS)
        self._telling = WeakValueDictionary[int, asyncio.Lock]()
        self._resolving = WeakValueDictionary[tuple[SeriesKey, Priority], _Resolution]()

    async def without_history_start(
        self, adapter: ExchangeAdapter, context: RequestContext
    ) -> list[Series]:
        """Return the stored series of a market whose history start is not known."""
        facts = adapter.facts
        market = (facts.name, facts.market_type)
        names = await self._catalog.names_without_history_start(*market)
        return [await self.series(*market, *name, context) for name in names]

    async def learn_history_start(self, series: Series, begins: datetime) -> None:
        """Keep where a series' history was found, by searching, to begin."""
        await self._history_starts.rechecks.learn(series, begins)
        self._forget(series)

    async def doubt_history_start(self, series: Series, context: RequestContext) -> Series:
        """Ask again, by another width, for a history start with one witness.

        Raises:
            ExchangeError: The exchange can't be asked, or contradicts itself.
        """
        await self._history_starts.rechecks.doubt(self._adapter_of(series), series, context)
        return await self._again(series, context)

    async def ask_history_start(self, series: Series, context: RequestContext) -> Series:
        """Ask anew for the history start of a series; return the series as it is then.

        Raises:
            ExchangeError: The exchange can't be asked, or contradicts itself.
        """
        adapter = self._adapter_of(series)
        telling = adapter.facts.history_start_interval
        if telling is None or telling is series.interval or series.history_start is None:
            await self._history_starts.rechecks.ask_again(adapter, series, context)
        else:
            told = await self._told(await self._sibling(series, telling, context), context)
            begins = await self._history_starts.derived(
                adapter, series.symbol, series.interval, told, context
            )
            await self._history_starts.rechecks.keep(series, begins, 2)
        return await self._again(series, context)

    async def _told(self, telling: Series, context: RequestContext) -> Series:
        """Ask for the history start that tells for all intervals of a symbol, only once."""
        async with self._telling.setdefault(telling.id, asyncio.Lock()):
            told = self._told_lately.get(telling.id)
            if told is None:
                told = await self.ask_history_start(telling, context)
                self._told_lately[telling.id] = told
            return told

    async def put_off_history_start(self, series: Series) -> None:
        """Ask for the history start of a series again only in a day."""
        await self._history_starts.rechecks.put_off(series)

    def _adapter_of(self, series: Series) -> ExchangeAdapter:
        return self.directory.adapter(series.exchange, series.symbol.market_type)

    async def _again(self, series: Series, context: RequestContext) -> Series:
        self._forget(series)
        return await self._sibling(series, series.interval, context)

    async def _sibling(self, series: Series, interval: Interval, context: RequestContext) -> Series:
        symbol = series.symbol
        words = (symbol.exchange, symbol.market_type, symbol.name, interval.value)
        return await self.series(*words, context)

    def _forget(self, series: Series) -> None:
        for key in [*self._known]:
            if (known := self._believed_series(key)) and known.id == series.id:
                self._known.pop(key, None)

    async def series(
        self,
        exchange: str,
        market_type: str,
        symbol: str,
        interval: str,
        context: RequestContext = DEFAULT_CONTEXT,
    ) -> Series:
        """Return the series that a request names; a new one's history start is probed.

        Args:
            exchange: A name, e.g. `binance`.
            market_type: `perp` or `spot`.
            symbol: Canonical, or the exchange's own id, in any case where that is unambiguous.
            interval: E.g. `1m`; the case matters.
            context: On whose behalf an exchange is asked.

        Raises:
            UnknownExchange, UnknownMarketType, UnknownSymbol, UnsupportedInterval: As they say.
            ExchangeError: The exchange had to be asked and failed.
        """
        key = (exchange, market_type, symbol, interval)
        if known := self._believed_series(key):
            return known
        # One lock per priority: an interactive request never queues behind a backfill.
        resolution = self._resolving.setdefault((key, context.priority), _Resolution())
        failure_before = resolution.failure
        async with resolution.lock:
            if known := self._believed_series(key):
                return known
            if resolution.failure and resolution.failure is not failure_before:
                raise copied(resolution.failure)
            try:
                return await self._resolve(key, context)
            except ExchangeError as error:
                resolution.failure = error
                raise

    async def stored(
        self,
        exchange: str,
        market_type: str,
        symbol: str,
        interval: str,
        context: RequestContext = DEFAULT_CONTEXT,
    ) -> Series:
        """Return the series that four names mean, as `series`, without a probe.

        Raises:
            MdpError: As `series`.
        """
        key = (exchange, market_type, symbol, interval)
        if known := self._believed_series(key):
            return known
        adapter = self.directory.adapter(exchange, market_type)
        offered = _offered(adapter, interval)
        return await self._history_starts.stored(
            adapter, await self.directory.listing(adapter, symbol, context), offered
        )

    async def first_day(self, series: Series) -> datetime | None:
        """Return the open time of the symbol's first daily candle, if that is known."""
        return await self._catalog.first_day(series)

    async def look_up(self, adapter: ExchangeAdapter, names: Sequence[tuple[str, str]]) -> None:
        """Read many kept series of a market at once, so that `series` has them at hand.

        Args:
            adapter: Of the market.
            names: Symbol (canonical, active) and interval of each; others are left to `series`.
        """
        facts = adapter.facts
        wanted, symbols = set(names), {symbol for symbol, _ in names}
        listings = [
            listing
            for listing in await self.directory.listings(adapter)
            if listing.symbol.active and listing.symbol.name in symbols
        ]
        counted = Counter(listing.symbol.name for listing in listings)
        intervals = {interval for _, interval in names}
        usual = {
            entry: of.grid for entry, of in facts.intervals.items() if entry.value in intervals
        }
        for series in await self._catalog.all_series(listings, usual):
            name = (series.symbol.name, series.interval.value)
            is_known = series.history_start or not facts.supports_first_candle
            if is_known and name in wanted and counted[name[0]] == 1:
                self._believe((facts.name, facts.market_type, *name), series, _BELIEVED_SECONDS)

    def _believe(self, key: SeriesKey, series: Series, seconds: float) -> None:
        self._known[key] = (series, time.monotonic() + seconds)

    def _believed_series(self, key: SeriesKey) -> Series | None:
        return self._known.get(key, (None, 0.0))[0]

    async def _resolve(self, key: SeriesKey, context: RequestContext) -> Series:
        exchange, market_type, symbol, interval = key
        adapter = self.directory.adapter(exchange, market_type)
        offered = _offered(adapter, interval)
        listing = await self.directory.listing(adapter, symbol, context)
        series = await self._history_starts.series(adapter, listing, offered, context)
        # What has not begun to trade may begin at any moment, like any other candle; where it did
        # may be found at any moment by a search.
        is_awaited = series.history_start is None
        seconds = adapter.facts.poll_seconds if is_awaited else _BELIEVED_SECONDS
        self._believe(key, series, seconds)
        return series


def _offered(adapter: ExchangeAdapter, interval: str) -> Interval:
    offered = {known.value: known for known in adapter.facts.intervals}
    if interval not in offered:
        raise UnsupportedInterval(adapter.facts.name, interval, list(offered))
    return offered[interval]
