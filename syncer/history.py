"""The search for history starts that no exchange tells."""

import time

from mdp_core.errors import MdpError
from mdp_core.exchanges.base import ExchangeAdapter
from mdp_core.ratelimit.context import RequestContext
from mdp_core.ratelimit.priority import Priority
from mdp_core.storage.jobs.job_runs import RunResult
from mdp_core.wiring import Services
from syncer.failures import describe

# What was never traded is looked for again some day.
_PATIENCE_SECONDS = 86_400.0


class HistoryStartSearch:
    """Looks for the beginnings of one market's series, one after the other."""

    def __init__(self, services: Services, adapter: ExchangeAdapter) -> None:
        self._services = services
        self._adapter = adapter
        self._in_vain_until: dict[int, float] = {}

    async def run(self) -> RunResult:
        """Find what is not known; what fails is tried again by the next run."""
        found, context = 0, RequestContext.at(Priority.BACKFILL)
        errors: list[MdpError] = []
        resolver = self._services.resolver
        for series in await resolver.without_history_start(self._adapter, context):
            if time.monotonic() < self._in_vain_until.get(series.id, 0.0):
                continue
            try:
                if await self._services.history_search.find(series) is not None:
                    found += 1
                else:
                    self._in_vain_until[series.id] = time.monotonic() + _PATIENCE_SECONDS
            except MdpError as error:
                errors.append(error)
        return RunResult(found, error=describe(errors))
