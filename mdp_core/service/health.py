"""The state of the service, and of what it depends on, for `/health`.

The state is what a load balancer asks for: the database and its schema. Details are for an
administrator. Both are found at most once a second for all callers, and never waited for longer
than a load balancer waits.
"""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from db.upgrade import schema_problem
from mdp_core.domain.clock import Clock
from mdp_core.domain.patterns import matches
from mdp_core.errors import InvalidParameter, StoreUnavailable
from mdp_core.exchanges.base import ExchangeFacts
from mdp_core.exchanges.contact import Contact
from mdp_core.series.selection import Selection, parse_selections
from mdp_core.service.answer_counts import AnswerCounts
from mdp_core.service.candles import CandleService
from mdp_core.service.shared_answer import SharedAnswer
from mdp_core.storage.catalog.expiry import UnkeptSeries, read_unkept
from mdp_core.storage.database.database import Database
from mdp_core.storage.database.diagnostics import Health, StoredCounts, read_counts, read_health
from mdp_core.storage.jobs.job_runs import JobRuns, Run, Syncer

_KEPT_SECONDS = 1.0
# A little less than load balancers are told to wait.
_PATIENCE_SECONDS = 2.5
_RUNS_SHOWN = 3
# A kept series is filled long before half of what an exchange remembers is missing.
_ALARMING_PART = 2
# The oldest candles are out of reach before they are forgotten.
_LOST_PART = 100
_MOST_EXPIRING = 100

_LATE = "the database does not answer in time"
_AWAY = "the database can't be had"


@dataclass(frozen=True, slots=True)
class ServiceState:
    """The database as it was found; `problem` says why it can't be served from.

    `cause` is the problem in the system's own words, which are an administrator's to see.
    """

    health: Health | None
    problem: str | None = None
    cause: str | None = None


@dataclass(frozen=True, slots=True)
class ExpiringSeries:
    """A kept series that lacks a candle which the exchange will forget soon."""

    series: UnkeptSeries
    lost_at: datetime


@dataclass(frozen=True, slots=True)
class ServiceDetails:
    """The exchanges, syncers, runs and counts; as far as they can be had."""

    contacts: Mapping[str, Contact]
    answers: AnswerCounts
    pages: int
    waiting: int
    stored: StoredCounts | None = None
    expiring: Sequence[ExpiringSeries] = ()
    syncers: Sequence[Syncer] = ()
    runs: Sequence[Run] = ()
    verified: tuple[int, int] = (0, 0)


class HealthReader:
    """Tells how the service is.

    Args:
        database: The primary.
        runs: The syncers and their runs.
        candles: Whose answers are counted.
        clock: Of the service.
        keep: `MDP_KEEP`; one that makes no sense is the syncer's to refuse.
    """

    def __init__(
        self, database: Database, runs: JobRuns, candles: CandleService, clock: Clock, keep: str
    ) -> None:
        self._database = database
        self._runs = runs
        self._candles = candles
        self._clock = clock
        self._kept = _selections(keep)
        self._state = SharedAnswer(
            self._read_state,
            lambda: ServiceState(None, _LATE, _LATE),
            kept_seconds=_KEPT_SECONDS,
            patience_seconds=_PATIENCE_SECONDS,
        )
        self._details = SharedAnswer(
            self._read_details,
            self._own_details,
            kept_seconds=_KEPT_SECONDS,
            patience_seconds=_PATIENCE_SECONDS,
        )

    async def state(self) -> ServiceState:
        """Return the database's state, a second old at the most, within three seconds."""
        return await self._state.get()

    async def details(self) -> ServiceDetails:
        """Return everything else in the same way."""
        return await self._details.get()

    async def aclose(self) -> None:
        """Ask no more."""
        await asyncio.gather(self._state.aclose(), self._details.aclose())

    async def _read_state(self) -> ServiceState:
        try:
            async with self._database.connection() as connection:
                health = await read_health(connection)
        except StoreUnavailable as error:
            return ServiceState(None, _AWAY, str(error))
        problem = schema_problem(health.migration)
        return ServiceState(health, problem, problem)

    async def _read_details(self) -> ServiceDetails:
        own = self._own_details()
        try:
            async with self._database.connection() as connection:
                stored = await read_counts(connection)
            return replace(
                own,
                stored=stored,
                expiring=await self._expiring(),
                syncers=await self._runs.syncers(),
                runs=await self._runs.latest(_RUNS_SHOWN),
                verified=await self._runs.verified(),
            )
        except StoreUnavailable:
            return own

    def _own_details(self) -> ServiceDetails:
        """Return what this process knows by itself."""
        markets = self._candles.markets
        return ServiceDetails(
            contacts={name: market.adapter.contact for (name, _), market in markets.items()},
            answers=self._candles.counts,
            pages=sum(market.filler.filled for market in markets.values()),
            waiting=sum(market.adapter.room.waiting for market in markets.values()),
        )

    async def _expiring(self) -> list[ExpiringSeries]:
        """Return the kept series that the exchange will forget candles of, the first ones."""
        found: list[ExpiringSeries] = []
        for market in self._candles.markets.values():
            for selection in self._kept:
                if selection.exchange == market.adapter.facts.name:
                    found += await self._expiring_of(selection, market.adapter.facts)
        return sorted(found, key=lambda result: result.lost_at)[:_MOST_EXPIRING]

    async def _expiring_of(
        self, selection: Selection, facts: ExchangeFacts
    ) -> list[ExpiringSeries]:
        memory, now = facts.retention_candles or 0, self._clock()
        grids = {interval.value: offered.grid for interval, offered in facts.intervals.items()}
        found: list[ExpiringSeries] = []
        for name in grids.keys() & set(selection.intervals) if memory else ():
            grid = grids[name]
            edge = grid.index(now) - memory
            unkept = await read_unkept(
                self._database,
                (facts.name, facts.market_type, name),
                (grid.at(edge + memory // _LOST_PART), grid.at(edge + memory // _ALARMING_PART)),
            )
            found += [
                ExpiringSeries(held, grid.at(grid.index(held.first_missing) + memory))
                for held in unkept
                if any(matches(held.symbol, pattern) for pattern in selection.symbols)
            ]
        return found


def _selections(keep: str) -> tuple[Selection, ...]:
    try:
        return parse_selections(keep)
    except InvalidParameter:
        return ()
