"""Builds everything from settings; the only place that does."""

import ssl
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import AsyncExitStack, aclosing, asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from functools import cache
from importlib.metadata import entry_points, version

import httpx

from mdp_core.backfill.bulk import BulkFill
from mdp_core.backfill.history_search import HistorySearch
from mdp_core.backfill.jobs import Backfills
from mdp_core.backfill.planning import Planning
from mdp_core.exchanges.base import ExchangeAdapter, ExchangeFacts
from mdp_core.exchanges.clock import Delays, ExchangeClock
from mdp_core.exchanges.clock_reading import ClockReader
from mdp_core.exchanges.http import ExchangeHttp, tell_of_retries
from mdp_core.exchanges.network import is_loopback
from mdp_core.fill.absence import RecheckPlan
from mdp_core.fill.canary import Canary
from mdp_core.fill.fetcher import PageFetcher
from mdp_core.fill.filler import FillLimits, PageFiller
from mdp_core.fill.history_end import HistoryEnds
from mdp_core.fill.market import MarketContext
from mdp_core.fill.observer import Observer
from mdp_core.fill.provisional import ProvisionalCache
from mdp_core.fill.rechecks import Rechecker
from mdp_core.ratelimit.budget import Budget
from mdp_core.ratelimit.scheduler import RequestScheduler
from mdp_core.ratelimit.waiting_room import WaitingRoom
from mdp_core.series.history_probes import HistoryProbes
from mdp_core.series.history_rechecks import HistoryRechecks
from mdp_core.series.history_start import HistoryStarts
from mdp_core.series.relisting import Relistings
from mdp_core.series.resolver import SeriesResolver
from mdp_core.series.symbol_directory import SymbolDirectory
from mdp_core.service.candles import CandleService
from mdp_core.service.coverage import Coverage
from mdp_core.service.health import HealthReader
from mdp_core.service.latest import LatestCandles
from mdp_core.service.mending import Mender
from mdp_core.service.repair import Repair
from mdp_core.service.stored_pages import PageComparer
from mdp_core.service.verify import Verify
from mdp_core.settings import ExchangeSettings, Settings
from mdp_core.storage.candles.absences import AbsenceStore
from mdp_core.storage.candles.candle_reader import CandleReader
from mdp_core.storage.candles.candle_store import CandleStore
from mdp_core.storage.candles.claims import Claims
from mdp_core.storage.candles.healing import Healer
from mdp_core.storage.candles.known_candles import KnownCandles
from mdp_core.storage.catalog.catalog import Catalog
from mdp_core.storage.catalog.history_ends import HistoryEndStore
from mdp_core.storage.catalog.history_starts import HistoryStartStore
from mdp_core.storage.catalog.usage import Usage
from mdp_core.storage.database.clock_offsets import ClockOffsets
from mdp_core.storage.database.database import Database, open_database, open_replica
from mdp_core.storage.database.replica import ReadServers
from mdp_core.storage.jobs.backfills import BackfillStore
from mdp_core.storage.jobs.job_runs import JobRuns

ENTRY_POINT_GROUP = "mdp.exchanges"

# Ages in seconds at which an absent candle is asked for again, where each interval has one, and
# where it may only say that nothing was traded.
_RECHECKS = (30.0, 60.0, 120.0, 600.0, 3600.0, 21_600.0, 86_400.0)
_SPARSE_RECHECKS = (30.0, 600.0)

Adapters = dict[tuple[str, str], type[ExchangeAdapter]]


@dataclass(frozen=True, slots=True)
class Services:
    """The parts that entry points work with."""

    settings: Settings
    database: Database
    store: CandleStore
    absences: AbsenceStore
    history_starts: HistoryStartStore
    candles: CandleService
    resolver: SeriesResolver
    edge: LatestCandles
    coverage: Coverage
    markets: Mapping[tuple[str, str], MarketContext]
    usage: Usage
    runs: JobRuns
    jobs: BackfillStore
    bulk: BulkFill
    planning: Planning
    backfills: Backfills
    history_search: HistorySearch
    repair: Repair
    verify: Verify
    servers: ReadServers
    health: HealthReader


@dataclass(frozen=True, slots=True)
class _Shared:
    """The parts that the markets of a process share."""

    settings: Settings
    database: Database
    store: CandleStore
    absences: AbsenceStore
    claims: Claims


def installed_adapters() -> Adapters:
    """Return every installed adapter, by exchange and market type."""
    loaded: list[type[ExchangeAdapter]] = [
        point.load() for point in entry_points(group=ENTRY_POINT_GROUP)
    ]
    return {(kind.facts.name, kind.facts.market_type): kind for kind in loaded}


@asynccontextmanager
async def open_services(
    settings: Settings,
    *,
    name: str = "mdp",
    exchange_settings: Callable[[str], ExchangeSettings] = ExchangeSettings.from_environment,
) -> AsyncGenerator[Services]:
    """Open everything, and close it in the opposite order on leaving.

    Args:
        settings: Of this process.
        name: The process, as the database sees it.
        exchange_settings: Where the settings of each exchange come from.

    Raises:
        StoreUnavailable: The database does not answer.
    """
    tell_of_retries()
    async with AsyncExitStack() as stack:
        shared = await stack.enter_async_context(_open_shared(settings, name))
        markets = {
            key: await stack.enter_async_context(
                _open_market(kind, exchange_settings(kind.facts.name), shared)
            )
            for key, kind in installed_adapters().items()
        }
        starts = HistoryStartStore(shared.database)
        resolver = await stack.enter_async_context(_open_resolver(shared, markets, starts))
        usage = Usage(shared.database)
        await stack.enter_async_context(usage.flushing())
        servers = await stack.enter_async_context(
            _open_read_servers(shared.database, settings, name)
        )
        service = CandleService(
            CandleReader(servers), resolver, markets=markets, limits=settings.limits, usage=usage
        )
        opened = _services(shared, resolver, service, starts, servers)
        async with aclosing(opened.health):
            yield opened


def _services(
    shared: _Shared,
    resolver: SeriesResolver,
    service: CandleService,
    starts: HistoryStartStore,
    servers: ReadServers,
) -> Services:
    settings, database, store = shared.settings, shared.database, shared.store
    markets, usage = service.markets, service.usage
    runs, jobs = JobRuns(database), BackfillStore(database)
    bulk = BulkFill(service, store, markets)
    planning = Planning(bulk, resolver)
    comparer, mender = PageComparer(store, resolver, markets), Mender(store)
    return Services(
        settings,
        database,
        store,
        shared.absences,
        starts,
        service,
        resolver,
        LatestCandles(service, markets, usage),
        Coverage(store, shared.absences, resolver, markets),
        markets,
        usage,
        runs,
        jobs,
        bulk,
        planning,
        Backfills(jobs, bulk, planning, resolver, runs, settings.clock, shared.absences),
        HistorySearch(service, store, resolver, markets),
        Repair(comparer, mender),
        Verify(comparer, mender),
        servers,
        HealthReader(database, runs, service, settings.clock, settings.keep),
    )


@asynccontextmanager
async def _open_shared(settings: Settings, name: str) -> AsyncGenerator[_Shared]:
    async with open_database(
        settings.database_url,
        name=name,
        size=settings.pool_size,
        statement_timeout_seconds=settings.statement_timeout_seconds,
    ) as database:
        store, claims = CandleStore(database, settings.clock), Claims(database)
        async with aclosing(store), aclosing(claims):
            yield _Shared(settings, database, store, AbsenceStore(database), claims)


@asynccontextmanager
async def _open_resolver(
    shared: _Shared, markets: Mapping[tuple[str, str], MarketContext], starts: HistoryStartStore
) -> AsyncGenerator[SeriesResolver]:
    settings, catalog = shared.settings, Catalog(shared.database)
    adapters = {key: market.adapter for key, market in markets.items()}
    clocks = {market.adapter: market.exchange_clock for market in markets.values()}
    probes = HistoryProbes(settings.second_look_seconds)
    rechecks = HistoryRechecks(starts, probes, settings.clock)
    history_starts = HistoryStarts(
        catalog, shared.store, shared.claims, clocks, settings.clock, rechecks=rechecks
    )
    async with aclosing(history_starts):
        relistings = Relistings(catalog, HistoryEndStore(shared.database), settings.clock)
        directory = SymbolDirectory(catalog, adapters, relistings)
        yield SeriesResolver(catalog, history_starts, directory)


@cache
def _tls_context() -> ssl.SSLContext:
    """Load the certificates once: it takes longer than everything else here together."""
    return httpx.create_ssl_context()


@asynccontextmanager
async def _open_read_servers(
    primary: Database, settings: Settings, name: str
) -> AsyncGenerator[ReadServers]:
    async with AsyncExitStack() as stack:
        replica: Database | None = None
        if settings.database_read_url:
            opening = open_replica(
                settings.database_read_url,
                name=name,
                size=settings.pool_size,
                statement_timeout_seconds=settings.statement_timeout_seconds,
            )
            replica = await stack.enter_async_context(opening)
        servers = ReadServers(primary, replica)
        await stack.enter_async_context(servers.opened())
        yield servers


@asynccontextmanager
async def _open_market(
    kind: type[ExchangeAdapter], own: ExchangeSettings, shared: _Shared
) -> AsyncGenerator[MarketContext]:
    facts, settings = kind.facts, shared.settings
    budget = Budget(
        shared.database,
        facts.name,
        settings.egress,
        facts.tariff,
        share=own.share,
        heaviest=facts.tariff.weigh(facts.page_size * facts.pages_per_request),
    )
    scheduler = RequestScheduler(facts.name, budget, slots=settings.concurrent_pages)
    async with (
        aclosing(scheduler),
        httpx.AsyncClient(
            base_url=(url := own.url or facts.base_url),
            trust_env=not is_loopback(url),
            timeout=settings.attempt_timeout_seconds,
            verify=_tls_context(),
            headers={"User-Agent": f"mdp/{version('mdp')}"},
        ) as client,
    ):
        deadline = settings.fetch_deadline_seconds
        few = max(settings.subject_waiting, settings.max_waiting // 2)
        room = WaitingRoom(settings.max_waiting, few)
        http = ExchangeHttp(facts.name, client, scheduler, deadline_seconds=deadline, room=room)
        adapter = kind(http)
        ranges = ProvisionalCache(facts.poll_seconds)
        tolerance = timedelta(seconds=settings.clock_tolerance_seconds)
        offsets = ClockOffsets(shared.database)
        reader = ClockReader(adapter, settings.clock, offsets, tolerance)
        exchange_clock = ExchangeClock(facts, reader, _delays(facts, own))
        plan = RecheckPlan(_recheck_ages(facts, own), facts.retention_candles)
        observer = _observer(adapter, exchange_clock, shared)
        fetcher = PageFetcher(observer, exchange_clock, shared.store, ranges, plan)
        healer = Healer(shared.database)
        rechecker = Rechecker(observer, exchange_clock, healer, shared.absences, plan)
        filler = PageFiller(
            shared.store, fetcher, scheduler, shared.claims, _fill_limits(settings, room)
        )
        async with aclosing(exchange_clock), aclosing(filler), aclosing(rechecker):
            per_second = facts.tariff.per_second * own.share
            yield MarketContext(
                adapter, exchange_clock, observer, filler, ranges, rechecker, per_second
            )


def _observer(adapter: ExchangeAdapter, exchange_clock: ExchangeClock, shared: _Shared) -> Observer:
    clock = shared.settings.clock
    return Observer(
        adapter,
        Canary(adapter, exchange_clock, KnownCandles(shared.database)),
        HistoryEnds(adapter, HistoryEndStore(shared.database), clock),
        clock,
        shared.settings.second_look_seconds,
    )


def _recheck_ages(facts: ExchangeFacts, own: ExchangeSettings) -> list[timedelta]:
    usual = _RECHECKS if facts.fills_empty_intervals else _SPARSE_RECHECKS
    return [timedelta(seconds=seconds) for seconds in own.rechecks or usual]


def _fill_limits(settings: Settings, room: WaitingRoom) -> FillLimits:
    return FillLimits(
        room=room,
        claim_seconds=settings.attempt_timeout_seconds,
    )


def _delays(facts: ExchangeFacts, own: ExchangeSettings) -> Delays:
    settle, grace = own.settle_seconds, own.absence_grace_seconds
    return Delays(
        settle=timedelta(seconds=facts.settle_seconds if settle is None else settle),
        absence_grace=timedelta(seconds=facts.absence_grace_seconds if grace is None else grace),
    )
