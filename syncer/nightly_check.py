"""The nightly check: compare a random sample of settled candles with the exchange."""

import logging
import random
from collections.abc import Sequence
from datetime import timedelta

from mdp_core.domain.clock import Clock
from mdp_core.domain.queries import CandleQuery
from mdp_core.errors import MdpError
from mdp_core.exchanges.base import ExchangeAdapter
from mdp_core.service.stored_pages import StoredPage, StoredSeries
from mdp_core.service.verify import SeriesCheck, Verify
from mdp_core.storage.catalog.inventory import Holding, HoldingFilter, read_holdings
from mdp_core.storage.database.database import Database
from mdp_core.storage.jobs.job_runs import RunResult
from syncer.runner import describe

_log = logging.getLogger(__name__)

# At two pages each this costs an exchange less than a second of its budget.
_SERIES = 10
_RECENT = timedelta(days=1)


class NightlyCheck:
    """Compares some pages of one market, of the last day and older ones."""

    def __init__(
        self, adapter: ExchangeAdapter, database: Database, verify: Verify, clock: Clock
    ) -> None:
        self._adapter = adapter
        self._database = database
        self._verify = verify
        self._clock = clock

    async def run(self) -> RunResult:
        """Compare a sample; nothing stored changes. Rows are the compared candles."""
        facts, compared, differing = self._adapter.facts, 0, 0
        errors: list[MdpError] = []
        wanted = HoldingFilter(facts.name, facts.market_type)
        holdings = await read_holdings(self._database, wanted)
        for holding in random.sample(holdings, min(_SERIES, len(holdings))):
            try:
                check = await self._check(holding)
            except MdpError as error:
                errors.append(error)
            else:
                compared, differing = compared + check.compared, differing + check.unequal
        return RunResult(compared, error=describe(errors), differing=differing)

    async def _check(self, holding: Holding) -> SeriesCheck:
        names = (holding.exchange, holding.market_type, holding.symbol, holding.interval)
        stored = await self._verify.find(CandleQuery(*names))
        check = await self._verify.check(stored.series, self._sample(stored))
        if check.unequal:
            _log.warning(
                "%s: %d stored candles are not what the exchange answers now; compare all with "
                "`mdp verify`, take its word with --repair",
                *(stored.series, check.unequal),
            )
        return check

    def _sample(self, stored: StoredSeries) -> Sequence[StoredPage]:
        """Choose the newest page, if it is of the last day, and an older one."""
        indexes = [index for pages in stored.page_ranges() for index in pages]
        if not indexes:
            return []
        now = self._clock()
        is_recent = stored.covered[-1].end > now - _RECENT
        older = indexes[:-1] if is_recent else indexes
        chosen = [random.choice(older)] if older else []  # noqa: S311 - not a secret
        return [stored.page(index) for index in [*chosen, *([indexes[-1]] if is_recent else [])]]
