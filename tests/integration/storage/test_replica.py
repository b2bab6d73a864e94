"""A real streaming replica: it answers if it knows enough, and may go at any time.

Where it matters which server has answered, the other one can't: the primary's candles are locked
while replay on the replica is paused, so that the lock is not taken there.
"""

import asyncio
import logging
from collections.abc import AsyncGenerator, Generator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass

import httpx
import psycopg
import pytest
from support.backups import SecondServer, base_backup, documented_commands, running
from support.http import connected
from support.postgres import Server
from support.sandbox import Sandbox
from support.services import app_of, opened_services, token_of
from support.stored_candles import RAISE_EPOCH
from support.waiting import eventually

from db.local.cluster import Cluster
from db.roles import SERVICE
from mdp_core.settings import Settings
from mdp_core.storage.database.database import open_database, open_replica
from mdp_core.storage.database.replica import ReadServers, ReplicaState
from scripts.cli.check import remarks

_PATH = "/candles/binance/perp/BTC-USDT/1h"
_OLD = {"start": "2024-05-01", "end": "2024-06-01"}
_NEW = {"start": "2024-07-01", "end": "2024-08-01"}
_TWO_LOOKS_SECONDS = 5
_REPLAYED = "SELECT pg_last_wal_replay_lsn() >= %s::pg_lsn"


@pytest.fixture(scope="module")
def backup(server: Server) -> Generator[Cluster]:
    _, commands = documented_commands("A replica for reading")
    with _everything_kept(server), base_backup(server, commands) as cluster:
        yield cluster


@contextmanager
def _everything_kept(server: Server) -> Generator[None]:
    """Have the primary keep its log for a replica that does not run during some tests."""
    url = f"{server.url.rpartition('/')[0]}/postgres"
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("ALTER SYSTEM SET wal_keep_size = '4GB'")
        connection.execute("SELECT pg_reload_conf()")
        try:
            yield
        finally:
            connection.execute("ALTER SYSTEM RESET wal_keep_size")
            connection.execute("SELECT pg_reload_conf()")


@pytest.fixture
def replica(backup: Cluster, server: Server) -> Generator[SecondServer]:
    with running(backup, server) as opened:
        yield opened


@dataclass(frozen=True, slots=True)
class Pair:
    """A service that reads from a replica, and a look into both servers."""

    client: httpx.AsyncClient
    primary: psycopg.Connection
    replica: psycopg.Connection

    async def fill(self, window: dict[str, str]) -> httpx.Response:
        """Ask for a series that is not stored yet."""
        answer = await self.client.get(_PATH, params=window)
        assert (answer.status_code, answer.headers["X-Cache"]) == (200, "miss")
        return answer

    async def caught_up(self) -> None:
        """Wait until the replica has all that the primary has, flushed there or not."""
        await _replayed(self.primary, self.replica)

    @contextmanager
    def paused(self) -> Generator[None]:
        """Have the replica stand still."""
        self.replica.execute("SELECT pg_wal_replay_pause()")
        try:
            yield
        finally:
            self.replica.execute("SELECT pg_wal_replay_resume()")

    @contextmanager
    def primary_locked(self) -> Generator[None]:
        """Lock candles on the primary; the replica, standing still, has no lock."""
        with self.paused(), self.primary.transaction():
            self.primary.execute("LOCK TABLE candles IN ACCESS EXCLUSIVE MODE")
            yield


@asynccontextmanager
async def _serving(settings: Settings, sandbox: Sandbox) -> AsyncGenerator[httpx.AsyncClient]:
    """Serve, with statements that give up early: waiting for the primary's lock shows."""
    impatient = settings.model_copy(update={"statement_timeout_seconds": 5.0})
    async with (
        opened_services(impatient, sandbox) as services,
        connected(app_of(services), token_of(settings)) as client,
    ):
        yield client


def _with_replica(settings: Settings, replica: SecondServer) -> Settings:
    url = replica.url(settings.database_url)
    return settings.model_copy(update={"database_read_url": url})


@pytest.fixture
async def pair(
    settings: Settings, sandbox: Sandbox, database: psycopg.Connection, replica: SecondServer
) -> AsyncGenerator[Pair]:
    """Services whose replica answers."""
    both = _with_replica(settings, replica)
    await eventually(lambda: _answers(both.database_read_url))
    with psycopg.connect(both.database_read_url or "", autocommit=True) as there:
        async with _serving(both, sandbox) as client:
            await _is_told(client, "used")
            yield Pair(client, database, there)


@pytest.mark.every_kind_of_database
async def test_hit_is_read_from_the_replica(pair: Pair) -> None:
    """While the primary's candles are unreadable the same bytes come."""
    miss = await pair.fill(_OLD)
    await pair.caught_up()
    with pair.primary_locked():
        hit = await pair.client.get(_PATH, params=_OLD)
        newest = await pair.client.get(_PATH, params={"limit": 5, "end": _OLD["end"]})

    assert (hit.status_code, hit.headers["X-Cache"]) == (200, "hit")
    assert hit.content == miss.content
    assert (newest.status_code, newest.json()["candles"]) == (200, miss.json()["candles"][-5:])


async def test_fresh_fill_is_seen_at_once(pair: Pair) -> None:
    """Rows and series that the replica lacks come from the primary."""
    with pair.paused():
        miss = await pair.fill(_OLD)
        hit = await pair.client.get(_PATH, params=_OLD)

    assert miss.json()["count"] == 31 * 24
    assert (hit.headers["X-Cache"], hit.content) == ("hit", miss.content)


async def test_request_is_complete_while_the_replica_stands_still(pair: Pair) -> None:
    """A window that it knows half of is whole, and is as if there were no replica."""
    await pair.fill(_OLD)
    await pair.caught_up()
    with pair.paused():
        await pair.fill(_NEW)
        both = {"start": _OLD["start"], "end": _NEW["end"]}
        first = await pair.client.get(_PATH, params=both)
        second = await pair.client.get(_PATH, params=both)

    assert first.json()["complete"] is True
    assert first.json()["count"] == second.json()["count"] == (31 + 30 + 31) * 24
    assert second.headers["X-Cache"] == "hit"


async def test_repair_is_never_mixed_with_what_was_before(pair: Pair) -> None:
    """The epoch of an answer is that of its rows, whichever server they are from."""
    old = await pair.fill(_OLD)
    await pair.caught_up()
    with pair.paused():
        pair.primary.execute("UPDATE candles SET close = high")
        pair.primary.execute(RAISE_EPOCH)
        before = await pair.client.get(_PATH, params=_OLD)
    await pair.caught_up()
    after = await pair.client.get(_PATH, params=_OLD)

    closes = [row[4] for row in after.json()["candles"]]
    assert before.content == old.content
    assert closes == [row[2] for row in after.json()["candles"]]
    assert before.headers["ETag"] != after.headers["ETag"]


async def test_what_a_process_has_seen_repaired_it_never_takes_back(pair: Pair) -> None:
    """A replica that stands still is not asked about a series repaired elsewhere."""
    await pair.fill(_OLD)
    await pair.caught_up()
    with pair.paused():
        pair.primary.execute("UPDATE candles SET close = high")
        pair.primary.execute(RAISE_EPOCH)
        await pair.fill(_NEW)  # which the replica lacks: the primary says it, and its epoch
        again = await pair.client.get(_PATH, params=_OLD)

    closes = [row[4] for row in again.json()["candles"]]
    assert closes == [row[2] for row in again.json()["candles"]]


async def test_replica_that_comes_late_and_goes_costs_no_request(
    settings: Settings, sandbox: Sandbox, database: psycopg.Connection, backup: Cluster,
    server: Server,
) -> None:  # fmt: skip
    """Not there at first, then used, then stopped amid requests: all are answered."""
    with running(backup, server) as replica:
        both = _with_replica(settings, replica)
    answers: list[httpx.Response] = []
    async with _serving(both, sandbox) as client:
        answers.append(await client.get(_PATH, params=_OLD))
        with running(backup, server, replica.port):
            await _is_told(client, "used")
            asking = asyncio.create_task(_ask_for_a_while(client, 60))
            await asyncio.sleep(0.2)
        answers += await asking
        answers += await _ask_for_a_while(client, 20)

    assert {answer.status_code for answer in answers} == {200}
    assert len({answer.content for answer in answers}) == 1
    del database


async def test_replica_that_freezes_costs_a_moment_and_no_answer(
    settings: Settings, sandbox: Sandbox, database: psycopg.Connection, replica: SecondServer
) -> None:
    """A request at a frozen replica waits 3 s; later ones don't wait."""
    both = _with_replica(settings, replica)
    async with _serving(both, sandbox) as client:
        miss = await client.get(_PATH, params=_OLD)
        await _is_told(client, "used")
        with replica.frozen(settings.database_url):
            first = await client.get(_PATH, params=_OLD)
            second = await client.get(_PATH, params=_OLD)
            await _is_told(client, "away")
        await _is_told(client, "used")

    assert first.content == second.content == miss.content
    del database


async def test_nothing_is_left_of_a_replica_that_stands_still(
    settings: Settings, replica: SecondServer
) -> None:
    """A process that ends meanwhile cancels its queries: none goes on by itself."""
    url = settings.database_url
    other = replica.url(url)
    async with (
        open_database(url, name="test", size=4, statement_timeout_seconds=30) as here,
        open_replica(other, name="test", size=4, statement_timeout_seconds=30) as there,
        AsyncExitStack() as stack,
    ):
        servers = ReadServers(here, there)
        await stack.enter_async_context(servers.opened())
        await eventually(lambda: servers.state is ReplicaState.USED)
        with replica.frozen(url):
            await eventually(lambda: servers.state is ReplicaState.AWAY)
            await stack.aclose()
            left = [task for task in asyncio.all_tasks() if "replica.py" in repr(task)]

    assert [task for task in left if "test_replica.py" not in repr(task)] == []


async def test_promoted_replica_is_not_read(
    settings: Settings, sandbox: Sandbox, database: psycopg.Connection, server: Server,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """Same files, no news: a repair is seen; `mdp check` says it."""
    _, commands = documented_commands("A replica for reading")
    with base_backup(server, commands) as cluster, running(cluster, server) as promoted:
        both = _with_replica(settings, promoted)
        monkeypatch.setenv("DATABASE_URL", settings.database_url)
        monkeypatch.setenv("DATABASE_READ_URL", both.database_read_url or "")
        async with _serving(both, sandbox) as client:
            old = await client.get(_PATH, params=_OLD)
            await _is_told(client, "used")
            (follows,) = await asyncio.to_thread(_remarks)
            with psycopg.connect(both.database_read_url or "", autocommit=True) as there:
                await _replayed(database, there)
                there.execute("SELECT pg_promote()")
            await _is_told(client, "foreign")
            (strays,) = await asyncio.to_thread(_remarks)
            database.execute("UPDATE candles SET close = high")
            database.execute(RAISE_EPOCH)
            new = await client.get(_PATH, params=_OLD)

    closes = [row[4] for row in new.json()["candles"]]
    assert closes == [row[2] for row in new.json()["candles"]]
    assert new.headers["ETag"] != old.headers["ETag"]
    assert follows == "ok replica: follows the primary"
    assert strays.startswith("WRONG DATABASE_READ_URL: names no replica")


async def test_the_primary_may_be_named_twice(
    settings: Settings, sandbox: Sandbox, caplog: pytest.LogCaptureFixture
) -> None:
    """An address leading to a replica, or without one to the primary, is of use."""
    twice = settings.model_copy(update={"database_read_url": settings.database_url})
    with caplog.at_level(logging.INFO, "mdp_core.storage.database.replica"):
        async with _serving(twice, sandbox) as client:
            await _is_told(client, "used")
            answer = await client.get(_PATH, params=_OLD)

    assert answer.status_code == 200
    assert _told(caplog) == [("INFO", "the replica is read")]


def _told(caplog: pytest.LogCaptureFixture) -> list[tuple[str, str]]:
    """Give the lines about the replica: other tests may have made loggers say more."""
    return [
        (record.levelname, record.getMessage())
        for record in caplog.records
        if record.name == "mdp_core.storage.database.replica"
    ]


async def test_what_becomes_of_the_replica_is_told_once(
    settings: Settings, sandbox: Sandbox, server: Server, backup: Cluster,
    caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    """A line when it is unavailable, one when it is read; health tells it any time."""
    with running(backup, server) as replica:
        both = _with_replica(settings, replica)
    with caplog.at_level(logging.INFO, "mdp_core.storage.database.replica"):
        async with _serving(both, sandbox) as client:
            await _is_told(client, "away")
            await asyncio.sleep(_TWO_LOOKS_SECONDS)  # a second line would be told by then
            with running(backup, server, replica.port):
                await _is_told(client, "used")

    assert _told(caplog) == [
        ("WARNING", "the replica can't be had: the primary is read until it can"),
        ("INFO", "the replica is read"),
    ]


async def test_replica_that_does_not_say_who_it_is_may_do_so_later(
    settings: Settings, sandbox: Sandbox, logins: dict[str, str], database: psycopg.Connection,
    caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    """A right that is lacking is told; once it is granted nothing has to be restarted."""
    function = "ON FUNCTION pg_catalog.pg_control_system()"
    database.execute(f"REVOKE EXECUTE {function} FROM PUBLIC".encode())
    url = logins[SERVICE]
    mine = settings.model_copy(update={"database_url": url, "database_read_url": url})
    async with _serving(mine, sandbox) as client:
        await eventually(lambda: bool(_told(caplog)))
        answer = await client.get(_PATH, params=_OLD)
        database.execute(f"GRANT EXECUTE {function} TO PUBLIC".encode())
        await _is_told(client, "used")

    (warning,) = [
        record
        for record in caplog.records
        if record.name == "mdp_core.storage.database.replica" and record.levelno == logging.WARNING
    ]
    assert "pg_control_system" in warning.__dict__["problem"]
    assert answer.status_code == 200


async def test_without_a_replica_none_is_told(settings: Settings, sandbox: Sandbox) -> None:
    """Null, so that it is not taken for one that is away."""
    async with _serving(settings, sandbox) as client:
        await _is_told(client, None)


async def test_a_database_that_is_no_replica_is_not_read(
    settings: Settings,
    sandbox: Sandbox,
    server: Server,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Its series have other candles: a logged error, and answers of the primary."""
    with (
        server.clone() as other,
        caplog.at_level(logging.ERROR, "mdp_core.storage.database.replica"),
    ):
        mistaken = settings.model_copy(update={"database_read_url": other})
        async with _serving(mistaken, sandbox) as client:
            await _is_told(client, "foreign")
            answer = await client.get(_PATH, params=_OLD)

    assert answer.status_code == 200
    assert "no replica" in caplog.text


def _remarks() -> list[str]:
    """Give what `mdp check` says of the replica."""
    return [f"{remark.verdict} {remark.text}" for remark in remarks()]


async def _ask_for_a_while(client: httpx.AsyncClient, times: int) -> list[httpx.Response]:
    answers: list[httpx.Response] = []
    for _ in range(times):
        answers += await asyncio.gather(*(client.get(_PATH, params=_OLD) for _ in range(4)))
        await asyncio.sleep(0.01)
    return answers


async def _is_told(client: httpx.AsyncClient, expected: str | None) -> None:
    """Wait until health tells this of the replica."""
    while (await client.get("/health")).json()["database"]["replica"] != expected:  # noqa: ASYNC110 - no event signals it
        await asyncio.sleep(0.05)


async def _replayed(primary: psycopg.Connection, replica: psycopg.Connection) -> None:
    """Wait until the replica has all that the primary has, flushed there or not."""
    written = primary.execute("SELECT pg_current_wal_insert_lsn()::text").fetchone()
    assert written
    await eventually(lambda: replica.execute(_REPLAYED, written).fetchone() == (True,))


def _answers(url: str | None) -> bool:
    """Tell whether the database has arrived at the replica."""
    try:
        psycopg.connect(url or "").close()
    except psycopg.OperationalError:
        return False
    return True
