"""Fill jobs, as the database keeps them.

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
from mdp_core.errors import QuotaExceeded, StoreUnavailable
from mdp_core.storage.database.database import Connection, Database, storable
from mdp_core.storage.jobs import backfill_queries as queries

# So often a job that was found open may have ended before it could be read.
_ROUNDS = 3

# When a subject with too many open jobs may ask again: jobs take a while.
_JOB_RETRY_SECONDS = 30.0


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
    subjects: Sequence[str] = ()
    """The subjects that asked for it; an empty one stands for none."""

    @property
    def words(self) -> tuple[str, str, str, str]:
        """The four words that name its series."""
        return self.exchange, self.market_type, self.symbol, self.interval


@dataclass(frozen=True, slots=True)
class Owner:
    """The subject that asks for jobs, and how many open ones it may have."""

    subject: str
    most_open: int


OWN_COMMANDS = Owner("", 1_000_000)
"""Stands for this service's own commands: no token's subject is empty."""


@dataclass(frozen=True, slots=True)
class Queued:
    """The duration that is missing for an open job."""

    job: int
    market_type: str
    interval: str
    missing: timedelta
    subject: str


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

    async def get_or_create(
        self, series_id: int, window: Window, slack: timedelta, owner: Owner = OWN_COMMANDS
    ) -> int:
        """Give the open job for a window (not empty), making one if there is none.

        One counts as the same that fills the window but for no more than `slack` at its end: who
        asks again a moment later, until now, means the same. It is `owner`'s, too, from then on.

        Raises:
            QuotaExceeded: The owner has as many open jobs as it may have.
        """
        span = Range(window.start, window.end)
        bounds = {"start": window.start, "end": window.end, "slack": slack}
        params = {"series_id": series_id, "span": span, **bounds}
        async with self._database.transaction() as connection:
            await connection.execute(queries.TAKE_TURNS, {"subject": owner.subject})
            for _ in range(_ROUNDS):
                for query in (queries.FIND_OPEN, queries.OPEN):
                    row = await (await connection.execute(query, params)).fetchone()
                    if row is not None:
                        return await _joined(connection, int(row[0]), owner)
        message = "jobs for the same window come and go"
        raise StoreUnavailable(message)

    async def count_open(self, subject: str) -> int:
        """Count the open jobs of a subject."""
        async with self._database.connection() as connection:
            row = await (
                await connection.execute(queries.COUNT_OPEN, {"subject": subject})
            ).fetchone()
        return int(row[0]) if row else 0

    async def leave(self, job: int, subject: str) -> None:
        """End a subject's part in a job; the last one to leave an open job cancels it."""
        params = {"id": job, "subject": subject}
        async with self._database.transaction() as connection:
            for query in (queries.LOCK_JOB, queries.LEAVE, queries.CANCEL_UNLESS_WANTED):
                await connection.execute(query, params)

    async def forget(self, days: float) -> None:
        """Drop the jobs that ended longer ago."""
        await self._execute(queries.FORGET, {"days": days})

    async def find(self, wanted: Sequence[tuple[int, Window, timedelta]]) -> list[int | None]:
        """Tell for each series, window and slack which open job `open` would give, if any."""
        found: list[int | None] = []
        async with self._database.connection() as connection:
            for series_id, window, slack in wanted:
                params = {"series_id": series_id, "slack": slack}
                params |= {"start": window.start, "end": window.end}
                row = await (await connection.execute(queries.FIND_OPEN, params)).fetchone()
                found.append(int(row[0]) if row else None)
        return found

    async def get(self, job: int) -> Job | None:
        """Give a job, if there is one of that id."""
        rows = await self.get_many([job])
        return rows[0] if rows else None

    async def get_many(self, jobs: Sequence[int]) -> list[Job]:
        """Give the jobs of these ids, in any order."""
        return await self._jobs(queries.GET, {"ids": list(jobs)})

    async def jobs(
        self, *, before: int | None, is_open: bool | None, limit: int, subject: str | None = None
    ) -> list[Job]:
        """Return jobs, the newest first: before an id, open or ended only, of one subject."""
        params = {"before": before, "is_open": is_open, "limit": limit, "subject": subject}
        return await self._jobs(queries.LIST, params)

    async def next(
        self, exchange: str, market_type: str, without: Collection[int] = ()
    ) -> Job | None:
        """Give the open job of a market whose turn it is, leaving out some (ids).

        Subjects take turns, the one that was served longest ago goes first; of its own jobs the
        one that lacks the fewest slots.
        """
        params = {"exchange": exchange, "market_type": market_type, "without": list(without)}
        async with self._database.connection() as connection:
            row = await (await connection.execute(queries.NEXT, params)).fetchone()
        return await self.get(row[0]) if row else None

    async def queue(self, exchange: str, memories: Sequence[Retention]) -> list[Queued]:
        """Give what is missing for each of the exchange's open jobs, the oldest first.

        What an interval's memory has lost is not counted; what has none is remembered for ever.
        """
        params = {
            "exchange": exchange,
            "market_types": [memory.market_type for memory in memories],
            "intervals": [memory.interval for memory in memories],
            "earliest": [memory.earliest for memory in memories],
        }
        async with self._database.connection() as connection:
            rows = await (await connection.execute(queries.QUEUE, params)).fetchall()
        return [Queued(row[0], row[1], row[2], timedelta(seconds=row[3]), row[4]) for row in rows]

    async def start(self, job: int) -> None:
        """Note that a worker has begun it."""
        await self._execute(queries.START, {"id": job})

    async def narrow(self, job: int, window: Window) -> None:
        """Have an open job fill less, a window that lies in its own (not empty)."""
        await self._execute(queries.NARROW, {"id": job, "span": Range(window.start, window.end)})

    async def record_unavailable(self, job: int, unavailable: Sequence[UnavailableWindow]) -> None:
        """Note what can't be had."""
        missing = [
            {
                "start": to_ms(loss.window.start),
                "end": to_ms(loss.window.end),
                "error": loss.code,
                "reason": storable(loss.detail),
            }
            for loss in unavailable
        ]
        await self._execute(queries.RECORD_UNAVAILABLE, {"id": job, "missing": Jsonb(missing)})

    async def end(self, job: int, state: JobState, error: str | None = None) -> None:
        """Bring an open job to its end; one that has ended stays as it is."""
        why = None if error is None else storable(error)
        await self._execute(queries.END, {"id": job, "state": state.value, "error": why})

    async def _execute(self, query: LiteralString, params: Mapping[str, object]) -> None:
        async with self._database.connection() as connection:
            await connection.execute(query, params)

    async def _jobs(self, query: LiteralString, params: Mapping[str, object]) -> list[Job]:
        async with self._database.connection() as connection:
            cursor = await connection.execute(query, params)
            return [_job(row) for row in await cursor.fetchall()]


async def _joined(connection: Connection, job: int, owner: Owner) -> int:
    """Make a job the owner's, too, within the quota; return its id."""
    params = {"id": job, "subject": owner.subject}
    is_new = (await connection.execute(queries.JOIN, params)).rowcount > 0
    row = (
        await (await connection.execute(queries.COUNT_OPEN, params)).fetchone() if is_new else None
    )
    if row and int(row[0]) > owner.most_open:
        raise too_many_jobs(owner)
    return job


def too_many_jobs(owner: Owner) -> QuotaExceeded:
    """Build the error of an owner that would have more open jobs than it may."""
    return QuotaExceeded(
        f"{owner.subject} may have {owner.most_open} open jobs",
        "wait for one to end, or cancel one (DELETE /backfills/{job})",
        _JOB_RETRY_SECONDS,
    )


def _job(row: tuple[Any, ...]) -> Job:
    id_, exchange, market_type, symbol, interval, start, end, state, *times = row[:11]
    error, missing, subjects = row[11:]
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
        subjects=subjects,
    )


def _unavailable(listed: list[dict[str, Any]]) -> list[UnavailableWindow]:
    """Read what can't be had, each once: several workers may have found it out."""
    unavailable = (
        UnavailableWindow(
            Window(from_ms(entry["start"]), from_ms(entry["end"])),
            entry["error"],
            entry["reason"],
        )
        for entry in listed
    )
    return list(dict.fromkeys(unavailable))
