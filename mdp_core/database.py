"""The one pool of connections, for psycopg and SQLAlchemy, and the translation of its errors."""

import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import TypeAlias

import psycopg
from psycopg import AsyncConnection
from psycopg.rows import TupleRow
from psycopg_pool import AsyncConnectionPool, PoolTimeout
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection as CatalogConnection
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from sqlalchemy.pool import NullPool

from mdp_core.errors import StoreUnavailable

Connection: TypeAlias = AsyncConnection[TupleRow]

# How long a request may wait for a connection before it is told to come back.
_POOL_TIMEOUT_SECONDS = 5.0

# A connection that was of use so lately is taken to be alive: looking costs a round trip.
_SURELY_ALIVE_SECONDS = 1.0

# What a caller can't mend and need not see in detail; anything else is a mistake of ours.
_PASSING = (psycopg.OperationalError, psycopg.InterfaceError, PoolTimeout)


class _PooledConnection(AsyncConnection[TupleRow]):
    """Remembers when it was last given back."""

    returned_at = 0.0


Pool: TypeAlias = AsyncConnectionPool[_PooledConnection]


class Database:
    """Hands out connections of one pool, for as short a time as the caller needs them."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self._engine: AsyncEngine = create_async_engine(
            "postgresql+psycopg://", poolclass=NullPool, async_creator=self._catalog_connection
        )

    @asynccontextmanager
    async def connection(self) -> AsyncGenerator[Connection]:
        """Give a psycopg connection on which every statement is a transaction of its own.

        Raises:
            StoreUnavailable: No connection can be had, it was lost, or a statement took too long.
        """
        with _translated():
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

    @asynccontextmanager
    async def catalog(self) -> AsyncGenerator[CatalogConnection]:
        """Give the same as a SQLAlchemy connection.

        Raises:
            StoreUnavailable: As `connection`.
        """
        with _translated():
            async with self._engine.begin() as connection:
                yield connection

    async def _catalog_connection(self) -> Connection:
        connection = await self._pool.getconn()
        await connection.set_autocommit(False)  # SQLAlchemy ends its transactions itself
        return connection


class _translated:  # noqa: N801 - reads as a statement
    """Turn passing driver errors into `StoreUnavailable`, keeping the cause."""

    def __enter__(self) -> None:
        pass

    def __exit__(self, _: object, error: BaseException | None, __: object) -> None:
        if isinstance(error, DBAPIError) and isinstance(error.orig, _PASSING):
            raise StoreUnavailable(type(error.orig).__name__) from error
        if isinstance(error, _PASSING):
            raise StoreUnavailable(type(error).__name__) from error


@asynccontextmanager
async def open_database(
    url: str, *, name: str, size: int, statement_timeout_seconds: float
) -> AsyncGenerator[Database]:
    """Open the pool and prove that the database answers.

    Args:
        url: A `postgresql://` URL.
        name: The process, as `pg_stat_activity` shows it.
        size: Connections at the most.
        statement_timeout_seconds: How long one statement may take.

    Raises:
        StoreUnavailable: The database does not answer.
    """
    milliseconds = round(statement_timeout_seconds * 1000)
    pool: Pool = AsyncConnectionPool(
        url,
        connection_class=_PooledConnection,
        kwargs={
            "application_name": name,
            "autocommit": True,
            "options": f"-c timezone=UTC -c statement_timeout={milliseconds}",
            "connect_timeout": 5,
        },
        min_size=1,
        max_size=size,
        timeout=_POOL_TIMEOUT_SECONDS,
        check=_check_if_idle,
        reset=_reset,
        close_returns=True,
        name=name,
        open=False,
    )
    with _translated():
        async with pool:
            await pool.wait(timeout=_POOL_TIMEOUT_SECONDS * 2)
            yield Database(pool)


async def _reset(connection: _PooledConnection) -> None:
    connection.returned_at = time.monotonic()
    await connection.set_autocommit(True)


async def _check_if_idle(connection: _PooledConnection) -> None:
    if time.monotonic() > connection.returned_at + _SURELY_ALIVE_SECONDS:
        await AsyncConnectionPool.check_connection(connection)
