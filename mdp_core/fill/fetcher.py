"""The life of a page: what it lacks is asked for, doubted, validated and saved."""

import logging
import time
from collections.abc import Sequence
from datetime import datetime

import numpy as np

from mdp_core.domain.intervals import Grid, Int64s
from mdp_core.domain.series import Series
from mdp_core.domain.watermarks import Watermarks
from mdp_core.domain.windows import Window, hull, subtract
from mdp_core.errors import BadRows
from mdp_core.exchanges.base import ExchangeFacts
from mdp_core.exchanges.clock import ExchangeClock
from mdp_core.exchanges.validation import ValidatedRows
from mdp_core.fill.absence import RecheckPlan, final_until, runs_of
from mdp_core.fill.observer import Finding, Observer
from mdp_core.fill.pages import Page
from mdp_core.fill.provisional import ProvisionalCache
from mdp_core.fill.rechecks import new_absences
from mdp_core.ratelimit.context import RequestContext
from mdp_core.storage.candles.candle_store import CandleStore

_log = logging.getLogger(__name__)


class PageFetcher:
    """Makes the store equal one exchange, some adjacent pages at a time."""

    def __init__(
        self,
        observer: Observer,
        exchange_clock: ExchangeClock,
        store: CandleStore,
        ranges: ProvisionalCache,
        rechecks: RecheckPlan,
    ) -> None:
        self._observer = observer
        self._horizon = exchange_clock
        self._store = store
        self._ranges = ranges
        self._rechecks = rechecks

    @property
    def facts(self) -> ExchangeFacts:
        """Of the exchange."""
        return self._observer.facts

    async def fetch(
        self, series: Series, run: Sequence[Page], watermarks: Watermarks, context: RequestContext
    ) -> None:
        """Fetch and save gaps of adjacent pages, by one request if nothing is doubtful.

        Raises:
            BadRows: Rows that can't be right came, or are known to come; the good ones are saved.
            MdpError: Nothing could be fetched or saved.
        """
        whole = hull([page.window for page in run])
        gaps, resting = await self._store.fetchable_gaps(series.id, whole)
        if not gaps:
            return
        lacking = [slot for slot in resting if any(gap.start <= slot < gap.end for gap in gaps)]
        gaps = subtract(gaps, _slots(lacking, series.grid))
        if not gaps:
            raise BadRows(series.exchange, lacking, "seen several times")
        window, begun = hull(gaps), time.monotonic()
        finding = await self._observer.observe(series, window, watermarks, context)
        validated, absent = finding.validated, finding.absent
        final = window.clip(window.start, final_until(absent, series.grid, watermarks))
        final = await self._without_forgotten(series, final, absent, watermarks, context)
        await self._save(series, final, finding)
        _log_fill(series, window, validated, time.monotonic() - begun)
        if validated.rejected:
            wrong = [row.slot for row in validated.rejected]
            raise BadRows(series.exchange, wrong, validated.rejected[0].reason)
        if finding.error:
            raise finding.error
        provisional = window.clip(final.end, window.end)
        ends_known = provisional.end == watermarks.closed_until
        at_edge = ends_known and self._horizon.may_be_edge(series, provisional.end)
        self._ranges.keep(series, run[-1].index, provisional, validated.candles, at_edge=at_edge)

    async def _save(self, series: Series, final: Window, finding: Finding) -> None:
        """Save what is known of `final`: rows, and absent slots that are facts or doubted."""
        grid, rows = series.grid, finding.validated
        wrong = _slots([row.slot for row in rows.rejected], grid)
        known = subtract([final], sorted([*wrong, *runs_of(finding.unknown, grid)]))
        doubts = new_absences(series, finding.unconfirmed, self._rechecks, self._observer.now())
        await self._store.save(series.id, known, rows.candles, rows.rejected, doubts)

    async def _without_forgotten(
        self,
        series: Series,
        final: Window,
        absent: Int64s,
        watermarks: Watermarks,
        context: RequestContext,
    ) -> Window:
        """Begin with the first candle where memory ends: before it nothing is known.

        It ends later than when this was planned: the request had to wait for its turn. Of a coin
        that is traded no more nothing may come at all.
        """
        grid = series.grid
        if self.facts.retention_candles is None:
            return final
        remembered = max(
            watermarks.retention_start, await self._horizon.remembered_from(grid, context)
        )
        if remembered <= watermarks.history_start or final.start > remembered:
            return final
        first = grid.index(final.start)
        leading = int((absent == np.arange(first, first + len(absent))).sum())
        begins = min(grid.at(first + leading), final.end)
        if begins > final.start:
            self._ranges.keep_forgotten(series, begins)
        return final.clip(begins, final.end)


def _log_fill(series: Series, window: Window, validated: ValidatedRows, seconds: float) -> None:
    described = {
        "series": str(series),
        "window": str(window),
        "rows": len(validated.candles),
        "ms": round(seconds * 1000, 1),
    }
    _log.info("filled from the exchange", extra=described)
    if validated.rejected:
        _log.warning("rows rejected", extra={**described, "rows": len(validated.rejected)})


def _slots(times: Sequence[datetime], grid: Grid) -> list[Window]:
    return [Window(time, grid.next(time)) for time in times]
