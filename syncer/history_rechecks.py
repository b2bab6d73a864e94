"""Recheck known history starts: after a day, then monthly."""

from mdp_core.domain.series import Series
from mdp_core.errors import MdpError
from mdp_core.exchanges.base import ExchangeAdapter
from mdp_core.ratelimit.context import RequestContext
from mdp_core.ratelimit.priority import Priority
from mdp_core.storage.jobs.job_runs import RunResult
from mdp_core.wiring import Services
from syncer.failures import describe

# How many series one run takes on; those that are left wait for the next run.
_MOST_SERIES = 50


class HistoryStartRechecks:
    """Asks again for the history starts of one market's series, the longest due first."""

    def __init__(self, services: Services, adapter: ExchangeAdapter) -> None:
        self._services = services
        self._words = (adapter.facts.name, adapter.facts.market_type)

    async def run(self) -> RunResult:
        """Ask for what is due; rows are the series whose history begins elsewhere since."""
        changed = 0
        errors: list[MdpError] = []
        now, context = self._services.settings.clock(), RequestContext.at(Priority.BACKFILL)
        due = await self._services.history_starts.due(*self._words, now, _MOST_SERIES)
        for symbol, interval in due:
            try:
                series = await self._services.resolver.stored(
                    *self._words, symbol, interval, context
                )
                changed += await self._recheck(series, context)
            except MdpError as error:
                errors.append(error)
        return RunResult(changed, error=describe(errors))

    async def _recheck(self, series: Series, context: RequestContext) -> bool:
        try:
            asked = await self._services.resolver.ask_history_start(series, context)
        except MdpError:
            await self._services.resolver.put_off_history_start(series)
            raise
        return asked.history_start != series.history_start
