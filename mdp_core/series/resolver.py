"""From the four words of a request to a series, fetching what the catalog lacks."""

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import datetime
from weakref import WeakValueDictionary

from cachetools import TLRUCache
from rapidfuzz import fuzz, process

from mdp_core.domain.intervals import Interval
from mdp_core.domain.series import Series, Symbol
from mdp_core.errors import (
    AmbiguousSymbol,
    BadPayload,
    ExchangeError,
    MdpError,
    UnknownExchange,
    UnknownMarketType,
    UnknownSymbol,
    UnsupportedInterval,
    copied,
)
from mdp_core.exchanges.base import ExchangeAdapter
from mdp_core.exchanges.parsing import SymbolList
from mdp_core.ratelimit.context import DEFAULT_CONTEXT, RequestContext
from mdp_core.ratelimit.priority import Priority
from mdp_core.series.history_start import HistoryStarts
from mdp_core.storage.catalog.catalog import Catalog, Listing

_log = logging.getLogger(__name__)

# How long this process believes what it read from the catalog.
_BELIEVED_SECONDS = 60.0
# How many series it remembers: one has many names, in other letter cases.
_MOST_KNOWN = 20_000
# How often a symbol that isn't known makes us ask the exchange for its list.
_REFRESH_SECONDS = 60.0
# How long a failure to get it is remembered, and told to whoever asks meanwhile.
_FAILURE_SECONDS = 5.0
_NEAR_NAMES = 5
_NEAR_SPELLINGS = 3 * _NEAR_NAMES  # each name stands there thrice
_LEAST_LIKENESS = 50.0  # of 100
_LONGEST_MISSPELLED = 40
# More than this part of a list does not vanish at once: then the list is wrong.
_LARGEST_LOSS = 0.2

SeriesKey = tuple[str, str, str, str]

# A series, and until when (monotonic) it is believed.
_Known = tuple[Series, float]


def _expires(_key: SeriesKey, known: _Known, _now: float) -> float:
    return known[1]


class SeriesResolver:
    """Resolves series; asks an exchange for its symbols when the catalog doesn't know one."""

    def __init__(
        self,
        catalog: Catalog,
        history_starts: HistoryStarts,
        adapters: Mapping[tuple[str, str], ExchangeAdapter],
    ) -> None:
        self._catalog = catalog
        self._history_starts = history_starts
        self._adapters = adapters
        self._known = TLRUCache[SeriesKey, _Known](_MOST_KNOWN, _expires, time.monotonic)
        self._listings: dict[ExchangeAdapter, tuple[Sequence[Listing], float]] = {}
        self._refreshed: dict[ExchangeAdapter, tuple[float, MdpError | None]] = {}
        self._resolving = WeakValueDictionary[tuple[SeriesKey, Priority], asyncio.Lock]()
        self._listing_again = {adapter: asyncio.Lock() for adapter in adapters.values()}
        self._refreshing = {adapter: asyncio.Lock() for adapter in adapters.values()}

    def adapter(self, exchange: str, market_type: str) -> ExchangeAdapter:
        """Give the adapter of a market.

        Raises:
            UnknownExchange, UnknownMarketType: There is none.
        """
        if adapter := self._adapters.get((exchange, market_type)):
            return adapter
        if exchange not in self.exchanges():
            raise UnknownExchange(exchange, self.exchanges())
        market_types = sorted(kind for name, kind in self._adapters if name == exchange)
        raise UnknownMarketType(exchange, market_type, market_types)

    def exchanges(self) -> list[str]:
        """Give the names of the exchanges that are installed, sorted."""
        return sorted({name for name, _ in self._adapters})

    def markets(self, exchange: str | None, market_type: str | None) -> list[ExchangeAdapter]:
        """Give the adapters of all markets, of one exchange, of one market type, or of one market.

        Raises:
            UnknownExchange, UnknownMarketType: There is none.
        """
        if exchange is not None and market_type is not None:
            return [self.adapter(exchange, market_type)]
        found = [
            adapter
            for (name, kind), adapter in sorted(self._adapters.items())
            if exchange in (None, name) and market_type in (None, kind)
        ]
        if not found and exchange is not None:
            raise UnknownExchange(exchange, self.exchanges())
        if not found and market_type is not None:
            everywhere, known = "any exchange", sorted({kind for _, kind in self._adapters})
            raise UnknownMarketType(everywhere, market_type, known)
        return found

    async def symbols(
        self, adapter: ExchangeAdapter, context: RequestContext = DEFAULT_CONTEXT
    ) -> list[Symbol]:
        """Give every symbol that is or was listed, by name; an empty catalog is filled first."""
        listings = await self._believed_listings(adapter)
        if not listings:
            await self._refresh_at_times(adapter, context)
            listings = await self._believed_listings(adapter)
        return sorted((each.symbol for each in listings), key=lambda each: (each.name, each.native))

    async def symbol(
        self, adapter: ExchangeAdapter, text: str, context: RequestContext = DEFAULT_CONTEXT
    ) -> Symbol:
        """Give the symbol that `text` names, as in `series`.

        Raises:
            UnknownSymbol: There is none, or several.
            ExchangeError: The exchange had to be asked for its list and failed.
        """
        return (await self._listing(adapter, text, context)).symbol

    async def without_history_start(
        self, adapter: ExchangeAdapter, context: RequestContext
    ) -> list[Series]:
        """Give the kept series of a market whose beginning is not known."""
        facts = adapter.facts
        market = (facts.name, facts.market_type)
        names = await self._catalog.names_without_history_start(*market)
        return [await self.series(*market, *name, context) for name in names]

    async def learn_history_start(self, series: Series, begins: datetime) -> None:
        """Keep where a series' history was found, by searching, to begin."""
        await self._history_starts.rechecks.learn(series, begins)
        self._forget(series)

    async def doubt_history_start(self, series: Series, context: RequestContext) -> Series:
        """Ask again, by another width, for a history start that was told once; return the series.

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
            told = await self.ask_history_start(
                await self._sibling(series, telling, context), context
            )
            begins = await self._history_starts.derived(
                adapter, series.symbol, series.interval, told, context
            )
            await self._history_starts.rechecks.keep(series, begins, 2)
        return await self._again(series, context)

    async def put_off_history_start(self, series: Series) -> None:
        """Ask for the history start of a series again only in a day."""
        await self._history_starts.rechecks.put_off(series)

    def _adapter_of(self, series: Series) -> ExchangeAdapter:
        return self.adapter(series.exchange, series.symbol.market_type)

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
        """Give the series that a request names; the first time, where its history begins is asked.

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
        resolving = (key, context.priority)
        async with self._resolving.setdefault(resolving, asyncio.Lock()):
            return self._believed_series(key) or await self._resolve(key, context)

    async def kept(
        self,
        exchange: str,
        market_type: str,
        symbol: str,
        interval: str,
        context: RequestContext = DEFAULT_CONTEXT,
    ) -> Series:
        """Give the series that four words name, as `series`, but ask nobody where it begins.

        Raises:
            MdpError: As `series`.
        """
        key = (exchange, market_type, symbol, interval)
        if known := self._believed_series(key):
            return known
        adapter = self.adapter(exchange, market_type)
        offered = _offered(adapter, interval)
        return await self._history_starts.kept(
            adapter, await self._listing(adapter, symbol, context), offered
        )

    async def first_day(self, series: Series) -> datetime | None:
        """Give when the first daily candle of a kept series' symbol opens, if that is known."""
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
            for listing in await self._believed_listings(adapter)
            if listing.symbol.active and listing.symbol.name in symbols
        ]
        counted = Counter(listing.symbol.name for listing in listings)
        intervals = {interval for _, interval in names}
        usual = {each: of.grid for each, of in facts.intervals.items() if each.value in intervals}
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
        adapter = self.adapter(exchange, market_type)
        offered = _offered(adapter, interval)
        listing = await self._listing(adapter, symbol, context)
        series = await self._history_starts.series(adapter, listing, offered, context)
        # What has not begun to trade may begin at any moment, like any other candle; where it did
        # may be found at any moment by whoever searches.
        is_awaited = series.history_start is None
        seconds = adapter.facts.poll_seconds if is_awaited else _BELIEVED_SECONDS
        self._believe(key, series, seconds)
        return series

    async def refresh_symbols(
        self, adapter: ExchangeAdapter, context: RequestContext = DEFAULT_CONTEXT
    ) -> int:
        """Make the catalog equal the exchange's list; give how many symbols that has.

        Symbols whose entries can't be read stay as they are.

        Raises:
            BadPayload: The list is empty, or would lose too much of what was listed.
            ExchangeError: The exchange could not be asked.
        """
        facts = adapter.facts
        symbols = await adapter.bound(context).fetch_symbols()
        listed = {symbol.native for symbol in symbols if symbol.active}
        active = [
            listing.symbol.native
            for listing in await self._catalog.listings(facts.name, facts.market_type)
            if listing.symbol.active
        ]
        lost = [native for native in active if native not in listed]
        if not symbols or len(lost) > _LARGEST_LOSS * len(active):
            extra = {"exchange": facts.name, "active": len(active), "lost": len(lost)}
            _log.error("list of symbols refused", extra=extra)
            what = f"answered a list of {len(symbols)} symbols, without {len(lost)} of the "
            raise BadPayload(facts.name, f"{what}{len(active)} that were active: it is refused")
        offered = {i: (o.native, o.grid) for i, o in facts.intervals.items()}
        await self._catalog.save_exchange(facts.name, facts.title)
        await self._catalog.save_intervals(facts.name, facts.market_type, offered)
        malformed = symbols.malformed if isinstance(symbols, SymbolList) else frozenset[str]()
        await self._catalog.save_symbols(facts.name, facts.market_type, symbols, malformed)
        self._listings.pop(adapter, None)
        return len(symbols)

    async def _listing(
        self, adapter: ExchangeAdapter, text: str, context: RequestContext
    ) -> Listing:
        listings = await self._believed_listings(adapter)
        if found := _find(adapter, text, listings):
            return found
        try:
            await self._refresh_at_times(adapter, context)
        except ExchangeError:
            _check_unambiguous(adapter, text, listings)
            raise
        listings = await self._believed_listings(adapter)
        if found := _find(adapter, text, listings):
            return found
        _check_unambiguous(adapter, text, listings)
        raise UnknownSymbol(adapter.facts.name, text, _near(text, listings))

    async def _refresh_at_times(self, adapter: ExchangeAdapter, context: RequestContext) -> None:
        async with self._refreshing[adapter]:
            until, failure = self._refreshed.get(adapter, (0.0, None))
            if time.monotonic() < until:
                if failure:
                    raise copied(failure)
                return
            try:
                await self.refresh_symbols(adapter, context)
                self._refreshed[adapter] = (time.monotonic() + _REFRESH_SECONDS, None)
            except MdpError as error:
                self._refreshed[adapter] = (time.monotonic() + _FAILURE_SECONDS, error)
                raise

    async def _believed_listings(self, adapter: ExchangeAdapter) -> Sequence[Listing]:
        async with self._listing_again[adapter]:  # many wait for it when it grows old
            listings, until = self._listings.get(adapter, ((), 0.0))
            if time.monotonic() < until:
                return listings
            facts = adapter.facts
            listings = await self._catalog.listings(facts.name, facts.market_type)
            self._listings[adapter] = (listings, time.monotonic() + _BELIEVED_SECONDS)
            return listings


def _offered(adapter: ExchangeAdapter, interval: str) -> Interval:
    offered = {known.value: known for known in adapter.facts.intervals}
    if interval not in offered:
        raise UnsupportedInterval(adapter.facts.name, interval, list(offered))
    return offered[interval]


def _find(adapter: ExchangeAdapter, text: str, listings: Sequence[Listing]) -> Listing | None:
    """Find a symbol by its name, else by a name that `text` may stand for on that exchange."""
    names = (text, *adapter.other_names(text))
    return next(filter(None, (_find_name(name, listings) for name in names)), None)


def _find_name(text: str, listings: Sequence[Listing]) -> Listing | None:
    """Find the only symbol of that name."""
    owners = next((each for each in _owners(text, listings) if len(each) == 1), ())
    return next(iter(owners), None)


def _check_unambiguous(adapter: ExchangeAdapter, text: str, listings: Sequence[Listing]) -> None:
    """Raise `AmbiguousSymbol` where no symbol is the only one of that name, and several have it."""
    if several := next((owners for owners in _owners(text, listings) if owners), None):
        natives = sorted(each.symbol.native for each in several)
        raise AmbiguousSymbol(adapter.facts.name, text, natives)


def _owners(text: str, listings: Sequence[Listing]) -> list[list[Listing]]:
    """Find by canonical name, by native id, and by either without regard to case."""
    folded = text.casefold()
    tests = (
        [each for each in listings if each.symbol.name == text],
        [each for each in listings if each.symbol.native == text],
        [
            each
            for each in listings
            if folded in (each.symbol.name.casefold(), each.symbol.native.casefold())
        ],
    )
    # A relisted pair stands there twice: the active one owns the name.
    return [[each for each in matches if each.symbol.active] or matches for matches in tests]


def _near(text: str, listings: Sequence[Listing]) -> list[str]:
    """Give names that `text` may have been meant for, the nearest first.

    It is compared with canonical names, with the exchange's own, and with bases.
    """
    if len(text) > _LONGEST_MISSPELLED:
        return []
    spellings = [
        (word.casefold(), each.symbol.name)
        for each in listings
        for word in (each.symbol.name, each.symbol.native, each.symbol.base)
    ]
    near = process.extract(
        text.casefold(),
        [spelling for spelling, _ in spellings],
        scorer=fuzz.ratio,
        score_cutoff=_LEAST_LIKENESS,
        limit=_NEAR_SPELLINGS,
    )
    names = dict.fromkeys(spellings[place][1] for _, _, place in near)
    return [*names][:_NEAR_NAMES]
