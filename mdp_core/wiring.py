"""Builds everything from settings; the only place that does."""

import ssl
from collections.abc import AsyncGenerator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from functools import cache
from importlib.metadata import entry_points, version

import httpx

from mdp_core.budget import Budget
from mdp_core.catalog import Catalog
from mdp_core.coverage import Coverage
from mdp_core.database import Database, open_database
from mdp_core.edge import LiveEdge
from mdp_core.exchanges.base import ExchangeAdapter
from mdp_core.exchanges.http import ExchangeHttp
from mdp_core.filling import PageFiller
from mdp_core.horizon import Delays, Horizon
from mdp_core.metadata import Metadata
from mdp_core.service import CandleService, Market
from mdp_core.settings import ExchangeSettings, Settings
from mdp_core.store import CandleStore

ENTRY_POINT_GROUP = "mdp.exchanges"

Adapters = dict[tuple[str, str], type[ExchangeAdapter]]


@dataclass(frozen=True, slots=True)
class Services:
    """What entrypoints work with."""

    settings: Settings
    database: Database
    store: CandleStore
    candles: CandleService
    metadata: Metadata
    edge: LiveEdge
    coverage: Coverage


def installed_adapters() -> Adapters:
    """Find every exchange that is installed, ours and others', by exchange and market type."""
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
    async with AsyncExitStack() as stack:
        database = await stack.enter_async_context(
            open_database(
                settings.database_url,
                name=name,
                size=settings.pool_size,
                statement_timeout_seconds=settings.statement_timeout_seconds,
            )
        )
        store = CandleStore(database)
        adapters: dict[tuple[str, str], ExchangeAdapter] = {}
        markets: dict[tuple[str, str], Market] = {}
        for key, kind in installed_adapters().items():
            own = exchange_settings(kind.facts.name)
            adapter = await stack.enter_async_context(_open_adapter(kind, own, settings, database))
            adapters[key] = adapter
            markets[key] = _market(adapter, own, settings, store)
            stack.push_async_callback(markets[key].filler.close)
        metadata = Metadata(Catalog(database), adapters, settings.clock)
        service = CandleService(store, metadata, markets, settings.limits)
        yield Services(
            settings,
            database,
            store,
            service,
            metadata,
            LiveEdge(service, metadata, markets),
            Coverage(store, metadata, markets),
        )


@cache
def _tls_context() -> ssl.SSLContext:
    """Load the certificates once: it takes longer than everything else here together."""
    return httpx.create_ssl_context()


@asynccontextmanager
async def _open_adapter(
    kind: type[ExchangeAdapter], own: ExchangeSettings, settings: Settings, database: Database
) -> AsyncGenerator[ExchangeAdapter]:
    facts = kind.facts
    budget = Budget(database, facts.name, settings.egress, facts.tariff, share=own.share)
    async with httpx.AsyncClient(
        base_url=own.url or facts.base_url,
        timeout=settings.attempt_timeout_seconds,
        verify=_tls_context(),
        headers={"User-Agent": f"mdp/{version('mdp')}"},
    ) as client:
        http = ExchangeHttp(
            facts.name, client, budget, deadline_seconds=settings.fetch_deadline_seconds
        )
        yield kind(http)


def _market(
    adapter: ExchangeAdapter, own: ExchangeSettings, settings: Settings, store: CandleStore
) -> Market:
    facts = adapter.facts
    settle = facts.settle_seconds if own.settle_seconds is None else own.settle_seconds
    grace = own.absence_grace_seconds
    delays = Delays(
        settle=timedelta(seconds=settle),
        absence_grace=timedelta(seconds=facts.absence_grace_seconds if grace is None else grace),
    )
    filler = PageFiller(adapter, store, concurrency=settings.concurrent_pages)
    return Market(adapter, Horizon(adapter, settings.clock, delays), filler)
