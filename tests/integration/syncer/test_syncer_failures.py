"""A syncer in trouble: it goes on with the rest, or ends and says so."""

import asyncio
from datetime import UTC, datetime, timedelta

import psycopg
import pytest
from support.asking import answer_to
from support.sandbox import Sandbox, running_sandbox
from support.services import opened_services
from support.waiting import eventually

from mdp_core.domain.clock import Clock
from mdp_core.domain.queries import CandleQuery
from mdp_core.errors import InvalidParameter
from mdp_core.ratelimit.budget import Budget
from mdp_core.ratelimit.context import RequestContext
from mdp_core.ratelimit.priority import Priority
from mdp_core.ratelimit.scheduler import RequestScheduler
from mdp_core.ratelimit.tariff import Tariff
from mdp_core.series.selection import parse_selections
from mdp_core.settings import Settings
from mdp_core.storage.jobs.job_runs import RunKey, RunResult
from mdp_core.wiring import Services
from scripts.sandbox.app import SandboxOptions
from syncer.app import running_syncer
from syncer.runner import Runner, ScheduledJob
from syncer.schedule import Schedule
from syncer.scheduled_jobs import keeper_of, scheduled_jobs, warming_of
from syncer.warm import Warming

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
EVERY_MINUTE = Schedule(timedelta(minutes=1), Clock())


def _warming(services: Services, configured: str, patience_seconds: float = 57.0) -> Warming:
    adapter = services.resolver.directory.adapter("binance", "perp")
    return warming_of(services, adapter, parse_selections(configured), patience_seconds)


async def test_syncer_ends_if_what_it_lives_by_ends(
    services: Services, database: psycopg.Connection
) -> None:
    """With an error, so that it is started again: it would count as dead, and work on."""
    with pytest.raises(ExceptionGroup) as caught:
        await _syncer_without_heartbeat(services, database)

    assert caught.group_contains(psycopg.errors.UndefinedColumn)


async def test_run_that_can_not_be_written_down_does_not_end_the_others(
    services: Services, database: psycopg.Connection
) -> None:
    """One count is too large for the database; later ones are still taken over."""
    jobs = [_job("wrong", 2**70), _job("right", 1), _job("later", 1)]
    runs = services.runs
    ended = "SELECT job FROM job_runs WHERE ended_at IS NOT NULL ORDER BY job"
    await _leave(services, "wrong", "right")
    taking_over = asyncio.create_task(Runner(runs, "living").take_over(jobs))
    await eventually(lambda: database.execute(ended).fetchall() == [("right",)])
    await _leave(services, "later")
    await eventually(lambda: database.execute(ended).fetchall() == [("later",), ("right",)])
    taking_over.cancel()
    await asyncio.wait({taking_over})

    assert taking_over.cancelled()


async def test_whatever_a_run_asks_waits_behind_interactive_requests(services: Services) -> None:
    """A run leaves the rest of a nearly empty bucket to interactive requests."""
    budget = Budget(services.database, "binance", "tested", Tariff(100, 0.001), share=1.0)
    scheduler = RequestScheduler("binance", budget, slots=1)
    await budget.take([97], Priority.INTERACTIVE)

    async def run() -> RunResult:
        context = RequestContext.at(Priority.WARMING)
        await scheduler.pay(1, context, until=asyncio.get_running_loop().time() + 0.2)
        return RunResult()

    job = ScheduledJob("asks", EVERY_MINUTE, 0.0, run)
    await Runner(services.runs, "living").run_due(job)
    (ran,) = await services.runs.latest(1)

    assert ran.error
    assert ran.error.startswith("RateLimited")
    assert (await budget.take([1], Priority.INTERACTIVE)).count == 1


async def test_note_that_can_not_be_kept_does_not_end_the_notes(services: Services) -> None:
    """A series that doesn't exist was noted; those that are requested later stay hot."""
    services.usage.note(2_000_000_000, at_edge=True)
    await services.usage.flush()
    await answer_to(services, CandleQuery("binance", "perp", "ETH-USDT", "1m", limit=2))
    await services.usage.flush()

    hot = await services.usage.hot("binance", "perp", timedelta(minutes=1), 10)
    assert hot == [("ETH-USDT", "1m")]


async def test_name_that_is_wrong_costs_the_others_nothing(services: Services) -> None:
    """Neither configured series beside it nor requested ones."""
    await answer_to(services, CandleQuery("binance", "perp", "ETH-USDT", "1m", limit=2))
    await services.usage.flush()
    names = "binance:BTC-USDT,TYPO-USDT,NOSUCH*:1m"
    warmed = await _warming(services, names).run()
    series = await services.resolver.series("binance", "perp", "BTC-USDT", "1m")

    assert warmed.rows >= 1
    assert warmed.error
    assert "2 failed" in warmed.error
    assert "TYPO-USDT" in warmed.error
    assert await services.store.covered_until([series.id])


async def test_delisted_symbol_is_left_out_and_told_once(
    services: Services,
    database: psycopg.Connection,
    sandbox: Sandbox,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Nothing new comes of it; the others are kept warm."""
    (adapter,) = services.resolver.directory.markets("binance", None)
    await services.resolver.directory.refresh(adapter)
    database.execute("UPDATE symbols SET active = false WHERE name = 'ETH-USDT'")
    warming = _warming(services, "binance:BTC-USDT,ETH-USDT:1m")
    sandbox.clear()
    await warming.run()
    await warming.run()
    told = [record.getMessage() for record in caplog.records if "delisted" in record.getMessage()]

    assert told == ["MDP_HOT names a delisted symbol: binance ETH-USDT"]
    assert {entry["params"]["symbol"] for entry in sandbox.candle_requests()} == {"BTCUSDT"}


async def test_series_asked_for_longest_ago_are_not_hot(
    services: Services, database: psycopg.Connection
) -> None:
    """Only so many are, whatever a client asks for in a day."""
    for interval in ("1m", "3m", "5m"):
        await services.resolver.series("binance", "perp", "BTC-USDT", interval)
    database.execute(
        "INSERT INTO series_usage (series_id, last_requested, last_at_edge, requests) "
        "SELECT id, now(), now() - id * interval '1 second', 1 FROM series"
    )
    hot = await services.usage.hot("binance", "perp", timedelta(hours=1), 2)

    assert hot == [("BTC-USDT", "1m"), ("BTC-USDT", "3m")]


@pytest.mark.parametrize(
    ("variable", "value", "said"),
    [
        ("hot", "binanse:BTC-USDT:1m", "MDP_HOT: there is no exchange binanse"),
        ("hot", "binance:BTC-USDT:7m", "MDP_HOT: binance does not offer 7m"),
        ("keep", "hyperliquid:BTC:7m", "MDP_KEEP: hyperliquid does not offer 7m"),
    ],
)
async def test_configuration_that_can_never_work_is_refused(
    settings: Settings, sandbox: Sandbox, variable: str, value: str, said: str
) -> None:
    """At the start, with what there is instead."""
    async with opened_services(settings.model_copy(update={variable: value}), sandbox) as services:
        with pytest.raises(InvalidParameter, match=said):
            scheduled_jobs(services)


async def test_keeper_tells_what_it_can_not_keep(services: Services, sandbox: Sandbox) -> None:
    """An impossible row is no candle gained, and an error: it will be forgotten."""
    kept = parse_selections("hyperliquid:BTC,NOSUCH:1h")
    keeper = keeper_of(services, services.resolver.directory.adapter("hyperliquid", "perp"), kept)
    sandbox.fault("ohlc_violation", exchange="hyperliquid", times=1, interval="1h")
    ran = await keeper.run()
    series = await services.resolver.series("hyperliquid", "perp", "BTC", "1h")
    until = (await services.store.covered_until([series.id]))[series.id]
    until_there = services.bulk.window(series, until - 4000 * timedelta(hours=1), until)
    missing = await services.store.uncovered(series.id, await until_there)

    assert ran.error
    assert "2 failed" in ran.error
    assert 4900 < ran.rows < 5000
    assert [gap.end - gap.start for gap in missing] == [timedelta(hours=1)]


async def test_beginning_is_found_past_rows_that_can_not_be_right(
    services: Services, sandbox: Sandbox
) -> None:
    """A bad row was traded, too: it costs a slot and not the series."""
    sandbox.fault("ohlc_violation", exchange="coinbase", times=100_000)
    series = await services.resolver.series("coinbase", "spot", "BTC-USD", "1d")
    begins = await services.history_search.find(series)

    assert begins
    assert begins.year == 2015


async def test_warming_waits_for_the_exchange_whose_clock_is_behind(settings: Settings) -> None:
    """Settled by our clock; the exchange has it a moment later, within the minute."""
    ours = Clock.starting_at(NOON + timedelta(seconds=2.6))
    theirs = Clock.starting_at(NOON + timedelta(seconds=0.4))
    set_to_ours = settings.model_copy(update={"clock": ours})
    with running_sandbox(SandboxOptions(clock=theirs, limits=False)) as sandbox:
        async with opened_services(set_to_ours, sandbox) as services:
            await _warming(services, "binance:BTC-USDT:1m").run()
            series = await services.resolver.series("binance", "perp", "BTC-USDT", "1m")
            until = await services.store.covered_until([series.id])

    assert until == {series.id: NOON}


async def test_warming_gives_up_at_the_end_of_its_minute(services: Services) -> None:
    """Otherwise a long ban would hang each syncer's runs in it; waiters are counted."""
    for symbol in ("BTC-USDT", "ETH-USDT"):
        await services.resolver.series("binance", "perp", symbol, "1m")
    await services.markets["binance", "perp"].exchange_clock.now()
    bucket = Budget(services.database, "binance", "default", Tariff(240, 36), share=1.0)
    await bucket.block(300, "HTTP 418")
    ran = await _warming(services, "binance:BTC-USDT,ETH-USDT:1m", patience_seconds=1.0).run()

    assert (ran.rows, ran.waiting, ran.error) == (0, 2, None)


async def _syncer_without_heartbeat(services: Services, database: psycopg.Connection) -> None:
    async with running_syncer(services):
        database.execute("ALTER TABLE syncers RENAME heartbeat_at TO beat")
        await asyncio.Event().wait()


def _job(name: str, rows: int) -> ScheduledJob:
    async def run() -> RunResult:
        return RunResult(rows)

    return ScheduledJob(name, EVERY_MINUTE, 0.0, run)


async def _leave(services: Services, *names: str) -> None:
    """Leave runs as a syncer does that was told to stop."""
    for name in names:
        await services.runs.claim(RunKey(name, NOON), "dead")
        await services.runs.release(RunKey(name, NOON), "dead")
