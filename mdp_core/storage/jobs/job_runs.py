"""Scheduled runs and the syncers that run them, in the database.

The insert of a run is the claim: of many syncers one gets it. Its worker
sends a heartbeat every few seconds; another syncer takes over a run that has gone silent.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import LiteralString

from mdp_core.storage.database.database import Database, storable

HEARTBEAT_SECONDS = 3.0
SILENT_SECONDS = 10.0
"""After so much silence a syncer, or what it runs, counts as dead."""

# May this worker run it: is it new, or was it left by a silent worker?
_CLAIM: LiteralString = """
INSERT INTO job_runs (job, due_at, worker) VALUES (%(job)s, %(due_at)s, %(worker)s)
ON CONFLICT (job, due_at) DO UPDATE
SET worker = excluded.worker, started_at = now(), heartbeat_at = now()
WHERE job_runs.ended_at IS NULL
  AND job_runs.heartbeat_at < now() - %(silent)s * interval '1 second'
RETURNING true
"""

# It is still being run; by this worker?
_BEAT: LiteralString = """
UPDATE job_runs SET heartbeat_at = now()
WHERE job = %(job)s AND due_at = %(due_at)s AND worker = %(worker)s AND ended_at IS NULL
RETURNING true
"""

# It has ended, unless another worker has taken it over.
_END: LiteralString = """
UPDATE job_runs
SET ended_at = now(), heartbeat_at = now(), rows = %(rows)s, waiting = %(waiting)s,
    differing = %(differing)s, error = %(error)s
WHERE job = %(job)s AND due_at = %(due_at)s AND worker = %(worker)s AND ended_at IS NULL
"""

# It was begun and can't be ended here: any worker may take it at once.
_RELEASE: LiteralString = """
UPDATE job_runs SET heartbeat_at = '-infinity'
WHERE job = %(job)s AND due_at = %(due_at)s AND worker = %(worker)s AND ended_at IS NULL
"""

# Which runs were left by those who are silent, the latest of each job?
_LEFT: LiteralString = """
SELECT DISTINCT ON (job) job, due_at FROM job_runs
WHERE ended_at IS NULL AND heartbeat_at < now() - %(silent)s * interval '1 second'
ORDER BY job, due_at DESC
"""

# What was left and has been overtaken by a later run of the same job needs no run any more.
_CLOSE_OVERTAKEN: LiteralString = """
UPDATE job_runs SET ended_at = now(), error = 'left by a syncer that fell silent'
WHERE ended_at IS NULL AND heartbeat_at < now() - %(silent)s * interval '1 second'
  AND EXISTS (SELECT FROM job_runs AS later
              WHERE later.job = job_runs.job AND later.due_at > job_runs.due_at)
"""

# The latest runs of every job. It goes from job to job along the primary key: the history of a
# week is not read to show its last three minutes.
_LATEST: LiteralString = """
WITH RECURSIVE names AS (
    SELECT min(job) AS job FROM job_runs
    UNION ALL
    SELECT (SELECT min(job) FROM job_runs WHERE job > names.job) FROM names WHERE job IS NOT NULL
)
SELECT latest.* FROM names CROSS JOIN LATERAL (
    SELECT job, due_at, worker, started_at, ended_at, rows, waiting, error
    FROM job_runs WHERE job_runs.job = names.job ORDER BY due_at DESC LIMIT %(count)s
) AS latest
ORDER BY job, due_at DESC
"""

# How many candles were compared, and how many of them differed, in all runs that are kept?
_VERIFIED: LiteralString = """
SELECT coalesce(sum(rows), 0)::bigint, coalesce(sum(differing), 0)::bigint
FROM job_runs WHERE differing IS NOT NULL
"""

_FORGET_RUNS: LiteralString = """
DELETE FROM job_runs WHERE due_at < now() - %(days)s * interval '1 day'
"""
_FORGET_SYNCERS: LiteralString = """
DELETE FROM syncers WHERE heartbeat_at < now() - %(days)s * interval '1 day'
"""

# This syncer lives.
_LIVE: LiteralString = """
INSERT INTO syncers (name) VALUES (%(name)s)
ON CONFLICT (name) DO UPDATE SET heartbeat_at = now()
"""

_LEAVE: LiteralString = "DELETE FROM syncers WHERE name = %(name)s"

# Which syncers were heard of lately?
_SYNCERS: LiteralString = """
SELECT name, started_at, heartbeat_at,
       heartbeat_at > now() - %(silent)s * interval '1 second'
FROM syncers ORDER BY heartbeat_at DESC
"""


@dataclass(frozen=True, slots=True)
class RunKey:
    """A run of a job: what it is called and when it was due (real time, UTC)."""

    job: str
    due_at: datetime


@dataclass(frozen=True, slots=True)
class RunResult:
    """The result of a run.

    `rows` counts what the job counts; `waiting` the series that there was no budget for;
    `differing` the candles that verify found to differ from the exchange's.
    """

    rows: int = 0
    waiting: int | None = None
    error: str | None = None
    differing: int | None = None


@dataclass(frozen=True, slots=True)
class Run:
    """A run as the history has it; it runs still while `ended_at` is None."""

    job: str
    due_at: datetime
    worker: str
    started_at: datetime
    ended_at: datetime | None
    rows: int | None
    waiting: int | None
    error: str | None


@dataclass(frozen=True, slots=True)
class Syncer:
    """A syncer and when it was last heard of."""

    name: str
    started_at: datetime
    heartbeat_at: datetime
    is_alive: bool


class JobRuns:
    """Claims runs, keeps their history, and knows which syncers live."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def claim(self, key: RunKey, worker: str) -> bool:
        """Return whether `worker` may run it; no other may until it falls silent."""
        params = {**_key(key, worker), "silent": SILENT_SECONDS}
        async with self._database.connection() as connection:
            return await (await connection.execute(_CLAIM, params)).fetchone() is not None

    async def beat(self, key: RunKey, worker: str) -> bool:
        """Say that it is still run; False: it has been taken over."""
        async with self._database.connection() as connection:
            cursor = await connection.execute(_BEAT, _key(key, worker))
            return await cursor.fetchone() is not None

    async def end(self, key: RunKey, worker: str, result: RunResult) -> None:
        """Write down what came of it."""
        error = None if result.error is None else storable(result.error)
        came = {"rows": result.rows, "waiting": result.waiting, "error": error}
        came["differing"] = result.differing
        async with self._database.connection() as connection:
            await connection.execute(_END, {**_key(key, worker), **came})

    async def release(self, key: RunKey, worker: str) -> None:
        """Release it: any worker may take it at once."""
        async with self._database.connection() as connection:
            await connection.execute(_RELEASE, _key(key, worker))

    async def abandoned(self) -> list[RunKey]:
        """Return the runs to take over: of each job the latest."""
        silent = {"silent": SILENT_SECONDS}
        async with self._database.connection() as connection:
            await connection.execute(_CLOSE_OVERTAKEN, silent)
            cursor = await connection.execute(_LEFT, silent)
            return [RunKey(*row) for row in await cursor.fetchall()]

    async def latest(self, count: int) -> Sequence[Run]:
        """Give the latest `count` runs of every job, the latest first."""
        async with self._database.connection() as connection:
            cursor = await connection.execute(_LATEST, {"count": count})
            return [Run(*row) for row in await cursor.fetchall()]

    async def verified(self) -> tuple[int, int]:
        """Return how many candles were compared with exchanges, and how many differed."""
        async with self._database.connection() as connection:
            row = await (await connection.execute(_VERIFIED)).fetchone()
        return (int(row[0]), int(row[1])) if row else (0, 0)

    async def forget(self, days: float) -> None:
        """Drop the history that is older."""
        async with self._database.connection() as connection:
            await connection.execute(_FORGET_RUNS, {"days": days})
            await connection.execute(_FORGET_SYNCERS, {"days": days})

    async def live(self, name: str) -> None:
        """Say that this syncer lives."""
        async with self._database.connection() as connection:
            await connection.execute(_LIVE, {"name": name})

    async def leave(self, name: str) -> None:
        """Say that this syncer ends."""
        async with self._database.connection() as connection:
            await connection.execute(_LEAVE, {"name": name})

    async def syncers(self) -> Sequence[Syncer]:
        """Give the syncers, the one heard of last first."""
        async with self._database.connection() as connection:
            cursor = await connection.execute(_SYNCERS, {"silent": SILENT_SECONDS})
            return [Syncer(*row) for row in await cursor.fetchall()]


def _key(key: RunKey, worker: str) -> dict[str, object]:
    return {"job": key.job, "due_at": key.due_at, "worker": worker}
