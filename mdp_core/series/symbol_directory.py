"""The markets and symbols, from the catalog, else from the exchange."""

import asyncio
import logging
import time
from collections.abc import Mapping, Sequence

from mdp_core.domain.series import Symbol
from mdp_core.errors import (
    BadPayload,
    ExchangeError,
    MdpError,
    UnknownExchange,
    UnknownMarketType,
    UnknownSymbol,
    copied,
)
from mdp_core.exchanges.base import ExchangeAdapter
from mdp_core.exchanges.parsing import SymbolList
from mdp_core.ratelimit.context import DEFAULT_CONTEXT, RequestContext
from mdp_core.series.relisting import Relistings
from mdp_core.series.symbol_names import check_unambiguous, find_listing, near_names
from mdp_core.storage.catalog.catalog import Catalog, Listing

_log = logging.getLogger(__name__)

# How long this process believes what it read from the catalog.
_BELIEVED_SECONDS = 60.0
# How often a symbol that isn't known makes us ask the exchange for its list.
_REFRESH_SECONDS = 60.0
# How long a failure to get it is remembered, and told to callers meanwhile.
_FAILURE_SECONDS = 5.0
# More than this part of a list does not vanish at once: then the list is wrong.
_LARGEST_LOSS = 0.2


class SymbolDirectory:
    """Finds markets and symbols; fetches the list when a symbol is not known."""

    def __init__(
        self,
        catalog: Catalog,
        adapters: Mapping[tuple[str, str], ExchangeAdapter],
        relistings: Relistings,
    ) -> None:
        self._catalog = catalog
        self._relistings = relistings
        self._adapters = adapters
        self._listings: dict[ExchangeAdapter, tuple[Sequence[Listing], float]] = {}
        self._refreshed: dict[ExchangeAdapter, tuple[float, MdpError | None]] = {}
        self._listing_again = {adapter: asyncio.Lock() for adapter in adapters.values()}
        self._refreshing = {adapter: asyncio.Lock() for adapter in adapters.values()}

    def adapter(self, exchange: str, market_type: str) -> ExchangeAdapter:
        """Return the adapter of a market.

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
        """Return the names of the exchanges that are installed, sorted."""
        return sorted({name for name, _ in self._adapters})

    def markets(self, exchange: str | None, market_type: str | None) -> list[ExchangeAdapter]:
        """Return the adapters of the markets of an exchange, of a market type, or of both.

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
        """Return each symbol, listed or not, by name; an empty catalog is filled first."""
        listings = await self.listings(adapter)
        if not listings:
            await self._refresh_sometimes(adapter, context)
            listings = await self.listings(adapter)
        return sorted(
            (entry.symbol for entry in listings), key=lambda listing: (listing.name, listing.native)
        )

    async def symbol(
        self, adapter: ExchangeAdapter, text: str, context: RequestContext = DEFAULT_CONTEXT
    ) -> Symbol:
        """Return the symbol that `text` names.

        Raises:
            UnknownSymbol: There is none, or several.
            ExchangeError: The exchange had to be asked for its list and failed.
        """
        return (await self.listing(adapter, text, context)).symbol

    async def refresh(
        self, adapter: ExchangeAdapter, context: RequestContext = DEFAULT_CONTEXT
    ) -> int:
        """Make the catalog equal the exchange's list; return how many symbols it has.

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
        await self._relistings.reopen(adapter)
        self._listings.pop(adapter, None)
        return len(symbols)

    async def listing(
        self, adapter: ExchangeAdapter, text: str, context: RequestContext
    ) -> Listing:
        """Return the listing of the symbol that `text` names; an unknown one is asked for.

        Raises:
            UnknownSymbol, AmbiguousSymbol: There is none, or several.
            ExchangeError: The exchange had to be asked for its list and failed.
        """
        listings = await self.listings(adapter)
        if found := find_listing(adapter, text, listings):
            return found
        try:
            await self._refresh_sometimes(adapter, context)
        except ExchangeError:
            check_unambiguous(adapter, text, listings)
            raise
        listings = await self.listings(adapter)
        if found := find_listing(adapter, text, listings):
            return found
        check_unambiguous(adapter, text, listings)
        raise UnknownSymbol(adapter.facts.name, text, near_names(text, listings))

    async def _refresh_sometimes(self, adapter: ExchangeAdapter, context: RequestContext) -> None:
        with adapter.room.place(context):
            await self._refresh_once(adapter, context)

    async def _refresh_once(self, adapter: ExchangeAdapter, context: RequestContext) -> None:
        async with self._refreshing[adapter]:
            until, failure = self._refreshed.get(adapter, (0.0, None))
            if time.monotonic() < until:
                if failure:
                    raise copied(failure)
                return
            try:
                await self.refresh(adapter, context)
                self._refreshed[adapter] = (time.monotonic() + _REFRESH_SECONDS, None)
            except MdpError as error:
                self._refreshed[adapter] = (time.monotonic() + _FAILURE_SECONDS, error)
                raise

    async def listings(self, adapter: ExchangeAdapter) -> Sequence[Listing]:
        """Return what the catalog lists of a market, at most a minute old."""
        async with self._listing_again[adapter]:  # many wait for it when it grows old
            listings, until = self._listings.get(adapter, ((), 0.0))
            if time.monotonic() < until:
                return listings
            facts = adapter.facts
            listings = await self._catalog.listings(facts.name, facts.market_type)
            self._listings[adapter] = (listings, time.monotonic() + _BELIEVED_SECONDS)
            return listings
