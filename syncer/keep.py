"""The keeper: what an exchange forgets is fetched before it does."""

from collections.abc import Sequence
from dataclasses import dataclass

from mdp_core.backfill.bulk import Left
from mdp_core.backfill.chunks import OldestFirst
from mdp_core.domain.queries import Missing
from mdp_core.domain.series import Series
from mdp_core.domain.windows import Window
from mdp_core.errors import HistoryUnavailable, MdpError
from mdp_core.exchanges.base import ExchangeAdapter
from mdp_core.ratelimit.context import RequestContext
from mdp_core.ratelimit.priority import Priority
from mdp_core.series.selection import Selection
from mdp_core.storage.jobs.job_runs import RunResult
from mdp_core.wiring import Services
from syncer.configured import Configured
from syncer.failures import describe

# A series is filled when this part of what the exchange remembers is missing at the newer end: so
# it is done long before the half is gone, and not for every few candles.
_TOLERATED_PART = 4


@dataclass(frozen=True, slots=True)
class _Kept:
    """The slots gained for a series, and the reason why others can't be had."""

    slots: int
    lost: Sequence[MdpError]


class Keeper:
    """Fills the configured series of one market with a memory."""

    def __init__(
        self, services: Services, adapter: ExchangeAdapter, configured: Sequence[Selection]
    ) -> None:
        self._services = services
        self._adapter = adapter
        facts = adapter.facts
        self._context = RequestContext.at(Priority.BACKFILL)
        self._configured = Configured(services.resolver, adapter, configured, self._context)
        self._market = services.markets[facts.name, facts.market_type]

    async def run(self) -> RunResult:
        """Fill what has come to be at risk; rows are the slots that are known since."""
        rows = 0
        errors: list[MdpError] = []
        names, unknown = await self._configured.names()
        for name in names:
            try:
                kept = await self._keep(await self._services.backfills.series(name, self._context))
            except MdpError as error:
                errors.append(error)
            else:
                rows += kept.slots
                errors += kept.lost[:1]
        return RunResult(rows, error=describe([*unknown, *errors]))

    async def _keep(self, series: Series) -> _Kept:
        """Fill everything that the exchange remembers, if too much of it is missing."""
        bulk = self._services.bulk
        window = await self._remembered(series)
        before = await bulk.left(series, window, [])
        if not before.gaps or not self._is_at_risk(series, before.gaps[0], window):
            return _Kept(0, [])
        lost: list[MdpError] = []
        async for step in bulk.steps(series, window, OldestFirst(), Priority.BACKFILL):
            if step.delay:
                raise step.delay
            lost += [each.error for each in step.lost if not _is_forgotten(each)]
        after = await bulk.left(series, window, [])
        return _Kept(_missing(series, before) - _missing(series, after), lost)

    async def _remembered(self, series: Series) -> Window:
        watermarks = await self._market.watermarks(series, None, self._context)
        end = min(watermarks.grace_start, watermarks.settled_until)
        return Window(min(watermarks.retention_start, end), end)

    def _is_at_risk(self, series: Series, oldest_gap: Window, window: Window) -> bool:
        memory = self._adapter.facts.retention_candles or 0
        age = series.grid.count(oldest_gap.start, window.end)
        return age > memory // _TOLERATED_PART


def _is_forgotten(lost: Missing) -> bool:
    """Return whether it was forgotten while newer slots were being fetched."""
    return isinstance(lost.error, HistoryUnavailable)


def _missing(series: Series, left: Left) -> int:
    windows = [*left.gaps, *(each.window for each in left.lost)]
    return sum(series.grid.count(window.start, window.end) for window in windows)
