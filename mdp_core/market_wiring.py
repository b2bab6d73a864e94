"""Open a market from settings: its client, rate limit, clock and filler."""

import ssl
from collections.abc import AsyncGenerator
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from functools import cache
from importlib.metadata import version

import httpx

from mdp_core.exchanges.base import ExchangeAdapter, ExchangeFacts
from mdp_core.exchanges.clock import Delays, ExchangeClock
from mdp_core.exchanges.clock_reading import ClockReader
from mdp_core.exchanges.http import ExchangeHttp
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
from mdp_core.settings import ExchangeSettings, Settings
from mdp_core.storage.candles.absences import AbsenceStore
from mdp_core.storage.candles.candle_store import CandleStore
from mdp_core.storage.candles.claims import Claims
from mdp_core.storage.candles.healing import Healer
from mdp_core.storage.candles.known_candles import KnownCandles
from mdp_core.storage.catalog.history_ends import HistoryEndStore
from mdp_core.storage.database.clock_offsets import ClockOffsets
from mdp_core.storage.database.database import Database

# Ages in seconds at which an absent candle is asked for again, where each interval has one, and
# where it may only say that nothing was traded.
_RECHECKS = (30.0, 60.0, 120.0, 600.0, 3600.0, 21_600.0, 86_400.0)
_SPARSE_RECHECKS = (30.0, 600.0)


@dataclass(frozen=True, slots=True)
class Shared:
    """The parts that the markets of a process share."""

    settings: Settings
    database: Database
    store: CandleStore
    absences: AbsenceStore
    claims: Claims


@cache
def _tls_context() -> ssl.SSLContext:
    """Load the certificates once: it takes longer than everything else here together."""
    return httpx.create_ssl_context()


@asynccontextmanager
async def open_market(
    kind: type[ExchangeAdapter], own: ExchangeSettings, shared: Shared
) -> AsyncGenerator[MarketContext]:
    """Open a market: its client and rate limit, and what fills its pages."""
    facts, settings = kind.facts, shared.settings
    budget = _budget(facts, own, shared)
    scheduler = RequestScheduler(facts.name, budget, slots=settings.concurrent_pages)
    async with aclosing(scheduler), _client(own.url or facts.base_url, settings) as client:
        few = max(settings.subject_waiting, settings.max_waiting // 2)
        room = WaitingRoom(settings.max_waiting, few)
        deadline = settings.fetch_deadline_seconds
        adapter = kind(
            ExchangeHttp(facts.name, client, scheduler, deadline_seconds=deadline, room=room)
        )
        exchange_clock = ExchangeClock(facts, _clock_reader(adapter, shared), _delays(facts, own))
        observer = _observer(adapter, exchange_clock, shared)
        ranges = ProvisionalCache(facts.poll_seconds)
        plan = RecheckPlan(_recheck_ages(facts, own), facts.retention_candles)
        fetcher = PageFetcher(observer, exchange_clock, shared.store, ranges, plan)
        healer = Healer(shared.database)
        rechecker = Rechecker(observer, exchange_clock, healer, shared.absences, plan)
        filler = PageFiller(
            shared.store, fetcher, scheduler, shared.claims, _fill_limits(settings, room)
        )
        async with aclosing(exchange_clock), aclosing(filler), aclosing(rechecker):
            per_second = facts.tariff.per_second * own.share
            yield MarketContext(
                adapter, exchange_clock, observer, filler, ranges, rechecker, per_second, budget
            )


def _budget(facts: ExchangeFacts, own: ExchangeSettings, shared: Shared) -> Budget:
    return Budget(
        shared.database,
        facts.name,
        shared.settings.egress,
        facts.tariff,
        share=own.share,
        heaviest=facts.tariff.weigh(facts.page_size * facts.pages_per_request),
    )


def _client(url: str, settings: Settings) -> httpx.AsyncClient:
    return httpx.AsyncClient(
        base_url=url,
        trust_env=not is_loopback(url),
        timeout=settings.attempt_timeout_seconds,
        verify=_tls_context(),
        headers={"User-Agent": f"mdp/{version('mdp')}"},
    )


def _clock_reader(adapter: ExchangeAdapter, shared: Shared) -> ClockReader:
    tolerance = timedelta(seconds=shared.settings.clock_tolerance_seconds)
    return ClockReader(adapter, shared.settings.clock, ClockOffsets(shared.database), tolerance)


def _observer(adapter: ExchangeAdapter, exchange_clock: ExchangeClock, shared: Shared) -> Observer:
    clock, seconds = shared.settings.clock, shared.settings.second_look_seconds
    return Observer(
        adapter,
        Canary(adapter, exchange_clock, KnownCandles(shared.database), seconds),
        HistoryEnds(adapter, HistoryEndStore(shared.database), clock),
        clock,
        seconds,
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
