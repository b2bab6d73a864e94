"""The shared rate budget: what one exchange still takes from one IP address.

Every process behind one egress moves the same row of `rate_budgets`, on the database's clock, so
that together they stay within the limit. A bucket of `capacity` refilled at `per_second` spends at
most capacity + 60 x per_second in any minute.
"""

import asyncio
import random
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import LiteralString

from mdp_core.database import Database
from mdp_core.errors import RateLimited

# Make the bucket, full, if this is the first that is heard of it.
_OPEN: LiteralString = """
INSERT INTO rate_budgets (exchange, egress, tokens)
VALUES (%(exchange)s, %(egress)s, %(capacity)s)
ON CONFLICT DO NOTHING
"""

# Take `weight` tokens if they are there; how long to wait otherwise? What weighs more than a full
# bucket leaves a debt.
_TAKE: LiteralString = """
WITH bucket AS (
    SELECT least(%(capacity)s, %(ceiling)s, tokens + %(per_second)s
               * greatest(extract(epoch FROM clock_timestamp() - refilled_at), 0)) AS level,
           greatest(extract(epoch FROM blocked_until - clock_timestamp()), 0) AS blocked
    FROM rate_budgets WHERE exchange = %(exchange)s AND egress = %(egress)s
    FOR UPDATE
), verdict AS (
    SELECT level, greatest(
        blocked, (least(%(weight)s, %(capacity)s) - level) / %(per_second)s, 0) AS wait
    FROM bucket
)
UPDATE rate_budgets
SET tokens = level - CASE WHEN wait = 0 THEN %(weight)s ELSE 0 END,
    refilled_at = clock_timestamp()
FROM verdict
WHERE exchange = %(exchange)s AND egress = %(egress)s
RETURNING wait::float8
"""

# Nobody behind this egress may ask before then.
_BLOCK: LiteralString = """
UPDATE rate_budgets
SET blocked_why = %(why)s,
    blocked_until = greatest(
        blocked_until, clock_timestamp() + %(seconds)s * interval '1 second')
WHERE exchange = %(exchange)s AND egress = %(egress)s
"""

_MINUTE_SECONDS = 60
_NO_CEILING = 1e12


@dataclass(frozen=True, slots=True)
class Tariff:
    """What an exchange lets one IP address spend, in its own unit of weight.

    The capacity and sixty seconds of refill make up the limit per minute, so that no minute sees
    more than the limit, whenever it begins.
    """

    capacity: float
    per_second: float
    used_header: str | None = None
    """The response header, if any, that tells what was used of the limit in this clock minute."""

    @property
    def per_minute(self) -> float:
        """The exchange's limit."""
        return self.capacity + _MINUTE_SECONDS * self.per_second


class Budget:
    """The bucket of one exchange and egress; `share` is the part of the limit it may use."""

    def __init__(
        self, database: Database, exchange: str, egress: str, tariff: Tariff, *, share: float
    ) -> None:
        self._database = database
        self._exchange = exchange
        self._tariff = tariff
        self._bucket = {
            "exchange": exchange,
            "egress": egress,
            "capacity": tariff.capacity * share,
            "per_second": tariff.per_second * share,
        }
        self._is_open = False
        self._queue = asyncio.Lock()  # first come, first served inside a process
        self._ceiling = _NO_CEILING
        self._ceiling_minute = 0

    async def take(self, weight: float, *, until: float | None) -> None:
        """Spend `weight`, waiting for it until the event loop's time `until` at the most.

        Raises:
            RateLimited: It can't be had before then; nothing was spent.
        """
        async with self._queue:
            while (wait := await self._try_to_take(weight)) > 0:
                if until is not None and asyncio.get_running_loop().time() + wait > until:
                    raise RateLimited(self._exchange, wait)
                await asyncio.sleep(wait * random.uniform(1.0, 1.1))  # noqa: S311 - not a secret

    async def block(self, seconds: float, why: str) -> None:
        """Have everybody behind this egress wait: the exchange said so."""
        async with self._database.connection() as connection:
            await connection.execute(_BLOCK, {**self._bucket, "seconds": seconds, "why": why})

    def heed(self, headers: Mapping[str, str], sent_at: float) -> None:
        """Believe the exchange when it says how much of its limit is used in a clock minute.

        Args:
            headers: Of an answer.
            sent_at: When it was asked for (seconds since the epoch): the minute that is meant.
        """
        used = headers.get(self._tariff.used_header) if self._tariff.used_header else None
        if used is not None and used.isdigit():
            self._ceiling = self._tariff.per_minute - int(used)
            self._ceiling_minute = _minute(sent_at)

    async def _try_to_take(self, weight: float) -> float:
        ceiling = self._ceiling if self._ceiling_minute == _minute() else _NO_CEILING
        if ceiling < weight:
            return _MINUTE_SECONDS - time.time() % _MINUTE_SECONDS
        async with self._database.connection() as connection:
            if not self._is_open:
                await connection.execute(_OPEN, self._bucket)
            what = {**self._bucket, "ceiling": ceiling, "weight": weight}
            row = await (await connection.execute(_TAKE, what)).fetchone()
        self._is_open = True
        return float(row[0]) if row else 0.0


def _minute(seconds: float | None = None) -> int:
    return int((time.time() if seconds is None else seconds) // _MINUTE_SECONDS)
