"""Recheck known history starts: after a day, then monthly."""

from mdp_core.domain.clock import Clock
from mdp_core.domain.series import Series
from mdp_core.errors import MdpError
from mdp_core.exchanges.base import ExchangeAdapter
from mdp_core.ratelimit.context import RequestContext
from mdp_core.ratelimit.priority import Priority
from mdp_core.series.resolver import SeriesResolver
from mdp_core.storage.catalog.history_starts import HistoryStartStore
from mdp_core.storage.jobs.job_runs import RunResult
from syncer.runner import describe

# How many series one run takes on; those that are left wait for the next run.
_MOST_SERIES = 50


class HistoryStartRechecks:
    """Asks again for the history starts of one market's series, the longest due first."""

    def __init__(
        self,
        adapter: ExchangeAdapter,
        resolver: SeriesResolver,
        starts: HistoryStartStore,
        clock: Clock,
    ) -> None:
        self._resolver = resolver
        self._starts = starts
        self._clock = clock
        self._names = (adapter.facts.name, adapter.facts.market_type)

    async def run(self) -> RunResult:
        """Ask for what is due; rows are the series whose history begins elsewhere since."""
        changed = 0
        errors: list[MdpError] = []
        now, context = self._clock(), RequestContext.at(Priority.BACKFILL)
        due = await self._starts.due(*self._names, now, _MOST_SERIES)
        for symbol, interval in due:
            try:
                series = await self._resolver.stored(*self._names, symbol, interval, context)
                changed += await self._recheck(series, context)
            except MdpError as error:
                errors.append(error)
        return RunResult(changed, error=describe(errors))

    async def _recheck(self, series: Series, context: RequestContext) -> bool:
        try:
            asked = await self._resolver.ask_history_start(series, context)
        except MdpError:
            await self._resolver.put_off_history_start(series)
            raise
        return asked.history_start != series.history_start
