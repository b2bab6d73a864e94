"""Absences of one market that are due: asked for again, the longest due first."""

from mdp_core.domain.series import Series
from mdp_core.errors import MdpError
from mdp_core.exchanges.base import ExchangeAdapter
from mdp_core.ratelimit.context import RequestContext
from mdp_core.ratelimit.priority import Priority
from mdp_core.storage.jobs.job_runs import RunResult
from mdp_core.wiring import Services
from syncer.failures import describe

# How many series one run takes on; those that are left wait for the next run.
_MOST_SERIES = 200


class Rechecks:
    """Rechecks the absences of one market's series, one after the other."""

    def __init__(self, services: Services, adapter: ExchangeAdapter) -> None:
        facts = adapter.facts
        self._services = services
        self._market = services.markets[facts.name, facts.market_type]
        self._words = (facts.name, facts.market_type)

    async def run(self) -> RunResult:
        """Ask again for what is due; rows are the candles that were found."""
        found = 0
        errors: list[MdpError] = []
        now = self._services.settings.clock()
        due = await self._services.absences.due_series(*self._words, now, _MOST_SERIES)
        for symbol, interval in due:
            try:
                series = await self._series(symbol, interval)
                context = RequestContext.at(Priority.BACKFILL)
                found += await self._market.rechecker.recheck(series, context)
            except MdpError as error:
                errors.append(error)
        return RunResult(found, error=describe(errors))

    async def _series(self, symbol: str, interval: str) -> Series:
        return await self._services.resolver.stored(*self._words, symbol, interval)
