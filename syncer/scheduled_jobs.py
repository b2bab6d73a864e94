"""The jobs that run on schedule."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from datetime import timedelta
from typing import TypeVar

from mdp_core.errors import MdpError
from mdp_core.exchanges.base import ExchangeAdapter
from mdp_core.fill.market import MarketContext
from mdp_core.ratelimit.context import RequestContext
from mdp_core.ratelimit.priority import Priority
from mdp_core.series.selection import Selection
from mdp_core.storage.jobs.job_runs import RunResult
from mdp_core.wiring import Services
from syncer.configured import read_hot, read_keep
from syncer.history import HistoryStartSearch
from syncer.history_rechecks import HistoryStartRechecks
from syncer.keep import Keeper
from syncer.nightly_check import NightlyCheck
from syncer.rechecks import Rechecks
from syncer.runner import ScheduledJob
from syncer.schedule import Schedule
from syncer.warm import PATIENCE_SECONDS, Warming

_log = logging.getLogger(__name__)

_Result = TypeVar("_Result")

_MINUTE = timedelta(minutes=1)
_REFRESH_EVERY = timedelta(minutes=10)
_RECHECK_EVERY = timedelta(seconds=20)
_KEEP_EVERY = timedelta(hours=1)
# A failed refresh is tried again by the same run, for nine minutes in all.
_RETRY_SECONDS = (1.0, 2.0, 4.0, 8.0, 16.0, *[30.0] * 16)
_FORGET_EVERY = timedelta(hours=1)
_HISTORY_DAYS = 7.0
_REVISION_DAYS = 365.0
_REJECTED_DAYS = 90.0
_ENDED_JOB_DAYS = 30.0
_VERIFY_EVERY = timedelta(days=1)
_VERIFY_AT = timedelta(hours=3)
# Clocks differ a little: a moment after a candle has settled here it has there too.
_CLOCKS_DIFFER = timedelta(seconds=0.5)


def scheduled_jobs(services: Services) -> list[ScheduledJob]:
    """Give everything that is run on schedule.

    Raises:
        InvalidParameter: `MDP_HOT` or `MDP_KEEP` makes no sense.
    """
    settings, adapters = services.settings, services.resolver.directory.markets(None, None)
    markets = [adapter.facts for adapter in adapters]
    hot, keep = read_hot(settings.hot, markets), read_keep(settings.keep, markets)
    jobs = [_forgetting(services)]
    for adapter in adapters:
        jobs += [_refreshing(services, adapter), _warming(services, adapter, hot)]
        jobs += [_rechecking(services, adapter), _rechecking_starts(services, adapter)]
        jobs.append(_verifying(services, adapter))
        if any(selection.exchange == adapter.facts.name for selection in keep):
            jobs.append(_keeping(services, adapter, keep))
        if not adapter.facts.supports_first_candle:
            jobs.append(_searching(services, adapter))
    return jobs


def _refreshing(services: Services, adapter: ExchangeAdapter) -> ScheduledJob:
    async def run() -> RunResult:
        context = RequestContext.at(Priority.WARMING)
        symbols = await retry_refresh(lambda: services.resolver.directory.refresh(adapter, context))
        return RunResult(symbols)

    schedule = Schedule(_REFRESH_EVERY, services.settings.clock)
    return ScheduledJob(_name("refresh", adapter), schedule, 10.0, run, at_start=True)


async def retry_refresh(
    ask: Callable[[], Awaitable[_Result]], waits: Sequence[float] = _RETRY_SECONDS
) -> _Result:
    """Refresh symbols, again and again until it succeeds.

    Raises:
        MdpError: It failed once more after the last of the `waits` (seconds).
    """
    for seconds in waits:
        try:
            return await ask()
        except MdpError as error:
            _log.warning("asked again in %s s: %s", seconds, error)
            await asyncio.sleep(seconds)
    return await ask()


def warming_of(
    services: Services,
    adapter: ExchangeAdapter,
    hot: Sequence[Selection],
    patience_seconds: float = PATIENCE_SECONDS,
) -> Warming:
    """Build the warming of a market."""
    return Warming(
        _market(services, adapter),
        services.resolver,
        services.candles,
        services.store,
        services.usage,
        configured=hot,
        clock_speed=services.settings.clock.speed,
        patience_seconds=patience_seconds,
    )


def keeper_of(services: Services, adapter: ExchangeAdapter, keep: Sequence[Selection]) -> Keeper:
    """Build the keeper of a market."""
    return Keeper(_market(services, adapter), services.resolver, services.bulk, keep)


def rechecks_of(services: Services, adapter: ExchangeAdapter) -> Rechecks:
    """Build the rechecks of a market's absences."""
    market, clock = _market(services, adapter), services.settings.clock
    return Rechecks(market, services.resolver, services.absences, clock)


def start_rechecks_of(services: Services, adapter: ExchangeAdapter) -> HistoryStartRechecks:
    """Build the rechecks of a market's history starts."""
    starts, clock = services.history_starts, services.settings.clock
    return HistoryStartRechecks(adapter, services.resolver, starts, clock)


def nightly_check_of(services: Services, adapter: ExchangeAdapter) -> NightlyCheck:
    """Build the nightly check of a market."""
    return NightlyCheck(adapter, services.database, services.verify, services.settings.clock)


def _market(services: Services, adapter: ExchangeAdapter) -> MarketContext:
    return services.markets[adapter.facts.name, adapter.facts.market_type]


def _warming(
    services: Services, adapter: ExchangeAdapter, hot: Sequence[Selection]
) -> ScheduledJob:
    settle = _market(services, adapter).exchange_clock.settle
    schedule = Schedule(_MINUTE, services.settings.clock, settle + _CLOCKS_DIFFER)
    return ScheduledJob(
        _name("warm", adapter), schedule, 0.5, warming_of(services, adapter, hot).run
    )


def _keeping(
    services: Services, adapter: ExchangeAdapter, keep: Sequence[Selection]
) -> ScheduledJob:
    schedule = Schedule(_KEEP_EVERY, services.settings.clock)
    run = keeper_of(services, adapter, keep).run
    return ScheduledJob(_name("keep", adapter), schedule, 1.0, run, at_start=True)


def _rechecking(services: Services, adapter: ExchangeAdapter) -> ScheduledJob:
    schedule = Schedule(_RECHECK_EVERY, services.settings.clock)
    run = rechecks_of(services, adapter).run
    return ScheduledJob(_name("recheck", adapter), schedule, 2.0, run)


def _rechecking_starts(services: Services, adapter: ExchangeAdapter) -> ScheduledJob:
    schedule = Schedule(_MINUTE, services.settings.clock)
    run = start_rechecks_of(services, adapter).run
    return ScheduledJob(_name("history", adapter), schedule, 5.0, run)


def _searching(services: Services, adapter: ExchangeAdapter) -> ScheduledJob:
    schedule = Schedule(_MINUTE, services.settings.clock)
    run = HistoryStartSearch(adapter, services.resolver, services.history_search).run
    return ScheduledJob(_name("beginnings", adapter), schedule, 5.0, run)


def _verifying(services: Services, adapter: ExchangeAdapter) -> ScheduledJob:
    schedule = Schedule(_VERIFY_EVERY, services.settings.clock, _VERIFY_AT)
    run = nightly_check_of(services, adapter).run
    return ScheduledJob(_name("verify", adapter), schedule, 10.0, run, only_on_time=True)


def _forgetting(services: Services) -> ScheduledJob:
    async def run() -> RunResult:
        await services.runs.forget(_HISTORY_DAYS)
        await services.store.forget_revisions(_REVISION_DAYS)
        await services.store.forget_rejected_rows(_REJECTED_DAYS)
        await services.jobs.forget(_ENDED_JOB_DAYS)
        return RunResult()

    return ScheduledJob("forget", Schedule(_FORGET_EVERY, services.settings.clock), 60.0, run)


def _name(what: str, adapter: ExchangeAdapter) -> str:
    return f"{what} {adapter.facts.name} {adapter.facts.market_type}"
