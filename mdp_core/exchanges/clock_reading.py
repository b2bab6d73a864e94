"""Readings of one exchange's clock: shared, compared with ours, cached."""

import asyncio
import contextvars
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

from mdp_core.domain.clock import Clock
from mdp_core.errors import ClockSkew, ExchangeError, ExchangeUnavailable, MdpError
from mdp_core.exchanges.base import ExchangeAdapter
from mdp_core.ratelimit.context import DEFAULT_CONTEXT, RequestContext
from mdp_core.ratelimit.priority import Priority, Urgency
from mdp_core.storage.database.clock_offsets import ClockOffsets

_log = logging.getLogger(__name__)

# Clocks drift by milliseconds an hour.
_KEPT_SECONDS = 600.0
_RETRY_SECONDS = 30.0
# How long a reading that can't be believed, or a failure, is told to every request.
_DOUBTED_SECONDS = 5.0
# How long a request waits for an exchange where the database knows enough.
_PATIENCE_SECONDS = 2.0
# By more than this the clocks of one machine part only if one of them is set.
_JUMP_SECONDS = 1.0
# A time before that, or a year after ours, is in another unit, or no time at all.
_EARLIEST = datetime(2015, 1, 1, tzinfo=UTC)
_LATEST = timedelta(days=366)
# Without the exchange's clock only what is older by this is closed.
SURELY_CLOSED = timedelta(days=1)


@dataclass(frozen=True, slots=True)
class Times:
    """The times of a moment: the earlier and the later of both clocks.

    With a `problem` nothing may be concluded of what lies beyond `earlier`.
    """

    earlier: datetime
    later: datetime
    problem: ExchangeError | None = None


@dataclass(frozen=True, slots=True)
class _Moment:
    """A moment on our clock (`shown`), and on the monotonic one, in seconds."""

    shown: datetime
    monotonic: float


@dataclass(frozen=True, slots=True)
class _Reading:
    """An answer of the exchange's clock; `ahead` of ours is None where it is no time."""

    at: _Moment
    told: datetime
    ahead: timedelta | None
    tolerance: timedelta
    until: float

    @property
    def is_believed(self) -> bool:
        """True if it agrees with our clock."""
        return self.ahead is not None and abs(self.ahead) <= self.tolerance


@dataclass(frozen=True, slots=True)
class _DatabaseReading:
    """By how much the database's clock is ahead of ours, and an exchange's was of it."""

    at: _Moment
    ahead: timedelta
    offset: timedelta | None


class ClockReader:
    """Reads an exchange's clock for a process; all requests share the result.

    Args:
        adapter: Of the exchange.
        clock: Ours.
        offsets: What the database knows.
        tolerance: By how much the clocks may differ.
        monotonic: Seconds of a clock that is never set.
    """

    def __init__(
        self,
        adapter: ExchangeAdapter,
        clock: Clock,
        offsets: ClockOffsets,
        tolerance: timedelta,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._adapter = adapter
        self._clock = clock
        self._offsets = offsets
        self._tolerance = tolerance
        self.monotonic = monotonic
        self._reading: _Reading | None = None
        self._database: _DatabaseReading | None = None
        self._asking_database = asyncio.Lock()
        self._task: asyncio.Task[None] | None = None
        self._task_since, self._urgency = 0.0, Urgency(Priority.BACKFILL)
        self._failure: ExchangeError | None = None
        self._failed_until = 0.0

    @property
    def ours(self) -> datetime:
        """The time that our own clock shows."""
        return self._clock()

    async def times(
        self, end: datetime | None = None, context: RequestContext = DEFAULT_CONTEXT
    ) -> Times:
        """Give the time by the exchange's clock and ours.

        Args:
            end: Nothing later is of interest; None: everything is.
            context: On whose behalf the exchange is asked.

        Raises:
            StoreUnavailable: The exchange can't be asked, and the database neither.
        """
        reading = self._fresh() or await self._read_again(end, context)
        if reading is None:
            return await self._without_exchange()
        if reading.ahead is None:
            problem = self._skew(reading.told)
            return Times(await self._surely_closed(), self.ours, problem)
        return self._compare(self.ours + reading.ahead, reading.tolerance)

    async def times_without_asking(self, end: datetime) -> Times | None:
        """Return the time as far as matters before `end`, if known without a request."""
        if self._fresh():
            return await self.times(end)
        surely_closed = await self._surely_closed()
        return Times(surely_closed, self.ours) if end <= surely_closed else None

    async def aclose(self) -> None:
        """Ask no more."""
        if self._task:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    def _fresh(self) -> _Reading | None:
        """Give the last reading where it still counts; an old one is replaced meanwhile."""
        known = self._reading
        if known is None or self._was_set_since(known.at):
            return None
        if self.monotonic() >= known.until:
            if not known.is_believed:
                return None
            # It is no caller's request: neither counted nor logged as one.
            contextvars.Context().run(self._start, DEFAULT_CONTEXT)
        return known

    async def _read_again(self, end: datetime | None, context: RequestContext) -> _Reading | None:
        """Read the clock together with all who wait for it; None: it can't be read."""
        if self.monotonic() < self._failed_until:
            return None
        task = self._start(context)
        left: float | None = None
        if await self._is_dispensable(end):
            left = max(0.0, self._task_since + _PATIENCE_SECONDS - self.monotonic())
        with self._adapter.room.place(context):
            await asyncio.wait({task}, timeout=left)
        return self._fresh() if task.done() and not self._failure else None

    async def _is_dispensable(self, end: datetime | None) -> bool:
        """Tell whether the database knows enough to do without the exchange."""
        database = await self._read_database()
        return database.offset is not None or (
            end is not None and end <= await self._surely_closed()
        )

    def _start(self, context: RequestContext) -> asyncio.Task[None]:
        if self._task is None or self._task.done():
            self._task_since, self._urgency = self.monotonic(), Urgency(context.priority)
            # A caller may go before the answer comes, with its permit and its deadline.
            alone = RequestContext(self._urgency, context.upstream)
            self._task = asyncio.create_task(self._read(alone))
        context.urgency.lead(self._urgency)
        return self._task

    async def _read(self, context: RequestContext) -> None:
        begun = self.monotonic()
        try:
            told = await self._adapter.bound(context).server_time()
        except ExchangeError as error:
            self._fail(error)
            return
        at = self._moment()  # the answer was under way: the exchange's clock is ahead, if at all
        is_time = _EARLIEST <= told <= at.shown + _LATEST
        round_trip = timedelta(seconds=(at.monotonic - begun) * self._clock.speed)
        ahead = told - at.shown if is_time else None
        reading = _Reading(at, told, ahead, self._tolerance + round_trip, at.monotonic)
        kept = _KEPT_SECONDS if reading.is_believed else _DOUBTED_SECONDS
        self._reading, self._failure = replace(reading, until=at.monotonic + kept), None
        if reading.is_believed:
            await self._keep(reading)
        else:
            _log.warning("clocks apart: %s", self._skew(told))

    def _fail(self, error: ExchangeError) -> None:
        """Record a failure; an accepted reading stays so, unless our clock was set."""
        now = self.monotonic()
        self._failure, self._failed_until = error, now + _DOUBTED_SECONDS
        if self._reading and self._reading.is_believed:
            self._reading = replace(self._reading, until=now + _RETRY_SECONDS)

    async def _keep(self, reading: _Reading) -> None:
        """Have the database know the offset, for processes that can't ask."""
        assert reading.ahead is not None, "it is believed"  # noqa: S101 - for the type checker
        try:
            database = await self._read_database()
            await self._offsets.save(self._adapter.facts.name, reading.ahead - database.ahead)
        except MdpError as error:
            _log.warning("the offset of a clock can't be kept: %s", error)

    async def _without_exchange(self) -> Times:
        """Give the time as far as the database knows the exchange's."""
        database = await self._read_database()
        if database.offset is not None:
            return self._compare(self.ours + database.ahead + database.offset, self._tolerance)
        problem = self._failure or ExchangeUnavailable(
            self._adapter.facts.name, "does not tell the time"
        )
        return Times(await self._surely_closed(), self.ours, problem)

    async def _surely_closed(self) -> datetime:
        """Return a time over by our clock and the database's, both being off by hours."""
        database = await self._read_database()
        return self.ours + min(database.ahead, timedelta(0)) - SURELY_CLOSED

    async def _read_database(self) -> _DatabaseReading:
        async with self._asking_database:
            known = self._database
            if known and self._is_kept(known):
                return known
            read = await self._offsets.read(self._adapter.facts.name)
            at = self._moment()
            self._database = _DatabaseReading(at, self._clock.at(read.now) - at.shown, read.offset)
            return self._database

    def _is_kept(self, known: _DatabaseReading) -> bool:
        is_young = self.monotonic() < known.at.monotonic + _KEPT_SECONDS
        return is_young and not self._was_set_since(known.at)

    def _compare(self, theirs: datetime, tolerance: timedelta) -> Times:
        ours = self.ours
        is_apart = abs(theirs - ours) > tolerance
        problem = self._skew(theirs) if is_apart else None
        return Times(min(theirs, ours), max(theirs, ours), problem)

    def _skew(self, theirs: datetime) -> ClockSkew:
        return ClockSkew(self._adapter.facts.name, theirs, self.ours)

    def _moment(self) -> _Moment:
        return _Moment(self._clock(), self.monotonic())

    def _was_set_since(self, at: _Moment) -> bool:
        """Tell whether our clock made a jump: it would be taken for the other one's."""
        least = self.monotonic() - at.monotonic - _JUMP_SECONDS
        passed = (self._clock() - at.shown).total_seconds() / self._clock.speed
        most = self.monotonic() - at.monotonic + _JUMP_SECONDS
        return not least <= passed <= most
