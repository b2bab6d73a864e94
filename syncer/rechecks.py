"""Absences of one market that are due: asked for again, the longest due first."""

from mdp_core.domain.clock import Clock
from mdp_core.errors import MdpError
from mdp_core.fill.market import MarketContext
from mdp_core.ratelimit.context import RequestContext
from mdp_core.ratelimit.priority import Priority
from mdp_core.series.resolver import SeriesResolver
from mdp_core.storage.candles.absences import AbsenceStore
from mdp_core.storage.jobs.job_runs import RunResult
from syncer.runner import describe

# How many series one run takes on; those that are left wait for the next run.
_MOST_SERIES = 200


class Rechecks:
    """Rechecks the absences of one market's series, one after the other."""

    def __init__(
        self, market: MarketContext, resolver: SeriesResolver, absences: AbsenceStore, clock: Clock
    ) -> None:
        self._market = market
        self._resolver = resolver
        self._absences = absences
        self._clock = clock
        self._names = (market.adapter.facts.name, market.adapter.facts.market_type)

    async def run(self) -> RunResult:
        """Ask again for what is due; rows are the candles that were found."""
        found = 0
        errors: list[MdpError] = []
        due = await self._absences.due_series(*self._names, self._clock(), _MOST_SERIES)
        for symbol, interval in due:
            try:
                series = await self._resolver.stored(*self._names, symbol, interval)
                context = RequestContext.at(Priority.BACKFILL)
                found += await self._market.rechecker.recheck(series, context)
            except MdpError as error:
                errors.append(error)
        return RunResult(found, error=describe(errors))
