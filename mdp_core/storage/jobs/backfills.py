"""Fill jobs: every SQL statement about them stands here.

A job is a series, a window and a state. What is left to do is not written down: the coverage says.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any, LiteralString

from psycopg.types.json import Jsonb
from psycopg.types.range import Range

from mdp_core.domain.clock import from_ms, to_ms
from mdp_core.domain.windows import Window
from mdp_core.errors import StoreUnavailable
from mdp_core.storage.database.database import Database, storable

# Make a job, unless the same is open.
_OPEN: LiteralString = """
INSERT INTO backfills (series_id, span) VALUES (%(series_id)s, %(span)s)
ON CONFLICT (series_id, span) WHERE state = 'open' DO NOTHING
RETURNING id
"""

# Which open job fills this window, but for so much at its end? What lies before the history is
# nothing: a job that has learned where that begins need not fill it.
_FIND_OPEN: LiteralString = """
SELECT backfills.id FROM backfills JOIN series ON series.id = series_id
WHERE series_id = %(series_id)s AND state = 'open'
  AND (span @> %(start)s::timestamptz
       OR span @> greatest(%(start)s::timestamptz, history_begins))
  AND upper(span) >= %(end)s::timestamptz - %(slack)s::interval
ORDER BY backfills.id LIMIT 1
"""

# Less is to be filled than was thought, unless another open job has just that window.
_NARROW: LiteralString = """
UPDATE backfills AS job SET span = %(span)s
WHERE id = %(id)s AND state = 'open' AND NOT EXISTS (
    SELECT FROM backfills AS other WHERE other.series_id = job.series_id
    AND other.span = %(span)s AND other.state = 'open')
"""

# Jobs as they are shown. One that is open and was never worked on is queued.
_SELECT: LiteralString = """
SELECT backfills.id, symbols.exchange, symbols.market_type, symbols.name, series.interval,
       lower(span), upper(span),
       CASE WHEN state <> 'open' THEN state
            WHEN started_at IS NULL THEN 'queued' ELSE 'running' END,
       created_at, started_at, ended_at, error, missing
FROM backfills
JOIN series ON series.id = backfills.series_id
JOIN symbols ON symbols.id = series.symbol_id
"""
_GET: LiteralString = _SELECT + "WHERE backfills.id = ANY(%(ids)s)"
_LIST: LiteralString = (
    _SELECT
    + """
WHERE (%(before)s::bigint IS NULL OR backfills.id < %(before)s)
  AND (%(is_open)s::boolean IS NULL OR (state = 'open') = %(is_open)s)
ORDER BY backfills.id DESC LIMIT %(limit)s
"""
)

# Which open job of a market is the oldest, but for some?
_OLDEST: LiteralString = (
    _SELECT
    + """
WHERE state = 'open' AND symbols.exchange = %(exchange)s AND symbols.market_type = %(market_type)s
  AND backfills.id <> ALL(%(without)s::bigint[])
ORDER BY backfills.id LIMIT 1
"""
)

# A worker has begun it.
_START: LiteralString = """
UPDATE backfills SET started_at = coalesce(started_at, now()) WHERE id = %(id)s
"""

# This can't be had.
_RECORD_UNAVAILABLE: LiteralString = """
UPDATE backfills SET missing = missing || %(missing)s WHERE id = %(id)s AND state = 'open'
"""

# It has come to an end; the first to say so is right.
_END: LiteralString = """
UPDATE backfills SET state = %(state)s, error = %(error)s, ended_at = now()
WHERE id = %(id)s AND state = 'open'
"""

# How much is missing for each open job of an exchange, of what the exchange still has and of what
# was not found out to be lost? A history whose beginning is not known is reckoned to begin on the
# symbol's first known day, or when that was listed.
_QUEUE: LiteralString = """
SELECT backfills.id, symbols.market_type, series.interval,
       (SELECT coalesce(sum(extract(epoch FROM upper(part) - lower(part))), 0)::float8
        FROM unnest(
            tstzmultirange(span * tstzrange(greatest(
                coalesce(series.history_begins, daily.history_begins, symbols.listed_at), earliest
            ), NULL)) - series.coverage
            - (SELECT coalesce(range_agg(tstzrange(to_timestamp((loss->>'start')::float8 / 1000),
                                                   to_timestamp((loss->>'end')::float8 / 1000))),
                               '{}')
               FROM jsonb_array_elements(missing) AS loss)) AS part)
FROM backfills
JOIN series ON series.id = backfills.series_id
JOIN symbols ON symbols.id = series.symbol_id
LEFT JOIN series AS daily ON daily.symbol_id = series.symbol_id AND daily.interval = '1d'
LEFT JOIN unnest(%(market_types)s::text[], %(intervals)s::text[], %(earliest)s::timestamptz[])
          AS memory(market_type, interval, earliest)
          ON memory.market_type = symbols.market_type AND memory.interval = series.interval
WHERE state = 'open' AND symbols.exchange = %(exchange)s
ORDER BY backfills.id
"""

# So often a job that was found open may have ended before it could be read.
_ROUNDS = 3


class JobState(StrEnum):
    """The state of a job."""

    QUEUED = "queued"
    RUNNING = "running"
    DONE = "done"
    CANCELLED = "cancelled"
    FAILED = "failed"

    @property
    def is_open(self) -> bool:
        """True while there is work to do."""
        return self in (JobState.QUEUED, JobState.RUNNING)


@dataclass(frozen=True, slots=True)
class UnavailableWindow:
    """A window of a job that can't be had, and why: the error's code and its text."""

    window: Window
    code: str
    detail: str


@dataclass(frozen=True, slots=True)
class Job:
    """A fill job as it is written down."""

    id: int
    exchange: str
    market_type: str
    symbol: str
    interval: str
    window: Window
    state: JobState
    created_at: datetime
    started_at: datetime | None
    ended_at: datetime | None
    error: str | None
    unavailable: Sequence[UnavailableWindow]


@dataclass(frozen=True, slots=True)
class Queued:
    """The duration that is missing for an open job."""

    job: int
    market_type: str
    interval: str
    missing: timedelta


@dataclass(frozen=True, slots=True)
class Retention:
    """From when on an exchange still has candles of an interval."""

    market_type: str
    interval: str
    earliest: datetime


class BackfillStore:
    """Keeps fill jobs."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def get_or_create(self, series_id: int, window: Window, slack: timedelta) -> int:
        """Give the open job for a window (not empty), making one if there is none.

        One counts as the same that fills the window but for no more than `slack` at its end: who
        asks again a moment later, until now, means the same.
        """
        span = Range(window.start, window.end)
        bounds = {"start": window.start, "end": window.end, "slack": slack}
        async with self._database.connection() as connection:
            for _ in range(_ROUNDS):
                params = {"series_id": series_id, "span": span, **bounds}
                for query in (_FIND_OPEN, _OPEN):
                    row = await (await connection.execute(query, params)).fetchone()
                    if row is not None:
                        return int(row[0])
        message = "jobs for the same window come and go"
        raise StoreUnavailable(message)

    async def find(self, wanted: Sequence[tuple[int, Window, timedelta]]) -> list[int | None]:
        """Tell for each series, window and slack which open job `open` would give, if any."""
        found: list[int | None] = []
        async with self._database.connection() as connection:
            for series_id, window, slack in wanted:
                params = {"series_id": series_id, "slack": slack}
                params |= {"start": window.start, "end": window.end}
                row = await (await connection.execute(_FIND_OPEN, params)).fetchone()
                found.append(int(row[0]) if row else None)
        return found

    async def get(self, job: int) -> Job | None:
        """Give a job, if there is one of that id."""
        rows = await self.get_many([job])
        return rows[0] if rows else None

    async def get_many(self, jobs: Sequence[int]) -> list[Job]:
        """Give the jobs of these ids, in any order."""
        return await self._jobs(_GET, {"ids": list(jobs)})

    async def jobs(self, *, before: int | None, is_open: bool | None, limit: int) -> list[Job]:
        """Return jobs, the newest first, perhaps before an id, open or ended only."""
        return await self._jobs(_LIST, {"before": before, "is_open": is_open, "limit": limit})

    async def oldest(
        self, exchange: str, market_type: str, without: Collection[int] = ()
    ) -> Job | None:
        """Give the open job of a market that was made first, leaving out some (ids)."""
        params = {"exchange": exchange, "market_type": market_type, "without": list(without)}
        rows = await self._jobs(_OLDEST, params)
        return rows[0] if rows else None

    async def queue(self, exchange: str, memories: Sequence[Retention]) -> list[Queued]:
        """Give what is missing for each of the exchange's open jobs, the oldest first.

        What an interval's memory has lost is not counted; what has none is remembered for ever.
        """
        params = {
            "exchange": exchange,
            "market_types": [each.market_type for each in memories],
            "intervals": [each.interval for each in memories],
            "earliest": [each.earliest for each in memories],
        }
        async with self._database.connection() as connection:
            rows = await (await connection.execute(_QUEUE, params)).fetchall()
        return [Queued(row[0], row[1], row[2], timedelta(seconds=row[3])) for row in rows]

    async def start(self, job: int) -> None:
        """Note that a worker has begun it."""
        await self._execute(_START, {"id": job})

    async def narrow(self, job: int, window: Window) -> None:
        """Have an open job fill less, a window that lies in its own (not empty)."""
        await self._execute(_NARROW, {"id": job, "span": Range(window.start, window.end)})

    async def record_unavailable(self, job: int, unavailable: Sequence[UnavailableWindow]) -> None:
        """Note what can't be had."""
        missing = [
            {
                "start": to_ms(each.window.start),
                "end": to_ms(each.window.end),
                "error": each.code,
                "reason": storable(each.detail),
            }
            for each in unavailable
        ]
        await self._execute(_RECORD_UNAVAILABLE, {"id": job, "missing": Jsonb(missing)})

    async def end(self, job: int, state: JobState, error: str | None = None) -> None:
        """Bring an open job to its end; one that has ended stays as it is."""
        why = None if error is None else storable(error)
        await self._execute(_END, {"id": job, "state": state.value, "error": why})

    async def _execute(self, query: LiteralString, params: Mapping[str, object]) -> None:
        async with self._database.connection() as connection:
            await connection.execute(query, params)

    async def _jobs(self, query: LiteralString, params: Mapping[str, object]) -> list[Job]:
        async with self._database.connection() as connection:
            cursor = await connection.execute(query, params)
            return [_job(row) for row in await cursor.fetchall()]


def _job(row: tuple[Any, ...]) -> Job:
    id_, exchange, market_type, symbol, interval, start, end, state, *times, error, missing = row
    return Job(
        id_,
        exchange,
        market_type,
        symbol,
        interval,
        Window(start, end),
        JobState(state),
        *times,
        error=error,
        unavailable=_unavailable(missing),
    )


def _unavailable(listed: list[dict[str, Any]]) -> list[UnavailableWindow]:
    """Read what can't be had, each once: several workers may have found it out."""
    unavailable = (
        UnavailableWindow(
            Window(from_ms(each["start"]), from_ms(each["end"])),
            each["error"],
            each["reason"],
        )
        for each in listed
    )
    return list(dict.fromkeys(unavailable))
