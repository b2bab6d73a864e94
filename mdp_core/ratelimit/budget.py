"""The shared rate budget: what one exchange still takes from one IP address.

Every process behind one egress moves the same row of `rate_budgets`, on the database's clock, so
that together they stay within the limit. A bucket of `capacity` refilled at `per_second` spends at
most capacity + 60 x per_second in any minute. Who may spend next inside a process is decided in
`scheduler`.
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import LiteralString

from mdp_core.ratelimit.priority import Priority
from mdp_core.ratelimit.tariff import MINUTE_SECONDS, Tariff
from mdp_core.storage.database.database import Database

# Make the bucket, full, if this is the first that is heard of it.
_OPEN: LiteralString = """
INSERT INTO rate_budgets (exchange, egress, tokens)
VALUES (%(exchange)s, %(egress)s, %(capacity)s)
ON CONFLICT DO NOTHING
"""

# Take the weights of as many requests, in their order, as there are tokens for above the floor; how
# many, and how long must the first wait if none? `sums` are the running sums of the weights. What
# weighs more than a full bucket leaves a debt.
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

# Give back what was taken and not spent, or take what was spent beyond it.
_SETTLE: LiteralString = """
UPDATE rate_budgets SET tokens = tokens + %(weight)s
WHERE exchange = %(exchange)s AND egress = %(egress)s
"""

# Nobody behind this egress may ask before then.
_BLOCK: LiteralString = """
UPDATE rate_budgets
SET blocked_why = %(why)s,
    blocked_until = greatest(
        blocked_until, clock_timestamp() + %(seconds)s * interval '1 second')
WHERE exchange = %(exchange)s AND egress = %(egress)s
"""

# The part of a full bucket that is left to those who are in more haste.
_FLOORS = {Priority.INTERACTIVE: 0.0, Priority.WARMING: 0.05, Priority.BACKFILL: 0.15}

_NO_CEILING = 1e12


@dataclass(frozen=True, slots=True)
class Taken:
    """For how many requests there were tokens; if for none, how long the first must wait."""

    count: int
    wait_seconds: float


class Budget:
    """The bucket of one exchange and egress.

    Args:
        database: Where it is kept.
        exchange: Its name.
        egress: Names the IP address that the exchange sees.
        tariff: What the exchange permits.
        share: The part of it that may be used.
        heaviest: What the heaviest request weighs.
    """

    def __init__(  # noqa: PLR0913 - what makes a bucket
        self,
        database: Database,
        exchange: str,
        egress: str,
        tariff: Tariff,
        *,
        share: float,
        heaviest: float = 0.0,
    ) -> None:
        self._database = database
        self._tariff = tariff
        self._bucket = {"exchange": exchange, "egress": egress}
        self._capacity = tariff.capacity * share
        self._per_second = tariff.per_second * share
        self._floors = _floors(self._capacity, heaviest)
        self._is_open = False
        self._ceiling = _NO_CEILING
        self._ceiling_minute = 0

    async def take(self, weights: Sequence[float], priority: Priority) -> Taken:
        """Take the tokens of as many requests, in their order, as there are tokens for.

        Raises:
            StoreUnavailable: The database can't be had; nothing was taken.
        """
        ceiling = self._ceiling if self._ceiling_minute == _minute() else _NO_CEILING
        if ceiling < weights[0]:
            return Taken(0, MINUTE_SECONDS - time.time() % MINUTE_SECONDS)
        what = {
            **self._bucket,
            "capacity": self._capacity,
            "per_second": self._per_second,
            "ceiling": ceiling,
            "floor": self._floors[priority],
            "sums": list(accumulate(map(float, weights))),
        }
        async with self._database.connection() as connection:
            if not self._is_open:
                await connection.execute(_OPEN, what)
            row = await (await connection.execute(_TAKE, what)).fetchone()
        self._is_open = row is not None
        return Taken(*row) if row else Taken(0, 0.0)

    def refill_seconds(self, weight: float) -> float:
        """Tell how long it takes until tokens for `weight` have come in."""
        return weight / self._per_second

    async def settle(self, weight: float) -> None:
        """Give back what was taken and not spent (or, if negative, take what was spent more)."""
        async with self._database.connection() as connection:
            await connection.execute(_SETTLE, {**self._bucket, "weight": weight})

    async def block(self, seconds: float, why: str) -> None:
        """Have everybody behind this egress wait: the exchange said so."""
        async with self._database.connection() as connection:
            await connection.execute(_BLOCK, {**self._bucket, "seconds": seconds, "why": why})

    def observe_limit(self, headers: Mapping[str, str], sent_at: float) -> None:
        """Believe the exchange when it says how much of its limit is used in a clock minute.

        Args:
            headers: Of an answer.
            sent_at: When it was asked for (seconds since the epoch): the minute that is meant.
        """
        used = headers.get(self._tariff.used_header) if self._tariff.used_header else None
        if used is None or not used.isdigit():
            return
        left, minute = self._tariff.per_minute - int(used), _minute(sent_at)
        # Answers overtake one another: within a minute the limit is only used up further.
        if minute > self._ceiling_minute:
            self._ceiling, self._ceiling_minute = left, minute
        elif minute == self._ceiling_minute:
            self._ceiling = min(left, self._ceiling)


def _floors(capacity: float, heaviest: float) -> Mapping[Priority, float]:
    """Give the tokens that each priority leaves.

    A backfill leaves as many as the heaviest request takes, up to half a bucket: else its light
    ones, in another process, would take each token before there are enough for somebody's heavy
    one.
    """
    floors = {priority: capacity * part for priority, part in _FLOORS.items()}
    backfill = max(floors[Priority.BACKFILL], min(heaviest, capacity / 2))
    return {**floors, Priority.BACKFILL: backfill}


def _minute(seconds: float | None = None) -> int:
    return int((time.time() if seconds is None else seconds) // MINUTE_SECONDS)
