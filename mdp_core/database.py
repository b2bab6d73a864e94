"""The one pool of connections, for psycopg and SQLAlchemy, and the translation of its errors."""

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
Pool: TypeAlias = AsyncConnectionPool[Connection]

# How long a request may wait for a connection before it is told to come back.
_POOL_TIMEOUT_SECONDS = 5.0

# What a caller can't mend and need not see in detail; anything else is a mistake of ours.
_PASSING = (psycopg.OperationalError, psycopg.InterfaceError, PoolTimeout)


class Database:
    """Hands out connections; each method gives one transaction that commits on leaving it."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self._engine: AsyncEngine = create_async_engine(
            "postgresql+psycopg://", poolclass=NullPool, async_creator=pool.getconn
        )

    @asynccontextmanager
    async def transaction(self) -> AsyncGenerator[Connection]:
        """Give a psycopg connection inside a transaction.

        Raises:
            StoreUnavailable: No connection can be had, it was lost, or a statement took too long.
        """
        with _translated():
            async with self._pool.connection() as connection:
                yield connection

    @asynccontextmanager
    async def catalog(self) -> AsyncGenerator[CatalogConnection]:
        """Give the same as a SQLAlchemy connection.

        Raises:
            StoreUnavailable: As `transaction`.
        """
        with _translated():
            async with self._engine.begin() as connection:
                yield connection


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
        connection_class=AsyncConnection[TupleRow],
        kwargs={
            "application_name": name,
            "options": f"-c timezone=UTC -c statement_timeout={milliseconds}",
            "connect_timeout": 5,
        },
        min_size=1,
        max_size=size,
        timeout=_POOL_TIMEOUT_SECONDS,
        check=AsyncConnectionPool.check_connection,
        close_returns=True,
        name=name,
        open=False,
    )
    with _translated():
        async with pool:
            await pool.wait(timeout=_POOL_TIMEOUT_SECONDS * 2)
            yield Database(pool)
