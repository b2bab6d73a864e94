"""The connection pool, for psycopg and SQLAlchemy, and its errors.

SQLAlchemy itself is loaded by the catalog alone: it takes longer than a short command.
"""

import asyncio
import time
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from typing import LiteralString, TypeAlias

import psycopg
from psycopg import AsyncConnection
from psycopg.rows import TupleRow
from psycopg_pool import AsyncConnectionPool, PoolTimeout

from db.connecting import session_conninfo
from mdp_core.errors import SchemaMissing, StoreUnavailable
from mdp_core.storage.database.reaching import connection_problem

Connection: TypeAlias = AsyncConnection[TupleRow]

# How long a request may wait for a connection before it is told to come back.
_POOL_TIMEOUT_SECONDS = 5.0

# How long a process that starts waits for a database that starts too.
_START_SECONDS = 10.0

# How long the pool goes on trying by itself: its pauses grow, and a server that has come back must
# not wait for the end of one. After it every request that needs a connection has one tried.
_RECONNECT_SECONDS = 1.0

# A connection that was of use so lately is taken to be alive: looking costs a round trip.
_SURELY_ALIVE_SECONDS = 1.0

# What a caller can't mend and need not see in detail; anything else is a mistake of ours. A server
# that only reads is one that was a primary a moment ago, or will be.
_PASSING = (
    psycopg.OperationalError,
    psycopg.InterfaceError,
    psycopg.errors.ReadOnlySqlTransaction,
    PoolTimeout,
)


class _PooledConnection(AsyncConnection[TupleRow]):
    """Remembers when it was last given back."""

    returned_at = 0.0


Pool: TypeAlias = AsyncConnectionPool[_PooledConnection]


class Database:
    """Hands out connections of one pool, for as short a time as the caller needs them."""

    def __init__(self, pool: Pool, conninfo: str) -> None:
        self._pool = pool
        self._conninfo = conninfo

    @asynccontextmanager
    async def connection(self) -> AsyncGenerator[Connection]:
        """Give a psycopg connection on which every statement is a transaction of its own.

        Raises:
            StoreUnavailable: No connection can be had, it was lost, or a statement took too long.
        """
        with translate_driver_errors():
            async with self._pool.connection() as connection:
                yield connection

    @asynccontextmanager
    async def transaction(self) -> AsyncGenerator[Connection]:
        """Give a psycopg connection inside one transaction that commits on leaving it.

        Raises:
            StoreUnavailable: As `connection`.
        """
        async with self.connection() as connection, connection.transaction():
            yield connection

    def pool_stats(self) -> Mapping[str, int]:
        """Return the pool's counters, by the names that psycopg gives them."""
        return self._pool.get_stats()

    async def problem(self) -> str | None:
        """Return why a connection that reads fails, outside the pool; None if it succeeds."""
        return await connection_problem(self._conninfo, must_write=False)

    def dedicated(self) -> "DedicatedConnection":
        """Give a connection outside the pool, not open yet, for what belongs to a session."""
        return DedicatedConnection(self._conninfo)

    async def lend(self) -> Connection:
        """Return a connection for SQLAlchemy, which ends its transactions and closes it."""
        connection = await self._pool.getconn()
        try:
            await connection.set_autocommit(False)
        except BaseException:
            await self._pool.putconn(connection)
            raise
        return connection


class DedicatedConnection:
    """One connection that is opened when it is needed, and again after it was lost."""

    def __init__(self, conninfo: str) -> None:
        self._conninfo = conninfo
        self._connection: Connection | None = None
        self._using = asyncio.Lock()
        self.session = 0
        """Rises when the connection is opened: what an older session held is gone."""

    async def fetch(self, query: LiteralString, values: Mapping[str, object]) -> list[TupleRow]:
        """Run a statement, a transaction of its own, and give its rows.

        Raises:
            StoreUnavailable: It could not be run; the session is gone, and all that it held.
        """
        async with self._using:
            try:
                with translate_driver_errors():
                    if self._connection is None:
                        self._connection = await AsyncConnection.connect(
                            self._conninfo, autocommit=True
                        )
                        self.session += 1
                    return await (await self._connection.execute(query, values)).fetchall()
            except BaseException:
                await self._drop()
                raise

    async def close(self) -> None:
        """End the session."""
        async with self._using:
            await self._drop()

    async def _drop(self) -> None:
        connection, self._connection = self._connection, None
        if connection:
            await connection.close()


class translate_driver_errors:  # noqa: N801 - reads as a statement
    """Context that turns passing driver errors into `StoreUnavailable`."""

    def __enter__(self) -> None:
        """Do nothing: what counts is how it ends."""

    def __exit__(self, _: object, error: BaseException | None, __: object) -> None:
        """Raise a passing error as ours; let any other be."""
        origin = getattr(error, "orig", None) or error
        if isinstance(origin, _PASSING):
            raise StoreUnavailable(type(origin).__name__) from error
        if isinstance(origin, psycopg.errors.UndefinedTable):
            raise SchemaMissing from error


@asynccontextmanager
async def open_database(
    url: str,
    *,
    name: str,
    size: int,
    statement_timeout_seconds: float,
    must_write: bool = True,
) -> AsyncGenerator[Database]:
    """Open the pool and prove that the database answers and can be worked with.

    Args:
        url: A `postgresql://` URL.
        name: The process, as `pg_stat_activity` shows it.
        size: Connections at the most.
        statement_timeout_seconds: How long one statement may take.
        must_write: Whether a database that only reads is of no use.

    Raises:
        StoreUnavailable: The database does not answer, or can't be worked with.
    """
    conninfo = session_conninfo(url, name=name, statement_timeout_seconds=statement_timeout_seconds)
    problem = await connection_problem(
        conninfo, patience_seconds=_START_SECONDS, must_write=must_write
    )
    if problem:
        raise StoreUnavailable(problem)
    pool = _pool(conninfo, name, size)
    with translate_driver_errors():
        async with pool:
            await pool.wait(timeout=_POOL_TIMEOUT_SECONDS)
            yield Database(pool, conninfo)


@asynccontextmanager
async def open_replica(
    url: str, *, name: str, size: int, statement_timeout_seconds: float
) -> AsyncGenerator[Database]:
    """Do the same for a database that may be out of reach, now and at any time."""
    conninfo = session_conninfo(url, name=name, statement_timeout_seconds=statement_timeout_seconds)
    pool = _pool(conninfo, name, size)
    async with pool:
        yield Database(pool, conninfo)


def _pool(conninfo: str, name: str, size: int) -> Pool:
    """Make a pool that is not open yet."""
    return AsyncConnectionPool(
        conninfo,
        connection_class=_PooledConnection,
        kwargs={"autocommit": True},
        min_size=1,
        max_size=size,
        timeout=_POOL_TIMEOUT_SECONDS,
        reconnect_timeout=_RECONNECT_SECONDS,
        check=_check_if_idle,
        reset=_reset,
        close_returns=True,
        name=name,
        open=False,
    )


async def _reset(connection: _PooledConnection) -> None:
    connection.returned_at = time.monotonic()
    await connection.set_autocommit(True)


async def _check_if_idle(connection: _PooledConnection) -> None:
    if time.monotonic() > connection.returned_at + _SURELY_ALIVE_SECONDS:
        await AsyncConnectionPool.check_connection(connection)


def storable(text: str) -> str:
    """Return a text without the characters that Postgres can't store."""
    return text.replace("\0", "\N{REPLACEMENT CHARACTER}")
