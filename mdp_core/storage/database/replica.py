"""Read from a replica where it knows enough, and from the primary where not.

A streaming replica shows a moment of the primary's past. One statement reads all that a caller has
to know of that moment, so coverage, version and rows are of one snapshot of one server; where that
is not enough, because a fill has not arrived there yet, the primary is asked the same.
"""

import asyncio
import logging
from collections.abc import AsyncGenerator, Callable, Coroutine, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any, LiteralString, TypeAlias, TypeVar

import psycopg

from mdp_core.errors import StoreUnavailable
from mdp_core.storage.database.array_loaders import register_array_loaders
from mdp_core.storage.database.database import Connection, Database

_log = logging.getLogger(__name__)

_Result = TypeVar("_Result")
Row: TypeAlias = tuple[Any, ...]

# How long a request tries the replica; then it asks the primary.
_PATIENCE_SECONDS = 3.0
# How often it is looked whether the replica answers, and is one still.
_LOOK_SECONDS = 2.0

# Which database of which server are these files, does that server follow another one, and since
# when does it run? To the microsecond, no two servers of the same files have begun together.
_IDENTITY: LiteralString = """
SELECT system_identifier, current_database(), pg_is_in_recovery(), pg_postmaster_start_time()
FROM pg_control_system()
"""


class ReplicaState(StrEnum):
    """The use of the replica: it is read, away, or none of this database."""

    USED = "used"
    AWAY = "away"
    FOREIGN = "foreign"


@dataclass(frozen=True, slots=True)
class Identity:
    """The identity of a server: files, database, whether it follows, its start."""

    system: int
    database: str
    is_in_recovery: bool
    started_at: datetime

    def may_answer_for(self, primary: "Identity") -> bool:
        """Tell whether this is a replica of the primary, or the primary itself.

        A replica that was promoted has the same files and goes its own way: it follows no server.
        """
        is_the_same = self.started_at == primary.started_at
        return (self.system, self.database) == (primary.system, primary.database) and (
            self.is_in_recovery or is_the_same
        )


async def read_identity(connection: Connection) -> Identity:
    """Ask a server who it is."""
    row = await (await connection.execute(_IDENTITY)).fetchone()
    assert row, "this function has one row"  # noqa: S101 - for the type checker
    return Identity(*row)


class ReadServers:
    """The primary, and a replica as long as it answers.

    Whether the replica answers, and follows the primary still, is looked at in the background: but
    for those that are with it when it goes, no request waits for one that has gone.
    """

    def __init__(self, primary: Database, replica: Database | None = None) -> None:
        self._primary = primary
        self._replica = replica
        self._state: ReplicaState | None = None
        self._primary_identity: Identity | None = None
        # What is given up goes on for a while: a server that stands still takes no cancellation.
        self._asking: set[asyncio.Task[Any]] = set()

    @property
    def state(self) -> ReplicaState | None:
        """The use of the replica; None if there is none."""
        if self._replica is None:
            return None
        return self._state or ReplicaState.AWAY

    @asynccontextmanager
    async def opened(self) -> AsyncGenerator[None]:
        """Watch the replica until the context is left; no statement goes on after that."""
        watching = [asyncio.create_task(self._watch(self._replica))] if self._replica else []
        try:
            yield
        finally:
            for task in (*watching, *self._asking):
                task.cancel()  # what was cancelled before then waits for the server no more
            await asyncio.gather(*watching, return_exceptions=True)
            await asyncio.gather(*self._asking, return_exceptions=True)

    async def fetch(
        self,
        query: LiteralString,
        params: Mapping[str, object],
        *,
        is_enough: Callable[[Sequence[Row]], bool],
    ) -> Sequence[Row]:
        """Read rows from the replica; where they can't be had or don't suffice, elsewhere.

        Args:
            query: One statement, which may be sent twice; arrays come as columns of numpy.
            params: Its parameters.
            is_enough: Whether rows out of the past will do.

        Raises:
            StoreUnavailable: The primary had to be asked and can't be had.
        """
        if self._replica and self._state is ReplicaState.USED:
            try:
                rows = await self._within_patience(_fetch(self._replica, query, params))
            except (StoreUnavailable, TimeoutError) as error:
                self._become(ReplicaState.AWAY, error)
            else:
                if is_enough(rows):
                    return rows
        return await _fetch(self._primary, query, params)

    async def _within_patience(self, asking: Coroutine[Any, Any, _Result]) -> _Result:
        """Wait for an answer for a while; then leave it to itself, to end when it can.

        Raises:
            TimeoutError: There was none.
        """
        task = asyncio.create_task(asking)
        self._asking.add(task)
        task.add_done_callback(self._forget)
        try:
            await asyncio.wait([task], timeout=_PATIENCE_SECONDS)
        finally:
            task.cancel()
        if not task.done():
            message = f"no answer within {_PATIENCE_SECONDS:g} s"
            raise TimeoutError(message)
        return task.result()

    def _forget(self, task: asyncio.Task[Any]) -> None:
        self._asking.discard(task)
        if not task.cancelled():
            task.exception()  # its caller still raises it

    async def _watch(self, replica: Database) -> None:
        while True:
            try:
                state, error = await self._look_at(replica), None
            except (StoreUnavailable, TimeoutError, psycopg.Error) as problem:
                # Whatever the server refuses, rights too: it may be mended while this runs.
                state, error = ReplicaState.AWAY, problem
            self._become(state, error)
            await asyncio.sleep(_LOOK_SECONDS)

    async def _look_at(self, replica: Database) -> ReplicaState:
        # Not with the pool: it would tell of every attempt, for as long as the replica is away.
        is_used = self._state is ReplicaState.USED
        if not is_used and (problem := await self._within_patience(replica.problem())):
            raise StoreUnavailable(problem)
        there = await self._within_patience(_identity_of(replica))
        try:
            here = await self._within_patience(_identity_of(self._primary))
        except (StoreUnavailable, TimeoutError):
            # Just then a replica is of use; and whose it is has been seen before.
            if self._primary_identity is None:
                raise
            here = self._primary_identity
        self._primary_identity = here
        return ReplicaState.USED if there.may_answer_for(here) else ReplicaState.FOREIGN

    def _become(self, state: ReplicaState, problem: Exception | None = None) -> None:
        if state is self._state:
            return
        self._state = state
        if state is ReplicaState.USED:
            _log.info("the replica is read")
        elif state is ReplicaState.AWAY:
            fields = {"problem": str(problem)}
            _log.warning("the replica can't be had: the primary is read until it can", extra=fields)
        else:
            _log.error("DATABASE_READ_URL names no replica of DATABASE_URL: it is not read")


async def _fetch(
    database: Database, query: LiteralString, params: Mapping[str, object]
) -> Sequence[Row]:
    async with database.connection() as connection:
        cursor = connection.cursor(binary=True)
        register_array_loaders(cursor)
        await cursor.execute(query, params)
        return await cursor.fetchall()


async def _identity_of(database: Database) -> Identity:
    async with database.connection() as connection:
        return await read_identity(connection)
