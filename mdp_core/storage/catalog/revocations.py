"""Tokens that were revoked, known to each process within seconds."""

import asyncio
import logging
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress
from typing import LiteralString

from mdp_core.errors import MdpError
from mdp_core.storage.database.database import Database, storable

_log = logging.getLogger(__name__)

_REVOKE: LiteralString = """
INSERT INTO revoked_tokens (jti) VALUES (%(jti)s) ON CONFLICT DO NOTHING RETURNING true
"""

_REVOKED: LiteralString = "SELECT jti FROM revoked_tokens"

# A revocation is to be known everywhere within ten seconds.
_LOOK_SECONDS = 3.0


class Revocations:
    """The ids of revoked tokens, as the database had them seconds ago."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._known: frozenset[str] = frozenset()

    def __contains__(self, token_id: object) -> bool:
        """Return whether the token of that id was revoked."""
        return token_id in self._known

    async def revoke(self, token_id: str) -> bool:
        """Revoke a token; return whether it was not revoked before."""
        async with self._database.connection() as connection:
            cursor = await connection.execute(_REVOKE, {"jti": storable(token_id)})
            return await cursor.fetchone() is not None

    async def look(self) -> None:
        """Read the revoked ids; while the database is away those known stay."""
        async with self._database.connection() as connection:
            rows = await (await connection.execute(_REVOKED)).fetchall()
        self._known = frozenset(row[0] for row in rows)

    @asynccontextmanager
    async def watched(self, look_seconds: float = _LOOK_SECONDS) -> AsyncGenerator[None]:
        """Read them again every few seconds inside the context."""
        with suppress(MdpError):
            await self.look()
        task = asyncio.create_task(self._watch(look_seconds))
        try:
            yield
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def _watch(self, look_seconds: float) -> None:
        while True:
            await asyncio.sleep(look_seconds)
            try:
                await self.look()
            except MdpError as error:
                _log.warning("revoked tokens can't be read: %s", error)
