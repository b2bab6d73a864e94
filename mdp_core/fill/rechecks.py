"""Ask again for absent slots that are covered: store candles, confirm the rest."""

import asyncio
import logging
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import datetime, timedelta

import numpy as np

from mdp_core.domain.candles import Candles
from mdp_core.domain.intervals import Int64s
from mdp_core.domain.series import Series
from mdp_core.domain.watermarks import Watermarks
from mdp_core.domain.windows import Window, hull, intersect, subtract
from mdp_core.errors import ExchangeError, MdpError
from mdp_core.exchanges.clock import ExchangeClock
from mdp_core.exchanges.validation import Observation
from mdp_core.fill.absence import (
    RecheckPlan,
    asked_together,
    confirmed_slots,
    present_slots,
    runs_of,
    slots_of,
)
from mdp_core.fill.observer import Observer
from mdp_core.ratelimit.context import RequestContext
from mdp_core.ratelimit.priority import Priority
from mdp_core.storage.candles.absences import Absence, AbsenceStore, clipped
from mdp_core.storage.candles.healing import Healer, Healing

_log = logging.getLogger(__name__)

# How long another process leaves alone what one has claimed.
_CLAIM_SECONDS = 30.0
# When it is tried again where the exchange can't be asked, and where a last recheck was not live.
_TRIED_AGAIN = timedelta(seconds=30)


def new_absences(series: Series, slots: Int64s, plan: RecheckPlan, now: datetime) -> list[Absence]:
    """Return ascending unconfirmed slots as absences that are observed now."""
    grid = series.grid
    return [
        Absence(series.id, run, now, plan.next_due(run, grid, now, now) or now)
        for run in runs_of(slots, grid)
    ]


class Rechecker:
    """Rechecks the absences of one exchange and market type."""

    def __init__(
        self,
        observer: Observer,
        exchange_clock: ExchangeClock,
        healer: Healer,
        absences: AbsenceStore,
        plan: RecheckPlan,
    ) -> None:
        self._observer = observer
        self._exchange_clock = exchange_clock
        self._healer = healer
        self._absences = absences
        self._plan = plan
        self._tasks: dict[int, asyncio.Task[None]] = {}
        self._claimed: dict[object, Sequence[Absence]] = {}

    def begin(self, series: Series, due: datetime) -> None:
        """Start to recheck due slots of a series, first at `due`, unless under way."""
        if due <= self._observer.now() and series.id not in self._tasks:
            task = asyncio.create_task(self._recheck_quietly(series))
            self._tasks[series.id] = task
            task.add_done_callback(lambda _: self._tasks.pop(series.id, None))

    async def aclose(self) -> None:
        """End the rechecks that still run, and leave the rest to other processes."""
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        left = [absence for claimed in self._claimed.values() for absence in claimed]
        with suppress(MdpError):  # without the database the claims end by themselves
            await self._absences.release(left, self._observer.now())

    async def recheck(self, series: Series, context: RequestContext) -> int:
        """Ask again for what is due of a series; return how many candles were found.

        Raises:
            MdpError: The exchange or the store can't be had; what was done before stays.
        """
        claimed = await self._absences.claim(
            series.id, self._observer.now(), seconds=_CLAIM_SECONDS
        )
        found, call = 0, object()
        while claimed:
            self._claimed[call] = claimed
            group, claimed = self._next_group(series, claimed)
            try:
                found += await self._recheck(series, group, context)
            except ExchangeError:
                later = self._observer.now() + _TRIED_AGAIN
                await self._absences.release(self._claimed.pop(call), later)
                raise
        self._claimed.pop(call, None)
        return found

    async def doubts(
        self,
        series: Series,
        absent: Int64s,
        observations: Sequence[Observation],
        context: RequestContext,
    ) -> list[Absence]:
        """Return those of the ascending `absent` slots that observations leave in doubt.

        Raises:
            ExchangeError: The exchange had to be asked for a history end and failed.
        """
        evidence = await self._observer.evidence(series, absent, context)
        confirmed = confirmed_slots(absent, observations, series.grid, evidence)
        doubtful = np.setdiff1d(absent, confirmed, assume_unique=True)
        return new_absences(series, doubtful, self._plan, self._observer.now())

    async def _recheck_quietly(self, series: Series) -> None:
        try:
            await self.recheck(series, RequestContext.at(Priority.BACKFILL))
        except MdpError as error:
            _log.warning("recheck of %s: %s", series, error)

    def _next_group(
        self, series: Series, claimed: Sequence[Absence]
    ) -> tuple[list[Absence], list[Absence]]:
        """Split off the absences that one request asks for."""
        facts = self._observer.facts
        windows = [absence.window for absence in claimed]
        most = facts.page_size * facts.pages_per_request
        first = asked_together(windows, series.grid, facts.tariff.weigh, most)[0]
        count = sum(absence.window.start < first.end for absence in claimed)
        return list(claimed[:count]), list(claimed[count:])

    async def _recheck(
        self, series: Series, group: Sequence[Absence], context: RequestContext
    ) -> int:
        """Ask once for neighbouring absences, and settle what comes of it."""
        whole = hull([absence.window for absence in group])
        watermarks = await self._exchange_clock.watermarks(series, whole.end, context)
        remembered = whole.clip(watermarks.retention_start, whole.end)
        forgotten = whole.clip(whole.start, remembered.start)
        look: Observation | None = None
        if not remembered.is_empty:
            window = self._widened(series, group, remembered, watermarks)
            look = await self._observer.look(series, window, context)
        healing = await self._judged(series, group, look, forgotten, context)
        return await self._healer.heal(healing)

    def _widened(
        self, series: Series, group: Sequence[Absence], window: Window, watermarks: Watermarks
    ) -> Window:
        """Reach farther each time: for candles that are known, and by another width."""
        grid, margin = series.grid, 1 + max(absence.attempts for absence in group)
        facts = self._observer.facts
        first, stop = grid.index(window.start), grid.index(window.end)
        room = max(facts.page_size * facts.pages_per_request - (stop - first), 0) // 2
        margin = min(margin, room)
        first = max(first - margin, grid.index(watermarks.retention_start))
        stop = min(stop + margin, max(grid.index(watermarks.settled_until), stop))
        return Window(grid.at(first), grid.at(stop))

    async def _judged(
        self,
        series: Series,
        group: Sequence[Absence],
        look: Observation | None,
        forgotten: Window,
        context: RequestContext,
    ) -> Healing:
        """Tell what is found, forgotten, and still in doubt; the rest is confirmed."""
        windows = [absence.window for absence in group]
        lost = [part for window in windows for part in intersect([window], forgotten)]
        if look is None:
            return Healing(series.id, windows, Candles.empty(), (), (), (), lost)
        wrong = [Window(row.slot, series.grid.next(row.slot)) for row in look.rejected]
        lost += [part for slot in wrong for part in intersect(windows, slot)]
        doubtful = await self._doubtful(series, windows, look, context)
        parts = subtract(runs_of(doubtful, series.grid), lost)
        later = (self._later(series, absence, look) for absence in clipped(group, parts))
        still = [absence for absence in later if absence]
        found = runs_of(series.grid.indices(look.candles.time), series.grid)
        return Healing(series.id, windows, look.candles, found, look.rejected, still, lost)

    async def _doubtful(
        self, series: Series, windows: Sequence[Window], look: Observation, context: RequestContext
    ) -> Int64s:
        """Return the slots that were not found and are not confirmed by their place alone."""
        absent = np.setdiff1d(slots_of(windows, series.grid), present_slots(look, series.grid))
        evidence = await self._observer.evidence(series, absent, context)
        confirmed = confirmed_slots(absent, [look], series.grid, evidence)
        return np.setdiff1d(absent, confirmed)

    def _later(self, series: Series, absence: Absence, look: Observation) -> Absence | None:
        """Return an absence as it is after this recheck; None: it is confirmed."""
        now, grid = self._observer.now(), series.grid
        live = now if look.is_witness else absence.last_live_at
        due = self._plan.next_due(absence.window, grid, absence.first_observed_at, now)
        if due is None and look.is_witness:
            return None
        due = due or now + _TRIED_AGAIN
        return replace(absence, next_due_at=due, attempts=absence.attempts + 1, last_live_at=live)
