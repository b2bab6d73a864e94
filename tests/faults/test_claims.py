"""Claims on pages: all of a run or none, and none is left behind."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing

import psycopg
import pytest
from support.waiting import eventually

from mdp_core.storage.candles.claims import Claims
from mdp_core.wiring import Services

pytestmark = pytest.mark.every_kind_of_database

_HELD = """
SELECT count(*) FROM pg_locks JOIN pg_database ON pg_database.oid = database
WHERE locktype = 'advisory' AND granted AND classid = 7 AND datname = current_database()
"""
_CUT = """
SELECT pg_terminate_backend(pid) FROM pg_locks JOIN pg_database ON pg_database.oid = database
WHERE locktype = 'advisory' AND granted AND classid = 7 AND datname = current_database()
"""


@pytest.fixture
async def one(services: Services) -> AsyncGenerator[Claims]:
    """A process."""
    async with aclosing(Claims(services.database)) as claims:
        yield claims


@pytest.fixture
async def other(services: Services) -> AsyncGenerator[Claims]:
    """Another one."""
    async with aclosing(Claims(services.database)) as claims:
        yield claims


async def test_run_is_claimed_whole_or_not_at_all(
    one: Claims, other: Claims, database: psycopg.Connection
) -> None:
    """A claim on only some pages of a run is released."""
    async with one.claim(7, [2]) as first, other.claim(7, [1, 2, 3]) as second:
        assert (first, second) == (True, False)
        await eventually(lambda: _held(database) == 1)
        async with one.claim(7, [1]) as third:
            assert third


async def test_claims_that_come_together_are_told_apart(one: Claims, other: Claims) -> None:
    """Of fifty that are made at once each knows whether it is its own."""
    async with other.claim(7, [3]), other.claim(7, [40]):

        async def claim(page: int) -> bool:
            async with one.claim(7, [page]) as is_ours:
                return is_ours

        ours = await asyncio.gather(*map(claim, range(50)))
    assert [page for page, is_ours in enumerate(ours) if not is_ours] == [3, 40]


@pytest.mark.parametrize("pause_seconds", [0.0, 0.0005, 0.002, 0.005, 0.02])
async def test_claimer_that_leaves_takes_its_claims_with_it(
    one: Claims, database: psycopg.Connection, pause_seconds: float
) -> None:
    """Cancelled before, while or after the database answers: nothing stays claimed."""

    async def claim(page: int) -> None:
        async with one.claim(7, [page]):
            await asyncio.Event().wait()

    async with one.claim(8, [1]):
        claiming = [asyncio.create_task(claim(page)) for page in range(20)]
        await asyncio.sleep(pause_seconds)
        for task in claiming:
            task.cancel()
        await asyncio.gather(*claiming, return_exceptions=True)
        await eventually(lambda: _held(database) == 0)


async def test_lost_session_costs_the_claims_and_nothing_else(
    one: Claims, other: Claims, database: psycopg.Connection
) -> None:
    """Claims of a lost session are dropped; the next session releases none of them."""
    async with one.claim(7, [1]) as is_ours:
        database.execute(_CUT)
        async with one.claim(7, [2]) as unsure:  # the first use of the lost session
            assert unsure
        async with one.claim(7, [3]), one.claim(7, [1]) as again:
            assert again
    assert is_ours
    await eventually(lambda: _held(database) == 0)
    async with other.claim(7, [1, 2, 3]) as free:
        assert free


def _held(database: psycopg.Connection) -> int:
    row = database.execute(_HELD).fetchone()
    assert row
    return int(row[0])
