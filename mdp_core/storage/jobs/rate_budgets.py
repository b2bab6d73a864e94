"""The shared token buckets of rate limits: the table `rate_budgets`.

One statement moves a bucket, on the database's clock, so that all processes behind one egress
stay within the limit together.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import LiteralString

from mdp_core.storage.database.database import Database

# Create the bucket, full, unless it exists.
_OPEN: LiteralString = """
INSERT INTO rate_budgets (exchange, egress, tokens)
VALUES (%(exchange)s, %(egress)s, %(capacity)s)
ON CONFLICT DO NOTHING
"""

# Take the weights of as many requests, in their order, as there are tokens for above the floor; how
# many, and how long must the first wait if none? `sums` are the running sums of the weights. A
# request that weighs more than a full bucket leaves a debt.
_TAKE: LiteralString = """
WITH bucket AS (
    SELECT least(%(capacity)s, %(ceiling)s, tokens + %(per_second)s
               * greatest(extract(epoch FROM clock_timestamp() - refilled_at), 0))::float8 AS level,
           greatest(extract(epoch FROM blocked_until - clock_timestamp()), 0)::float8 AS blocked
    FROM rate_budgets WHERE exchange = %(exchange)s AND egress = %(egress)s
    FOR UPDATE
), verdict AS (
    SELECT level, greatest(blocked, (%(floor)s + least((%(sums)s::float8[])[1],
               %(capacity)s - %(floor)s) - level) / %(per_second)s, 0) AS wait
    FROM bucket
), granted AS (
    SELECT level, wait, CASE WHEN wait > 0 THEN 0 ELSE greatest(1, (
        SELECT count(*) FROM unnest(%(sums)s::float8[]) AS total
        WHERE total <= level - %(floor)s)) END AS count
    FROM verdict
)
UPDATE rate_budgets
SET tokens = level - CASE WHEN count > 0 THEN (%(sums)s::float8[])[count] ELSE 0 END,
    refilled_at = clock_timestamp()
FROM granted
WHERE exchange = %(exchange)s AND egress = %(egress)s
RETURNING count::int, wait::float8
"""

# Return tokens, or take more where the weight is negative.
_SETTLE: LiteralString = """
UPDATE rate_budgets SET tokens = tokens + %(weight)s
WHERE exchange = %(exchange)s AND egress = %(egress)s
"""

# Let no process behind this egress send a request before then.
_BLOCK: LiteralString = """
UPDATE rate_budgets
SET blocked_why = %(why)s,
    blocked_until = greatest(
        blocked_until, clock_timestamp() + %(seconds)s * interval '1 second')
WHERE exchange = %(exchange)s AND egress = %(egress)s
"""


@dataclass(frozen=True, slots=True)
class Grant:
    """The number of requests that got tokens; if none, the seconds to wait."""

    count: int
    wait_seconds: float


@dataclass(frozen=True, slots=True)
class BucketSize:
    """The tokens of a full bucket, and the tokens that come in per second."""

    capacity: float
    per_second: float


class RateBudget:
    """The bucket of one exchange and egress; each method is one round trip."""

    def __init__(self, database: Database, exchange: str, egress: str, size: BucketSize) -> None:
        self._database = database
        self._key = {"exchange": exchange, "egress": egress}
        self._size = {"capacity": size.capacity, "per_second": size.per_second}
        self._is_open = False

    async def take(self, sums: Sequence[float], *, floor: float, ceiling: float) -> Grant:
        """Take tokens for as many requests, in their order, as the bucket holds.

        Args:
            sums: The running sums of the requests' weights.
            floor: Tokens that must stay.
            ceiling: The most that the bucket may hold now.

        Raises:
            StoreUnavailable: The database can't be reached; nothing was taken.
        """
        params = {**self._key, **self._size, "sums": sums, "floor": floor, "ceiling": ceiling}
        async with self._database.connection() as connection:
            if not self._is_open:
                await connection.execute(_OPEN, params)
            row = await (await connection.execute(_TAKE, params)).fetchone()
        self._is_open = row is not None
        return Grant(*row) if row else Grant(0, 0.0)

    async def settle(self, weight: float) -> None:
        """Return tokens that were not spent; a negative weight takes what is owed."""
        async with self._database.connection() as connection:
            await connection.execute(_SETTLE, {**self._key, "weight": weight})

    async def block(self, seconds: float, why: str) -> None:
        """Let no process behind this egress send a request for so long."""
        async with self._database.connection() as connection:
            await connection.execute(_BLOCK, {**self._key, "seconds": seconds, "why": why})
