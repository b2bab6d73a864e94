"""Claims of scheduled runs, one statement at a time: who may run and record."""

from collections.abc import AsyncGenerator
from datetime import UTC, datetime, timedelta

import psycopg
import pytest
from support.waiting import eventually

from mdp_core.storage.database.database import open_database
from mdp_core.storage.jobs.job_runs import JobRuns, RunKey, RunResult

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
KEY = RunKey("warm", NOON)
_READ = """
SELECT coalesce(seq_tup_read, 0) + coalesce(idx_tup_fetch, 0) FROM pg_stat_user_tables
WHERE relname = 'job_runs'
"""
_SILENCE = "UPDATE job_runs SET heartbeat_at = now() - interval '11 seconds'"
_PAUSE = "UPDATE job_runs SET heartbeat_at = now() - interval '8 seconds'"


@pytest.fixture
async def runs(database_url: str) -> AsyncGenerator[JobRuns]:
    """Gives the runs of the test's database."""
    async with open_database(
        database_url, name="test", size=2, statement_timeout_seconds=10
    ) as database:
        yield JobRuns(database)


async def test_run_is_claimed_once(runs: JobRuns, database: psycopg.Connection) -> None:
    """No other syncer may, not even after a pause as long as a busy machine may make."""
    claimed = [await runs.claim(KEY, worker) for worker in ("one", "two", "one")]
    database.execute(_PAUSE)

    assert claimed == [True, False, False]
    assert not await runs.claim(KEY, "two")
    assert await runs.abandoned() == []
    assert await runs.beat(KEY, "one")


async def test_run_of_who_fell_silent_is_taken_over(
    runs: JobRuns, database: psycopg.Connection
) -> None:
    """A worker that comes back can't end a run that was taken over."""
    await runs.claim(KEY, "one")
    database.execute(_SILENCE)

    assert await runs.abandoned() == [KEY]
    assert await runs.claim(KEY, "two")
    assert not await runs.claim(KEY, "three")
    assert not await runs.beat(KEY, "one")
    await runs.end(KEY, "one", RunResult(1))
    assert (await runs.latest(1))[0].ended_at is None
    await runs.end(KEY, "two", RunResult(2))
    assert (await runs.latest(1))[0].rows == 2


async def test_run_ends_whatever_its_error_holds(runs: JobRuns) -> None:
    """The text may be an exchange's; a run that could not end would run for ever."""
    await runs.claim(KEY, "one")
    await runs.end(KEY, "one", RunResult(0, error="refused: \0"))

    assert (await runs.latest(1))[0].error == "refused: \N{REPLACEMENT CHARACTER}"


async def test_run_that_ended_is_never_run_again(
    runs: JobRuns, database: psycopg.Connection
) -> None:
    """However long ago its last heartbeat was: a syncer that starts finds it done."""
    await runs.claim(KEY, "one")
    await runs.end(KEY, "one", RunResult(3, error="some"))
    database.execute(_SILENCE)

    assert not await runs.claim(KEY, "two")
    assert not await runs.beat(KEY, "one")
    assert await runs.abandoned() == []


async def test_latest_runs_of_every_job_are_told(runs: JobRuns) -> None:
    """So many of each as there are, and no more than asked for; the latest first."""
    due = [NOON + timedelta(minutes=n) for n in range(3)]
    keys = [RunKey(job, at) for job in ("warm", "keep", "refresh") for at in due]
    for key in [*keys, RunKey("once", NOON)]:
        await runs.claim(key, "one")
    found = [(run.job, run.due_at) for run in await runs.latest(2)]

    assert found == [
        ("keep", due[2]),
        ("keep", due[1]),
        ("once", NOON),
        ("refresh", due[2]),
        ("refresh", due[1]),
        ("warm", due[2]),
        ("warm", due[1]),
    ]


async def test_latest_runs_are_found_without_reading_the_history(
    database_url: str, database: psycopg.Connection
) -> None:
    """`/health` is asked often: its cost must not grow with a month of runs."""
    database.execute(
        "INSERT INTO job_runs (job, due_at, worker, ended_at) "
        "SELECT 'job ' || n % 10, now() - n * interval '1 second', 'one', now() "
        "FROM generate_series(1, 100000) AS n"
    )
    database.execute("VACUUM ANALYZE job_runs")
    before = _rows_read(database)
    # Sessions that end tell what they have read.
    async with open_database(
        database_url, name="test", size=2, statement_timeout_seconds=30
    ) as opened:
        for _ in range(10):
            assert len(await JobRuns(opened).latest(3)) == 30
    await eventually(lambda: _rows_read(database) >= before + 300)

    assert _rows_read(database) < before + 10_000


async def test_only_the_latest_run_that_was_left_is_made_up_for(
    runs: JobRuns, database: psycopg.Connection
) -> None:
    """A run that a later one has overtaken is closed, with the reason."""
    later = RunKey("warm", NOON + timedelta(minutes=1))
    for key in (KEY, later, RunKey("keep", NOON)):
        await runs.claim(key, "one")
    database.execute(_SILENCE)

    assert await runs.abandoned() == [RunKey("keep", NOON), later]
    assert [run.error for run in await runs.latest(3) if run.ended_at] == [
        "left by a syncer that fell silent"
    ]


async def test_what_is_released_may_be_had_at_once(runs: JobRuns) -> None:
    """Any worker may take it; only its own worker can release it."""
    await runs.claim(KEY, "one")
    await runs.release(KEY, "two")
    assert not await runs.claim(KEY, "two")
    await runs.release(KEY, "one")

    assert await runs.abandoned() == [KEY]
    assert await runs.claim(KEY, "two")


def _rows_read(database: psycopg.Connection) -> int:
    row = database.execute(_READ).fetchone()
    assert row
    return int(row[0])
