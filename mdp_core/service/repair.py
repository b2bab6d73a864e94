"""Asks an exchange again for what is stored, and replaces what it now answers differently.

Nothing else ever changes a stored candle. It is for people: after an exchange has corrected its
history, or where somebody doubts the store.
"""

from collections.abc import Mapping
from dataclasses import replace

from mdp_core.domain.candles import Candles
from mdp_core.domain.queries import CandleQuery
from mdp_core.domain.series import Series
from mdp_core.domain.windows import Window, intersect
from mdp_core.errors import BadPayload, BadRows, InvalidWindow
from mdp_core.exchanges.validation import sift
from mdp_core.fill.market import MarketContext
from mdp_core.fill.pages import plan
from mdp_core.series.resolver import SeriesResolver
from mdp_core.storage.candles.candle_store import CandleStore


class Repair:
    """Makes what is stored equal the exchange again, page by page."""

    def __init__(
        self,
        store: CandleStore,
        metadata: SeriesResolver,
        markets: Mapping[tuple[str, str], MarketContext],
    ) -> None:
        self._store = store
        self._metadata = metadata
        self._markets = markets

    async def repair(self, query: CandleQuery) -> int:
        """Repair what is stored of the window (without bounds: everything that is final).

        What the exchange has forgotten is left alone. Pages that were repaired before an error
        stay so.

        Returns:
            How many slots changed.

        Raises:
            InvalidWindow: `start` lies after `end`.
            BadRows, BadPayload: The exchange sent what can't be right, or does not stand by it.
            MdpError: The series is unknown, or the exchange or the store can't be had.
        """
        if query.start and query.end and query.start > query.end:
            raise InvalidWindow(query.start, query.end)
        series = await self._metadata.series(
            query.exchange, query.market_type, query.symbol, query.interval
        )
        market, grid = self._markets[query.exchange, query.market_type], series.grid
        watermarks = await market.exchange_clock.watermarks(series, query.end)
        known = Window(
            watermarks.retention_start, max(watermarks.settled_until, watermarks.retention_start)
        )
        start = grid.ceil(query.start) if query.start else known.start
        end = grid.ceil(query.end) if query.end else known.end
        asked = known.clip(start, max(start, end))
        covered = await self._store.covered(series.id, asked)
        pages = plan(covered, grid, market.page_size, replace(watermarks, closed_until=known.end))
        windows = [part for page in pages for part in intersect([page.window], asked)]
        return sum([await self._repair_page(market, series, window) for window in windows])

    async def _repair_page(self, market: MarketContext, series: Series, window: Window) -> int:
        """Replace what differs; what differs is asked for twice, and must be answered alike."""
        covered = await self._store.covered(series.id, window)
        stored = await self._store.read(series.id, window)
        answered = await self._ask(market, series, window)
        if not stored.differences(_inside(answered, covered)):
            return 0
        if (await self._ask(market, series, window)).differences(answered):
            what = f"answered {series} differently twice: nothing was replaced"
            raise BadPayload(series.exchange, what)
        return await self._store.repair(series.id, window, answered)

    async def _ask(self, market: MarketContext, series: Series, window: Window) -> Candles:
        rows = await market.adapter.fetch_page(series.symbol, series.interval, window)
        sifted = sift(rows, series.grid, window)
        if sifted.rejected:
            slots = [row.slot for row in sifted.rejected]
            raise BadRows(series.exchange, slots, sifted.rejected[0].reason)
        return sifted.candles


def _inside(candles: Candles, windows: list[Window]) -> Candles:
    return Candles.concatenate([candles.inside(window) for window in windows])
