"""Clocks that are wrong, are set, or can't be read; on injected time."""

import asyncio
from collections.abc import AsyncGenerator, Generator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import psycopg
import pytest
import stamina
from support.http import connected
from support.sandbox import MINUTE_MS, Sandbox
from support.services import app_of, opened_services, token_of

from mdp_core.domain.candles import Candles
from mdp_core.domain.clock import EPOCH, Clock, to_ms
from mdp_core.domain.intervals import Interval, epoch_grid
from mdp_core.domain.windows import Window
from mdp_core.errors import ClockSkew
from mdp_core.exchanges.clock_reading import ClockReader
from mdp_core.settings import Settings
from mdp_core.storage.candles.candle_store import CandleStore
from mdp_core.wiring import Services

HOUR_MS = 60 * MINUTE_MS
DAY_MS = 24 * HOUR_MS

PATHS = {
    "binance": "/candles/binance/perp/BTC-USDT/1m",
    "hyperliquid": "/candles/hyperliquid/perp/BTC-USDC/1m",
    "coinbase": "/candles/coinbase/spot/BTC-USD/1m",
}
EVERY_EXCHANGE = pytest.mark.parametrize("exchange", PATHS)
WRONG_CLOCKS: list[dict[str, Any]] = [
    {"name": "clock_ahead", "seconds": 5 * 3600},
    {"name": "clock_ahead", "seconds": 172_800},
    {"name": "clock_ahead", "seconds": 40_000_000},  # over a year
    {"name": "clock_behind", "seconds": 133_200},
    {"name": "clock_in_seconds"},
]

_COVERED_UNTIL = """
SELECT (extract(epoch FROM max(upper(coverage))) * 1000)::bigint FROM series
WHERE NOT isempty(coverage)
"""
_NEWEST = "SELECT (extract(epoch FROM max(time)) * 1000)::bigint FROM candles"
_STORED = "SELECT count(*) FROM candles"


@pytest.fixture(autouse=True)
def _no_waiting_between_attempts() -> Generator[None]:
    with stamina.set_testing(True, attempts=2, cap=True):
        yield


@dataclass(frozen=True, slots=True)
class Bench:
    """A service over the sandbox, and the time that a test lets pass."""

    services: Services
    client: httpx.AsyncClient
    exchange: str

    @property
    def reader(self) -> ClockReader:
        """Reads the exchange's clock."""
        found = [m for (name, _), m in self.services.markets.items() if name == self.exchange]
        return found[0].exchange_clock._reader  # noqa: SLF001 - there is no other way to it

    def pass_seconds(self, seconds: float) -> None:
        """Let both clocks of this machine go on."""
        reader, pauses = self.reader, self.reader.monotonic
        reader.monotonic = lambda: pauses() + seconds
        reader._clock = Clock(EPOCH + timedelta(seconds=seconds))  # noqa: SLF001

    async def ask(self, **params: object) -> httpx.Response:
        """Ask for one-minute candles."""
        texts = {name: str(value) for name, value in params.items()}
        return await self.client.get(PATHS[self.exchange], params=texts)


@asynccontextmanager
async def bench(settings: Settings, sandbox: Sandbox, exchange: str) -> AsyncGenerator[Bench]:
    """Open a service, as a process that has just started."""
    async with (
        opened_services(settings, sandbox) as services,
        connected(app_of(services), token_of(settings)) as client,
    ):
        yield Bench(services, client, exchange)


def now_ms() -> int:
    """Give the right time."""
    return to_ms(datetime.now(UTC))


def time_requests(sandbox: Sandbox) -> list[dict[str, Any]]:
    """Give those requests that asked for a clock."""
    return [
        entry
        for entry in sandbox.requests()
        if entry["path"].endswith("/time") or entry["params"].get("type") == "exchangeStatus"
    ]


def assert_skew(answer: httpx.Response, what: str) -> None:
    """Check an answer that tells of clocks that are apart."""
    body = answer.json()
    assert (answer.status_code, body["code"]) == (503, "clock_skew"), (what, body)
    assert answer.headers["Retry-After"] == "5"
    assert {"their_time", "our_time"} <= body.keys()


@EVERY_EXCHANGE
@pytest.mark.parametrize(
    "fault", WRONG_CLOCKS, ids=lambda fault: "-".join(map(str, fault.values()))
)
async def test_wrong_clock_of_an_exchange_makes_no_facts(
    exchange: str,
    fault: dict[str, Any],
    settings: Settings,
    sandbox: Sandbox,
    database: psycopg.Connection,
) -> None:
    """Candles old by both clocks are served, others told as skew, and healed."""
    now, old = now_ms(), now_ms() - 3 * DAY_MS
    sandbox.fault(**fault, exchange=exchange)
    async with bench(settings, sandbox, exchange) as service:
        assert_skew(await service.ask(limit=5), "the newest")
        assert_skew(await service.ask(start=now - 10 * MINUTE_MS), "from a start to now")
        assert_skew(await service.ask(start=now - HOUR_MS, end=now + DAY_MS), "to tomorrow")
        window = {"start": old, "end": old + HOUR_MS}
        assert (await service.ask(**window)).json()["complete"] is True
        assert (await service.ask(start=old, limit=5)).json()["count"] == 5
        assert len(time_requests(sandbox)) == 1
        service.pass_seconds(6)
        healed = await service.ask(start=now - HOUR_MS, limit=30)
        newest = await service.ask(limit=5)
        assert len(time_requests(sandbox)) == 2

    assert healed.status_code == 200, healed.text
    assert healed.json()["complete"] is True
    assert newest.status_code == 200, newest.text
    assert newest.json()["end"] >= now - 2 * MINUTE_MS
    covered = database.execute(_COVERED_UNTIL).fetchone()
    assert covered is not None
    assert covered[0] <= now_ms()


@EVERY_EXCHANGE
@pytest.mark.parametrize("days", [2, 3, -2])
async def test_wrong_clock_of_ours_makes_no_facts(
    exchange: str, days: int, settings: Settings, sandbox: Sandbox, database: psycopg.Connection
) -> None:
    """Nothing is covered beyond the exchange's clock; the newest candle is another."""
    wrong = Clock(EPOCH + timedelta(days=days))
    now = now_ms()
    window = {"start": now - HOUR_MS, "end": now + DAY_MS}
    async with bench(settings.model_copy(update={"clock": wrong}), sandbox, exchange) as service:
        assert_skew(await service.ask(**window), "to tomorrow")
        assert_skew(await service.ask(limit=5), "the newest")
        old = now - 3 * DAY_MS
        answer = await service.ask(start=old, end=old + HOUR_MS)
        assert answer.json()["complete"] is True
    newest = database.execute(_NEWEST).fetchone()
    assert newest is not None
    assert newest[0] < now
    async with bench(settings, sandbox, exchange) as service:
        right = await service.ask(**window)

    assert right.status_code == 200, right.text
    assert right.json()["end"] <= now_ms()


@EVERY_EXCHANGE
async def test_page_of_an_old_window_is_cut_at_the_earlier_clock(
    exchange: str, settings: Settings, sandbox: Sandbox, database: psycopg.Connection
) -> None:
    """A candle closed by our wrong clock alone may be looked up, and not fetched."""
    ahead = settings.model_copy(update={"clock": Clock(EPOCH + timedelta(days=2))})
    now = now_ms()
    window = {"start": now - 10 * MINUTE_MS, "end": now - 5 * MINUTE_MS}
    async with bench(ahead, sandbox, exchange) as service:
        answer = await service.ask(**window)

    assert answer.status_code == 200, answer.text
    covered = database.execute(_COVERED_UNTIL).fetchone() or (0,)
    assert (covered[0] or 0) <= now_ms()


@EVERY_EXCHANGE
@pytest.mark.parametrize("fault", ["server_error", "hang"])
async def test_process_that_starts_while_an_exchange_is_away_serves_what_is_stored(
    exchange: str, fault: str, settings: Settings, sandbox: Sandbox
) -> None:
    """The database knows the exchange's clock; all requests share one question."""
    now = now_ms()
    window = {"start": now - 3 * HOUR_MS, "end": now - 2 * HOUR_MS}
    async with bench(settings, sandbox, exchange) as service:
        before = await service.ask(**window)
    assert before.json()["complete"] is True
    sandbox.clear()
    sandbox.fault(fault, exchange=exchange, kind="time", times=1000, seconds=30)
    async with bench(settings, sandbox, exchange) as service:
        answers = await asyncio.gather(*(service.ask(**window) for _ in range(12)))

    assert {answer.status_code for answer in answers} == {200}
    assert {answer.headers["X-Cache"] for answer in answers} == {"hit"}
    assert all(answer.json()["candles"] == before.json()["candles"] for answer in answers)
    assert len(time_requests(sandbox)) <= 2


@EVERY_EXCHANGE
async def test_failure_to_read_a_clock_is_shared_for_seconds(
    exchange: str, settings: Settings, sandbox: Sandbox
) -> None:
    """Nothing is known of it: old windows are served, others are told the same."""
    now = now_ms()
    old = {"start": now - 3 * DAY_MS, "end": now - 3 * DAY_MS + HOUR_MS}
    sandbox.fault("server_error", exchange=exchange, kind="time", times=1000)
    async with bench(settings, sandbox, exchange) as service:
        answers = await asyncio.gather(*(service.ask(limit=5) for _ in range(12)))
        served = await service.ask(**old)
        assert len(time_requests(sandbox)) == 2  # one question, with its retry
        sandbox.clear_faults()
        still = await service.ask(limit=5)
        service.pass_seconds(6)
        healed = await service.ask(limit=5)

    assert {answer.json()["code"] for answer in [*answers, still]} == {"upstream_unavailable"}
    assert served.json()["complete"] is True
    assert healed.status_code == 200, healed.text


async def test_nothing_is_covered_beyond_the_clock_of_the_database(
    services: Services, database: psycopg.Connection, caplog: pytest.LogCaptureFixture
) -> None:
    """Despite the other clocks; not even rows are stored; saves of others are."""
    series = await services.resolver.series("binance", "perp", "BTC-USDT", "1h")
    hours, now = epoch_grid(Interval.ONE_HOUR), datetime.now(UTC)
    closed = hours.floor(now)
    beyond = Window(closed, closed + timedelta(hours=2))
    right = Window(closed - timedelta(hours=2), closed)
    outcomes = await asyncio.gather(
        services.store.save(series.id, [beyond], Candles.empty()),
        services.store.save(series.id, [right], Candles.empty()),
        return_exceptions=True,
    )

    assert isinstance(outcomes[0], ClockSkew)
    assert "the database" in str(outcomes[0])
    assert not isinstance(outcomes[1], BaseException)
    assert database.execute(_COVERED_UNTIL).fetchone() == (to_ms(closed),)
    (warning,) = [line.getMessage() for line in caplog.records if line.levelname == "WARNING"]
    assert f"up to {beyond.end.isoformat()}, which is yet to come" in warning


async def test_clock_that_is_set_elsewhere_shifts_the_clock_of_the_database_too(
    services: Services,
) -> None:
    """With `MDP_CLOCK` the database's clock is read as ours is: shifted, and as fast."""
    series = await services.resolver.series("binance", "perp", "BTC-USDT", "1h")
    ahead = datetime.now(UTC) + timedelta(days=30)
    store = CandleStore(services.database, Clock.starting_at(ahead, speed=60.0))
    hours = epoch_grid(Interval.ONE_HOUR)
    closed = hours.floor(ahead)
    await store.save(series.id, [Window(closed - timedelta(hours=1), closed)], Candles.empty())
    in_reach = Window(closed, closed + timedelta(hours=4))
    await store.save(series.id, [in_reach], Candles.empty())  # 5 minutes, sixty times as fast
    with pytest.raises(ClockSkew):
        await store.save(
            series.id, [Window(in_reach.end, in_reach.end + timedelta(hours=9))], Candles.empty()
        )
    await store.aclose()


async def test_clock_that_is_set_is_not_taken_for_the_exchanges(
    settings: Settings, sandbox: Sandbox
) -> None:
    """After a resume or a correction the exchange is asked before any conclusion."""
    async with bench(settings, sandbox, "binance") as service:
        assert (await service.ask(limit=5)).status_code == 200
        assert (await service.ask(limit=5)).status_code == 200
        assert len(time_requests(sandbox)) == 1
        service.reader._clock = Clock(EPOCH + timedelta(hours=5))  # noqa: SLF001
        assert_skew(await service.ask(limit=5), "set")
        assert len(time_requests(sandbox)) == 2
        service.reader._clock = Clock()  # noqa: SLF001
        assert (await service.ask(limit=5)).status_code == 200
