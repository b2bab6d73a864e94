"""Reading from a replica where it knows enough, and from the primary where it doesn't.

A streaming replica shows a moment of the primary's past. Whoever reads says in one statement what
it has to know of that moment, so coverage, epoch and rows are of one snapshot of one server; where
that is not enough, because a fill has not arrived there yet, the primary is asked the same.
"""

import asyncio
import logging
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import LiteralString, TypeVar

from psycopg.rows import TupleRow

from mdp_core.database import Connection, Database
from mdp_core.errors import StoreUnavailable

_log = logging.getLogger(__name__)

_Said = TypeVar("_Said")

# How long a request tries the replica; then it asks the primary.
_PATIENCE_SECONDS = 3.0
# How long nobody tries a replica that did not answer.
_REST_SECONDS = 2.0

# Which database of which server are these files? A replica has the primary's.
_IDENTITY: LiteralString = "SELECT system_identifier, current_database() FROM pg_control_system()"


class ReadServers:
    """The primary, and a replica as long as it answers.

    Whether the replica answers is found out in the background: but for those that are with it when
    it goes, no request waits for one that has gone.
    """

    def __init__(self, primary: Database, replica: Database | None = None) -> None:
        self._primary = primary
        self._replica = replica
        self._probing: asyncio.Task[None] | None = None
        self.uses_replica = False
        """Whether the replica is asked first."""

    @asynccontextmanager
    async def opened(self) -> AsyncGenerator[None]:
        """Begin to look after the replica, until the context is left."""
        self._probe()
        try:
            yield
        finally:
            if self._probing:
                self._probing.cancel()
                await asyncio.wait([self._probing])

    async def ask(
        self,
        question: Callable[[Connection], Awaitable[_Said]],
        *,
        is_enough: Callable[[_Said], bool],
    ) -> _Said:
        """Ask the replica; where it has gone, or what it says is not enough, ask the primary.

        Args:
            question: One statement, or statements that need not be of one snapshot; may be asked
                twice.
            is_enough: Whether an answer out of the past will do.

        Raises:
            StoreUnavailable: The primary had to be asked and can't be had.
        """
        if self.uses_replica and self._replica:
            try:
                async with asyncio.timeout(_PATIENCE_SECONDS), self._replica.connection() as there:
                    said = await question(there)
            except (StoreUnavailable, TimeoutError):
                self._give_up()
            else:
                if is_enough(said):
                    return said
        async with self._primary.connection() as here:
            return await question(here)

    def _give_up(self) -> None:
        if self.uses_replica:
            _log.warning("the replica does not answer: the primary is read until it does")
            self._probe()

    def _probe(self) -> None:
        self.uses_replica = False
        if self._replica:
            self._probing = asyncio.create_task(self._wait_for(self._replica))

    async def _wait_for(self, replica: Database) -> None:
        """Use the replica as soon as it answers; never, if it is one of another database."""
        while True:
            try:
                async with asyncio.timeout(_PATIENCE_SECONDS):
                    there, here = await _identity(replica), await _identity(self._primary)
            except (StoreUnavailable, TimeoutError):
                await asyncio.sleep(_REST_SECONDS)
                continue
            if there != here:
                _log.error("DATABASE_READ_URL names no replica of DATABASE_URL: it is not used")
                return
            self.uses_replica = True
            return


async def _identity(database: Database) -> TupleRow | None:
    async with database.connection() as connection:
        return await (await connection.execute(_IDENTITY)).fetchone()
