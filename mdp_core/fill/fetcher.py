"""The life of a page: what it lacks is asked for, doubted, sifted and saved."""

import logging
import time
from collections.abc import Sequence
from datetime import datetime

import numpy as np

from mdp_core.domain.candles import Candles
from mdp_core.domain.clock import to_ms
from mdp_core.domain.intervals import Grid, Int64s
from mdp_core.domain.series import Series
from mdp_core.domain.watermarks import Watermarks
from mdp_core.domain.windows import Window, hull, subtract
from mdp_core.errors import BadRows
from mdp_core.exchanges.base import ExchangeAdapter, ExchangeFacts
from mdp_core.exchanges.clock import ExchangeClock
from mdp_core.exchanges.validation import Observation, absent_slots, judge
from mdp_core.fill.absence import final_until, recheckable_slots, suspicious_slots
from mdp_core.fill.pages import Page
from mdp_core.fill.provisional import ProvisionalCache
from mdp_core.ratelimit.context import RequestContext
from mdp_core.storage.candles.candle_store import CandleStore

_log = logging.getLogger(__name__)

# How long to wait before an absent candle is asked for once more.
_DOUBT_SECONDS = 2.0


class PageFetcher:
    """Makes the store equal one exchange, some adjacent pages at a time."""

    def __init__(
        self,
        adapter: ExchangeAdapter,
        exchange_clock: ExchangeClock,
        store: CandleStore,
        ranges: ProvisionalCache,
    ) -> None:
        self._adapter = adapter
        self._horizon = exchange_clock
        self._store = store
        self._ranges = ranges

    @property
    def facts(self) -> ExchangeFacts:
        """Of the exchange."""
        return self._adapter.facts

    async def fetch(
        self, series: Series, run: Sequence[Page], watermarks: Watermarks, context: RequestContext
    ) -> None:
        """Fetch and save what adjacent pages lack, with one request if nothing is doubtful.

        Raises:
            BadRows: Rows that can't be right came, or are known to come; the good ones are saved.
            MdpError: Nothing could be fetched or saved.
        """
        whole = hull([page.window for page in run])
        gaps, resting = await self._store.lacking(series.id, whole)
        if not gaps:
            return
        lacking = [slot for slot in resting if any(gap.start <= slot < gap.end for gap in gaps)]
        gaps = subtract(gaps, _slots(lacking, series.grid))
        if not gaps:
            raise BadRows(series.exchange, lacking, "seen several times")
        window, begun = hull(gaps), time.monotonic()
        sifted = await self._ask(series, window, watermarks, context)
        absent = _absent(sifted, series.grid, window)
        final = window.clip(window.start, final_until(absent, series.grid, watermarks))
        final = await self._without_forgotten(series, final, absent, watermarks)
        wrong = [row.slot for row in sifted.rejected]
        known = subtract([final], _slots(wrong, series.grid))
        await self._store.save(series.id, known, sifted.candles, sifted.rejected)
        _log_fill(series, window, sifted, time.monotonic() - begun)
        if wrong:
            raise BadRows(series.exchange, wrong, sifted.rejected[0].reason)
        provisional = window.clip(final.end, window.end)
        at_edge = provisional.end == watermarks.closed_until
        self._ranges.keep(series, run[-1].index, provisional, sifted.candles, at_edge=at_edge)

    async def _without_forgotten(
        self, series: Series, final: Window, absent: Int64s, watermarks: Watermarks
    ) -> Window:
        """Begin with the first candle where memory ends: before it nothing is known.

        It ends later than when this was planned: the request had to wait for its turn. Of a coin
        that is traded no more nothing may come at all.
        """
        grid = series.grid
        if self.facts.retention_candles is None:
            return final
        remembered = max(watermarks.retention_start, await self._horizon.remembered_from(grid))
        if remembered <= watermarks.history_start or final.start > remembered:
            return final
        first = grid.index(final.start)
        leading = int((absent == np.arange(first, first + len(absent))).sum())
        begins = min(grid.at(first + leading), final.end)
        if begins > final.start:
            self._ranges.keep_forgotten(series, begins)
        return final.clip(begins, final.end)

    async def _ask(
        self, series: Series, window: Window, watermarks: Watermarks, context: RequestContext
    ) -> Observation:
        """Ask for `window`, and once more for absent slots that would count as "no candle"."""
        grid, symbol, interval = series.grid, series.symbol, series.interval
        adapter = self._adapter.bound(context)
        candles = await adapter.fetch_page(symbol, interval, window)
        sifted = judge(candles, grid, window, self.facts)
        doubtful = recheckable_slots(_absent(sifted, grid, window), grid, watermarks)
        if not adapter.facts.fills_empty_intervals:
            doubtful = suspicious_slots(doubtful, grid, window)
        if not len(doubtful):
            return sifted
        await context.rest(_DOUBT_SECONDS)
        again = Window(grid.at(int(doubtful[0])), grid.at(int(doubtful[-1]) + 1))
        more = await adapter.fetch_page(symbol, interval, again)
        judge(more, grid, again, self.facts)
        return judge(Candles.concatenate([candles, more]), grid, window, self.facts)


def _log_fill(series: Series, window: Window, sifted: Observation, seconds: float) -> None:
    described = {
        "series": str(series),
        "window": str(window),
        "rows": len(sifted.candles),
        "ms": round(seconds * 1000, 1),
    }
    _log.info("filled from the exchange", extra=described)
    if sifted.rejected:
        _log.warning("rows rejected", extra={**described, "rows": len(sifted.rejected)})


def _slots(times: Sequence[datetime], grid: Grid) -> list[Window]:
    return [Window(time, grid.next(time)) for time in times]


def _absent(sifted: Observation, grid: Grid, window: Window) -> Int64s:
    """Give the slots for which nothing came, neither a right row nor a wrong one."""
    wrong = [to_ms(row.slot) for row in sifted.rejected]
    times = np.concatenate([sifted.candles.time, np.array(wrong, np.int64)])
    return absent_slots(times, grid, window)
