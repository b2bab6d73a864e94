"""Which series are asked for, and which of them at the live edge.

Requests only note it in memory; a task writes the notes in batches, so that a hit never waits.
"""

import asyncio
import logging
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import LiteralString

from mdp_core.domain.clock import Clock
from mdp_core.errors import StoreUnavailable
from mdp_core.storage.database.database import Database

_log = logging.getLogger(__name__)

# Add to what is known of the use of many series; in the order of their ids, lest two who write
# lock each other out.
_ADD: LiteralString = """
INSERT INTO series_usage (series_id, last_requested, last_at_edge, requests)
SELECT * FROM unnest(
    %(ids)s::int[], %(requested)s::timestamptz[], %(at_edge)s::timestamptz[], %(counts)s::bigint[])
ON CONFLICT (series_id) DO UPDATE
SET requests = series_usage.requests + excluded.requests,
    last_requested = greatest(series_usage.last_requested, excluded.last_requested),
    last_at_edge = greatest(series_usage.last_at_edge, excluded.last_at_edge)
"""

# Which series of a market were asked for at the live edge since then, the latest first?
_HOT: LiteralString = """
SELECT symbols.name, series.interval
FROM series_usage
JOIN series ON series.id = series_usage.series_id
JOIN symbols ON symbols.id = series.symbol_id
WHERE series_usage.last_at_edge > %(since)s AND symbols.active
  AND symbols.exchange = %(exchange)s AND symbols.market_type = %(market_type)s
ORDER BY series_usage.last_at_edge DESC, series.id LIMIT %(most)s
"""

# A request at the live edge must not wait long to make its series hot.
_FLUSH_SECONDS = 1.0
_real_time = Clock()


@dataclass(slots=True)
class _Note:
    requested: datetime
    at_edge: datetime | None
    count: int


class Usage:
    """Notes of requests, and the hot series they make. Times are real time."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._notes: dict[int, _Note] = {}

    def note(self, series_id: int, *, at_edge: bool) -> None:
        """Remember that a series was asked for, and whether its newest candles were."""
        now = _real_time()
        note = self._notes.setdefault(series_id, _Note(now, None, 0))
        note.requested = now
        note.count += 1
        if at_edge:
            note.at_edge = now

    async def hot(
        self, exchange: str, market_type: str, within: timedelta, most: int
    ) -> list[tuple[str, str]]:
        """Return symbol and interval of the active series polled at the edge `within`.

        Returns:
            The latest asked for comes first; `most` at the most.
        """
        since = _real_time() - within
        params = {"exchange": exchange, "market_type": market_type, "since": since, "most": most}
        async with self._database.connection() as connection:
            cursor = await connection.execute(_HOT, params)
            return [(row[0], row[1]) for row in await cursor.fetchall()]

    @asynccontextmanager
    async def flushing(self) -> AsyncGenerator[None]:
        """Write the notes every second while the context is open, and at its end."""
        task = asyncio.create_task(self._flush_for_ever())
        try:
            yield
        finally:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task
            await self.flush()

    async def _flush_for_ever(self) -> None:
        while True:
            await asyncio.sleep(_FLUSH_SECONDS)
            await self.flush()

    async def flush(self) -> None:
        """Write what was noted since the last time."""
        notes, self._notes = self._notes, {}
        if not notes:
            return
        ids = sorted(notes)
        rows = {
            "ids": ids,
            "requested": [notes[planned_fill].requested for planned_fill in ids],
            "at_edge": [notes[planned_fill].at_edge for planned_fill in ids],
            "counts": [notes[planned_fill].count for planned_fill in ids],
        }
        try:
            async with self._database.connection() as connection:
                await connection.execute(_ADD, rows)
        except StoreUnavailable as error:
            # Statistics are not worth keeping over an outage: who still asks is noted again.
            _log.warning("use of series not noted: %s", error, extra={"series": len(ids)})
        except Exception:  # noqa: BLE001 - those who ask later are to be noted again
            _log.exception("use of series not noted", extra={"series": len(ids)})
