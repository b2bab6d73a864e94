"""The rate budget of one exchange: the tokens for this process, by priority.

Every process behind one egress shares one bucket (`storage/jobs/rate_budgets`). A bucket of
`capacity` refilled at `per_second` spends at most capacity + 60 x per_second in any minute. The
scheduler decides which request of a process is next.
"""

import time
from collections.abc import Mapping, Sequence
from itertools import accumulate

from mdp_core.ratelimit.priority import Priority
from mdp_core.ratelimit.tariff import MINUTE_SECONDS, Tariff
from mdp_core.storage.database.database import Database
from mdp_core.storage.jobs.rate_budgets import BucketSize, Grant, RateBudget

# The part of a full bucket that is left to higher priorities.
_FLOORS = {Priority.INTERACTIVE: 0.0, Priority.WARMING: 0.05, Priority.BACKFILL: 0.15}

_NO_CEILING = 1e12


class Budget:
    """The tokens that one process may take from an exchange's bucket, by priority.

    Args:
        database: Holds the bucket.
        exchange: Its name.
        egress: Names the IP address that the exchange sees.
        tariff: The limit that the exchange sets.
        share: The part of it that may be used.
        heaviest: The weight of the heaviest request.
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
        size = BucketSize(tariff.capacity * share, tariff.per_second * share)
        self._bucket = RateBudget(database, exchange, egress, size)
        self._tariff = tariff
        self._per_second = size.per_second
        self._floors = _floors(size.capacity, heaviest)
        self._ceiling = _NO_CEILING
        self._ceiling_minute = 0
        self._spent, self._spent_minute = 0.0, 0

    async def take(self, weights: Sequence[float], priority: Priority) -> Grant:
        """Take the tokens of as many requests, in their order, as the bucket holds.

        Raises:
            StoreUnavailable: The database can't be reached; nothing was taken.
        """
        ceiling = self._ceiling if self._ceiling_minute == _minute() else _NO_CEILING
        if ceiling < weights[0]:
            return Grant(0, MINUTE_SECONDS - time.time() % MINUTE_SECONDS)
        sums = list(accumulate(map(float, weights)))
        grant = await self._bucket.take(sums, floor=self._floors[priority], ceiling=ceiling)
        if grant.count:
            self._spent = self.spent + sums[grant.count - 1]
            self._spent_minute = _minute()
        return grant

    @property
    def spent(self) -> float:
        """The weight that this process has taken in this clock minute."""
        return self._spent if self._spent_minute == _minute() else 0.0

    def refill_seconds(self, weight: float) -> float:
        """Return the seconds in which tokens for `weight` come in."""
        return weight / self._per_second

    async def settle(self, weight: float) -> None:
        """Return tokens that were not spent; a negative weight takes what is owed."""
        await self._bucket.settle(weight)

    async def block(self, seconds: float, why: str) -> None:
        """Let no process behind this egress send a request for so long."""
        await self._bucket.block(seconds, why)

    def observe_limit(self, headers: Mapping[str, str], sent_at: float) -> None:
        """Record how much of its limit the exchange says is used in a clock minute.

        Args:
            headers: Of an answer.
            sent_at: When it was requested (seconds since the epoch): names the minute.
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
    """Return the tokens that each priority leaves.

    A backfill leaves as many as the heaviest request takes, up to half a bucket: otherwise its
    light requests, in another process, would take every token before a heavy interactive request
    has enough.
    """
    floors = {priority: capacity * part for priority, part in _FLOORS.items()}
    backfill = max(floors[Priority.BACKFILL], min(heaviest, capacity / 2))
    return {**floors, Priority.BACKFILL: backfill}


def _minute(seconds: float | None = None) -> int:
    return int((time.time() if seconds is None else seconds) // MINUTE_SECONDS)
