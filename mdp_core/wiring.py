"""Builds everything from settings; the only place that does."""

from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import AsyncExitStack, aclosing, asynccontextmanager
from dataclasses import dataclass
from importlib.metadata import entry_points

from mdp_core.backfill.bulk import BulkFill
from mdp_core.backfill.history_search import HistorySearch
from mdp_core.backfill.jobs import Backfills
from mdp_core.backfill.planning import Planning
from mdp_core.exchanges.base import ExchangeAdapter
from mdp_core.exchanges.http import tell_of_retries
from mdp_core.fill.market import MarketContext
from mdp_core.market_wiring import Shared, open_market
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
from mdp_core.storage.catalog.catalog import Catalog
from mdp_core.storage.catalog.history_ends import HistoryEndStore
from mdp_core.storage.catalog.history_starts import HistoryStartStore
from mdp_core.storage.catalog.usage import Usage
from mdp_core.storage.database.database import Database, open_database, open_replica
from mdp_core.storage.database.replica import ReadServers
from mdp_core.storage.jobs.backfills import BackfillStore
from mdp_core.storage.jobs.job_runs import JobRuns

ENTRY_POINT_GROUP = "mdp.exchanges"

# Two answers that are less than this many looks apart may come from one cache of the exchange.
_LOOKS_OF_A_REPAIR = 2.5

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
                open_market(kind, exchange_settings(kind.facts.name), shared)
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
    shared: Shared,
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
    pause_seconds = _LOOKS_OF_A_REPAIR * settings.second_look_seconds
    comparer = PageComparer(store, resolver, markets)
    mender = Mender(store, pause_seconds=pause_seconds)
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
async def _open_shared(settings: Settings, name: str) -> AsyncGenerator[Shared]:
    async with open_database(
        settings.database_url,
        name=name,
        size=settings.pool_size,
        statement_timeout_seconds=settings.statement_timeout_seconds,
    ) as database:
        store, claims = CandleStore(database, settings.clock), Claims(database)
        async with aclosing(store), aclosing(claims):
            yield Shared(settings, database, store, AbsenceStore(database), claims)


@asynccontextmanager
async def _open_resolver(
    shared: Shared, markets: Mapping[tuple[str, str], MarketContext], starts: HistoryStartStore
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
