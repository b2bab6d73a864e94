"""When a job is due, so that every syncer comes to the same answer."""

import random
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from apscheduler.triggers.base import BaseTrigger
from typing_extensions import override

from mdp_core.domain.clock import EPOCH, Clock

# A clock that runs fast makes jobs due more often than they can be run.
_SHORTEST = timedelta(seconds=1)


@dataclass(frozen=True, slots=True)
class Schedule:
    """Due at every multiple of `period` from the epoch, and run `delay` after that.

    Both are durations of the time that `clock` shows: candles close by the exchanges' time. What
    is given and taken are real times (UTC), so that a clock that is set back repeats no run.
    """

    period: timedelta
    clock: Clock
    delay: timedelta = timedelta(0)

    def last_due(self, now: datetime) -> datetime:
        """Tell when the run was due whose delay was over last."""
        return self.clock.real(self._due(self._index(now)))

    def next_start(self, after: datetime) -> datetime:
        """Tell when the next run is to be started."""
        return self.clock.real(self._due(self._index(after) + 1) + self.delay)

    def _index(self, real: datetime) -> int:
        return (self.clock.at(real) - self.delay - EPOCH) // self._step

    def _due(self, index: int) -> datetime:
        return EPOCH + index * self._step

    @property
    def _step(self) -> timedelta:
        return max(self.period, _SHORTEST * self.clock.speed)


class ScheduleTrigger(BaseTrigger):
    """APScheduler's trigger for a schedule; jitter keeps syncers apart."""

    def __init__(self, schedule: Schedule, jitter: float) -> None:
        self._schedule = schedule
        self._jitter = jitter

    @override
    def get_next_fire_time(  # pyright: ignore[reportIncompatibleMethodOverride]
        self, previous_fire_time: datetime | None, now: datetime
    ) -> datetime:
        """Give the next start after the previous one, or after now."""
        start = self._schedule.next_start((previous_fire_time or now).astimezone(UTC))
        return start + timedelta(seconds=random.uniform(0, self._jitter))  # noqa: S311
