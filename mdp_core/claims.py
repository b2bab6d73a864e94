"""Claims on pages across processes, so that two of them do not ask an exchange for the same page.

A claim is an advisory lock of Postgres on (series, page), held by the one connection that a process
dedicates to claims. They only save requests: `CandleStore.save` is right without any. So nobody
fails for what happens to that connection: if it is lost, its claims are dropped, it is opened
again, and who claims meanwhile goes on as if the pages were theirs.
"""

from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager, suppress
from typing import LiteralString

from mdp_core.database import Database
from mdp_core.errors import StoreUnavailable

# Which of these pages does nobody else work at? They are ours now.
_CLAIM: LiteralString = """
SELECT page FROM unnest(%(pages)s::int[]) AS page WHERE pg_try_advisory_lock(%(series_id)s, page)
"""

# These pages are done with.
_RELEASE: LiteralString = """
SELECT pg_advisory_unlock(%(series_id)s, page) FROM unnest(%(pages)s::int[]) AS page
"""


class Claims:
    """Makes the claims of one process."""

    def __init__(self, database: Database) -> None:
        self._connection = database.dedicated()

    @asynccontextmanager
    async def claim(self, series_id: int, pages: Sequence[int]) -> AsyncGenerator[bool]:
        """Tell whether the pages are ours until the context is left: all of them, or none.

        Waits for nobody. Within a process nobody else may claim the same pages meanwhile: to the
        database all of a process is one.
        """
        try:
            claimed = await self._claim(series_id, pages)
        except StoreUnavailable:
            yield True
            return
        session = self._connection.session
        is_ours = len(claimed) == len(pages)
        try:
            if not is_ours:
                await self._release(series_id, claimed, session)
            yield is_ours
        finally:
            if is_ours:
                await self._release(series_id, claimed, session)

    async def aclose(self) -> None:
        """Drop all claims."""
        await self._connection.close()

    async def _claim(self, series_id: int, pages: Sequence[int]) -> list[int]:
        rows = await self._connection.fetch(_CLAIM, {"series_id": series_id, "pages": list(pages)})
        return [row[0] for row in rows]

    async def _release(self, series_id: int, pages: Sequence[int], session: int) -> None:
        """Release claims, unless the session that held them has gone and they with it."""
        if pages and session == self._connection.session:
            with suppress(StoreUnavailable):
                await self._connection.fetch(
                    _RELEASE, {"series_id": series_id, "pages": list(pages)}
                )
