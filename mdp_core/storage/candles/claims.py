"""Claims on pages across processes: one process fetches a page.

A claim is an advisory lock of Postgres on (series, page), held by the one connection that a process
dedicates to claims. They only save requests: `CandleStore.save` is right without any. So no request
fails for what happens to that connection: if it is lost, its claims are dropped, it is opened
again, and who claims meanwhile goes on as if the pages were theirs.
"""

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import LiteralString

from mdp_core.errors import StoreUnavailable
from mdp_core.storage.database.batching import BatchingQueue
from mdp_core.storage.database.database import Database

# Claim those of these pages that no other session holds, and release the others; which? The
# session counts how often it holds each.
_CHANGE: LiteralString = """
SELECT CASE WHEN is_claim THEN pg_try_advisory_lock(series_id, page)
            ELSE pg_advisory_unlock(series_id, page) END
FROM unnest(%(series_ids)s::int[], %(pages)s::int[], %(are_claims)s::bool[])
    AS change(series_id, page, is_claim)
"""


@dataclass(frozen=True, slots=True)
class _Change:
    """Pages to claim, or to release where a session is named that holds them."""

    series_id: int
    pages: Sequence[int]
    held_by: int | None = None


@dataclass(frozen=True, slots=True)
class _Held:
    """The pages that were had, and the session that holds them now."""

    pages: Sequence[int]
    session: int


class Claims:
    """Makes the claims of one process."""

    def __init__(self, database: Database) -> None:
        self._connection = database.dedicated()
        self._changes = BatchingQueue(self._change)

    @asynccontextmanager
    async def claim(self, series_id: int, pages: Sequence[int]) -> AsyncGenerator[bool]:
        """Tell whether the pages are ours until the context is left: all of them, or none.

        Never waits. Within a process the same pages may be claimed once at a time: the database
        sees one session per process.
        """
        claiming = self._changes.submit(_Change(series_id, pages))
        try:
            held = await asyncio.shield(claiming)
        except StoreUnavailable:
            yield True
            return
        except asyncio.CancelledError:
            claiming.add_done_callback(lambda _: self._abandon(series_id, claiming))
            raise
        is_ours = len(held.pages) == len(pages)
        try:
            if not is_ours:
                self._release(series_id, held)
            yield is_ours
        finally:
            if is_ours:
                self._release(series_id, held)

    async def aclose(self) -> None:
        """Drop all claims."""
        await self._changes.aclose()
        await self._connection.close()

    def _abandon(self, series_id: int, claiming: asyncio.Future[_Held]) -> None:
        if not claiming.cancelled() and claiming.exception() is None:
            self._release(series_id, claiming.result())

    def _release(self, series_id: int, held: _Held) -> None:
        """Release claims without waiting for it; if it fails they go with the session."""
        if held.pages:
            change = _Change(series_id, held.pages, held.session)
            self._changes.submit(change).add_done_callback(_ignore_error)

    async def _change(self, changes: Sequence[_Change]) -> list[_Held]:
        """Make changes together; what a session held that is gone has gone with it."""
        session = self._connection.session
        valid = [change for change in changes if change.held_by in (None, session)]
        parts = [(change, page) for change in valid for page in change.pages]
        params = {
            "series_ids": [change.series_id for change, _ in parts],
            "pages": [page for _, page in parts],
            "are_claims": [change.held_by is None for change, _ in parts],
        }
        rows = await self._connection.fetch(_CHANGE, params)
        had = [part for part, (is_had,) in zip(parts, rows, strict=True) if is_had]
        session = self._connection.session
        return [_Held([page for of, page in had if of is change], session) for change in changes]


def _ignore_error(change: asyncio.Future[_Held]) -> None:
    if not change.cancelled():
        change.exception()
