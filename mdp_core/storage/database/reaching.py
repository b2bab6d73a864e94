"""The reasons why a database can't be reached or worked with, in words."""

import asyncio
import time

import psycopg
from psycopg import AsyncConnection
from psycopg.rows import TupleRow

from db.connecting import (
    CONNECT_SECONDS,
    NAME_THE_SERVER,
    READ_SERVER_STATE,
    ServerState,
    in_a_line,
)

_LOOK_SECONDS = 0.5
# Other clients of a pooler may take by chance the session that is looked for.
_LOOKS_AT_POOLER = 3
_POOLER_SHARES = f"a pooler gives each transaction another session: {NAME_THE_SERVER}"
_POOLER_IS_SHORT = f"a pooler has no second session to give: {NAME_THE_SERVER}"


async def connection_problem(
    conninfo: str, *, patience_seconds: float = 0.0, must_write: bool = True
) -> str | None:
    """Return in a line why services can't work with a connection; None if they can.

    Args:
        conninfo: Of `session_conninfo`, as the services have it.
        patience_seconds: How long to go on trying: the server may only be starting.
        must_write: Whether a database that only reads is of no use.
    """
    deadline = time.monotonic() + patience_seconds
    while True:
        try:
            return await _problem_once(conninfo, must_write=must_write)
        except psycopg.Error as error:
            problem = in_a_line(error)
            may_pass = isinstance(error, psycopg.OperationalError)
            if time.monotonic() >= deadline or not may_pass or NAME_THE_SERVER in problem:
                return problem
        await asyncio.sleep(_LOOK_SECONDS)


async def _problem_once(conninfo: str, *, must_write: bool) -> str | None:
    async with await AsyncConnection.connect(conninfo, autocommit=True) as connection:
        state = await _state_of(connection)
        # A pooler answers a new client itself, with a process that is not the server's.
        if state.process != connection.pgconn.backend_pid:
            try:
                async with asyncio.timeout(CONNECT_SECONDS):
                    if await _are_sessions_shared(connection, conninfo):
                        return _POOLER_SHARES
            except TimeoutError:
                return _POOLER_IS_SHORT
        return state.problem(must_write=must_write)


async def _are_sessions_shared(connection: AsyncConnection[TupleRow], conninfo: str) -> bool:
    """Tell whether two clients of a pooler at once get the same process of the server."""
    for _ in range(_LOOKS_AT_POOLER):
        first = (await _state_of(connection)).process
        async with await AsyncConnection.connect(conninfo) as other:  # in a transaction
            if (await _state_of(other)).process == first:
                return True
        if (await _state_of(connection)).process != first:
            return True
    return False


async def _state_of(connection: AsyncConnection[TupleRow]) -> ServerState:
    row = await (await connection.execute(READ_SERVER_STATE)).fetchone()
    assert row, "a select without from has one row"  # noqa: S101 - for the type checker
    return ServerState(*row)
