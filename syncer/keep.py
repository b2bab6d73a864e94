"""The keeper: fetch candles before their exchange forgets them."""

from collections.abc import Sequence
from dataclasses import dataclass

from mdp_core.backfill.bulk import BulkFill, Remaining
from mdp_core.backfill.chunks import oldest_first
from mdp_core.domain.queries import Missing
from mdp_core.domain.series import Series
from mdp_core.domain.windows import Window
from mdp_core.errors import HistoryUnavailable, MdpError
from mdp_core.fill.market import MarketContext
from mdp_core.ratelimit.context import RequestContext
from mdp_core.ratelimit.priority import Priority
from mdp_core.series.resolver import SeriesResolver
from mdp_core.series.selection import Selection
from mdp_core.storage.jobs.job_runs import RunResult
from syncer.configured import Configured
from syncer.runner import describe

# A series is filled when this part of the retention is missing at the newer end: so
# it is done long before the half is gone, and not for every few candles.
_TOLERATED_PART = 4


@dataclass(frozen=True, slots=True)
class _Kept:
    """The slots gained for a series, and the reason why others can't be had."""

    slots: int
    lost: Sequence[MdpError]


class Keeper:
    """Fills the configured series of one market with a retention."""

    def __init__(
        self,
        market: MarketContext,
        resolver: SeriesResolver,
        bulk: BulkFill,
        configured: Sequence[Selection],
    ) -> None:
        self._market = market
        self._resolver = resolver
        self._bulk = bulk
        self._context = RequestContext.at(Priority.BACKFILL)
        self._configured = Configured(resolver, market.adapter, configured, self._context)

    async def run(self) -> RunResult:
        """Fill what has come to be at risk; rows are the slots that are known since."""
        rows = 0
        errors: list[MdpError] = []
        names, unknown = await self._configured.names()
        for name in names:
            try:
                kept = await self._keep(await self._resolver.series(*name.words, self._context))
            except MdpError as error:
                errors.append(error)
            else:
                rows += kept.slots
                errors += kept.lost[:1]
        return RunResult(rows, error=describe([*unknown, *errors]))

    async def _keep(self, series: Series) -> _Kept:
        """Fill the whole retention, if too much of it is missing."""
        window = await self._remembered(series)
        before = await self._bulk.gaps(series, window)
        if not before.gaps or not self._is_at_risk(series, before.gaps[0], window):
            return _Kept(0, [])
        lost: list[MdpError] = []
        async for step in self._bulk.steps(series, window, oldest_first, Priority.BACKFILL):
            if step.delay:
                raise step.delay
            lost += [missing.error for missing in step.lost if not _is_forgotten(missing)]
        after = await self._bulk.gaps(series, window)
        return _Kept(_missing(series, before) - _missing(series, after), lost)

    async def _remembered(self, series: Series) -> Window:
        watermarks = await self._market.watermarks(series, None, self._context)
        end = min(watermarks.grace_start, watermarks.settled_until)
        return Window(min(watermarks.retention_start, end), end)

    def _is_at_risk(self, series: Series, oldest_gap: Window, window: Window) -> bool:
        retention = self._market.adapter.facts.retention_candles or 0
        age = series.grid.count(oldest_gap.start, window.end)
        return age > retention // _TOLERATED_PART


def _is_forgotten(lost: Missing) -> bool:
    """Return whether it was forgotten while newer slots were being fetched."""
    return isinstance(lost.error, HistoryUnavailable)


def _missing(series: Series, remaining: Remaining) -> int:
    windows = [*remaining.gaps, *(missing.window for missing in remaining.lost)]
    return sum(series.grid.count(window.start, window.end) for window in windows)
