"""The search for history starts that no exchange tells."""

import time

from mdp_core.backfill.history_search import HistorySearch
from mdp_core.errors import MdpError
from mdp_core.exchanges.base import ExchangeAdapter
from mdp_core.ratelimit.context import RequestContext
from mdp_core.ratelimit.priority import Priority
from mdp_core.series.resolver import SeriesResolver
from mdp_core.storage.jobs.job_runs import RunResult
from syncer.runner import describe

# A history that was searched in vain is searched again after so long.
_PATIENCE_SECONDS = 86_400.0


class HistoryStartSearch:
    """Searches the history starts of one market's series, one after the other."""

    def __init__(
        self, adapter: ExchangeAdapter, resolver: SeriesResolver, search: HistorySearch
    ) -> None:
        self._adapter = adapter
        self._resolver = resolver
        self._search = search
        self._in_vain_until: dict[int, float] = {}

    async def run(self) -> RunResult:
        """Find what is not known; what fails is tried again by the next run."""
        found, context = 0, RequestContext.at(Priority.BACKFILL)
        errors: list[MdpError] = []
        for series in await self._resolver.without_history_start(self._adapter, context):
            if time.monotonic() < self._in_vain_until.get(series.id, 0.0):
                continue
            try:
                if await self._search.find(series) is not None:
                    found += 1
                else:
                    self._in_vain_until[series.id] = time.monotonic() + _PATIENCE_SECONDS
            except MdpError as error:
                errors.append(error)
        return RunResult(found, error=describe(errors))
