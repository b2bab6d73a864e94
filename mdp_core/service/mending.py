"""The correction of compared pages: what two observations agree on is taken.

Nothing is destroyed by one answer: what differs is asked for again, some seconds later and by
another width, and a page that would lose many candles is left as it is.
"""

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from mdp_core.domain.clock import from_ms, to_ms
from mdp_core.domain.comparison import Comparison, compare
from mdp_core.domain.intervals import Grid, Int64s
from mdp_core.domain.series import Series
from mdp_core.domain.windows import Window
from mdp_core.errors import BadPayload
from mdp_core.exchanges.validation import Observation
from mdp_core.ratelimit.context import RequestContext
from mdp_core.ratelimit.priority import Priority
from mdp_core.service.stored_pages import ComparedPage, StoredPage, observe
from mdp_core.storage.candles.candle_store import CandleStore
from mdp_core.storage.candles.corrections import Correction, Finder

# A page is left as it is that would lose this many candles, if they are more than this part of it.
_MANY_CANDLES = 10
_LARGE_PART = 0.05


@dataclass(frozen=True, slots=True)
class RepairMode:
    """`dry_run` changes nothing; `force` lets a page lose what live answers lack."""

    dry_run: bool = False
    force: bool = False
    found_by: Finder = Finder.REPAIR


@dataclass(frozen=True, slots=True)
class KeptPage:
    """A page some of which stays as stored though the exchange answers otherwise."""

    window: Window
    reason: str
    yields_to_force: bool = False
    """Whether `RepairMode.force` would have it changed."""


@dataclass(slots=True)
class RepairReport:
    """Counts of changed candles, and what was kept."""

    replaced: int = 0
    added: int = 0
    deleted: int = 0
    kept: list[KeptPage] = field(default_factory=list[KeptPage])

    def keep_start(self, series: Series, reason: str | None) -> None:
        """Add that the history start of a series stays, if there is a reason."""
        if reason and (start := series.history_start):
            first = Window(start, series.grid.next(start))
            self.kept.append(KeptPage(first, reason))

    def count(self, applied: Comparison) -> None:
        """Add the changes of a page."""
        self.replaced += len(applied.differing) + len(applied.fillable)
        self.added += len(applied.missing)
        self.deleted += len(applied.extra)


class Mender:
    """Corrects pages that were found to differ."""

    def __init__(self, store: CandleStore, *, pause_seconds: float) -> None:
        self._store = store
        self._pause_seconds = pause_seconds

    async def mend(self, page: ComparedPage, mode: RepairMode, report: RepairReport) -> None:
        """Take what two observations agree on, unless the page would lose too much.

        Raises:
            MdpError: The exchange or the store can't be had.
        """
        if page.bad_slots:
            _keep(report, page, f"{len(page.bad_slots)} answered row(s) can't be right")
        if page.doubt:
            _keep(report, page, page.doubt)
            return
        if not len(page.comparison.changeable):
            return
        if not mode.force and (reason := _loss(page)):
            _keep(report, page, reason, yields_to_force=True)
            return
        times, seen = await self._confirmed(page)
        if unsure := len(page.comparison.changeable) - len(times):
            _keep(report, page, f"a second answer did not confirm {unsure} change(s)")
        if len(times):
            report.count(await self._take(page, times, seen, mode))

    async def _confirmed(self, page: ComparedPage) -> tuple[Int64s, Sequence[Observation]]:
        """Ask again for what would change.

        Returns:
            The times at which all live answers agree, and these answers.
        """
        await asyncio.sleep(page.observed_at + self._pause_seconds - time.monotonic())
        of = page.page.of
        slots = of.series.grid.indices(page.comparison.changeable)
        agreed, seen = [page.comparison.changeable[:0]], [page.observation]
        for window in second_questions(slots, page.page):
            try:
                again = await observe(of, window, page.stored)
            except BadPayload:
                continue
            if again.is_witness:
                agreed.append(_agreed(page, again))
                seen.append(again)
        return np.unique(np.concatenate(agreed)), seen

    async def _take(
        self, page: ComparedPage, times: Int64s, seen: Sequence[Observation], mode: RepairMode
    ) -> Comparison:
        """Take the answered candles at `times`; doubt the slots that lose theirs."""
        series = page.page.of.series
        candles = page.answered[np.isin(page.answered.time, times)]
        if mode.dry_run:
            return compare(page.stored[np.isin(page.stored.time, times)], candles)
        lost = series.grid.indices(np.intersect1d(times, page.comparison.extra))
        context = RequestContext.at(Priority.BACKFILL)
        doubts = await page.page.of.market.rechecker.doubts(series, lost, seen, context)
        windows = _runs(times, series.grid)
        correction = Correction(series.id, windows, candles, mode.found_by, doubts)
        return await self._store.correct(correction)


def second_questions(slots: Int64s, page: StoredPage) -> list[Window]:
    """Return windows around `slots` (ascending indices), none as wide as the page."""
    grid, size = page.of.series.grid, page.of.market.page_size
    first_width = _width(page.window, grid)
    width = size if first_width != size else size - 1
    windows: list[Window] = []
    while len(slots):
        inside = slots[slots < slots[0] + width]
        begin = int(inside[0]) - (width - int(inside[-1] - inside[0] + 1)) // 2
        around = Window(grid.at(begin), grid.at(begin + width))
        askable = around.clip(page.of.askable.start, page.of.askable.end)
        windows += _halves(askable, grid) if _width(askable, grid) == first_width else [askable]
        slots = slots[len(inside) :]
    return windows


def _keep(
    report: RepairReport, page: ComparedPage, reason: str, *, yields_to_force: bool = False
) -> None:
    report.kept.append(KeptPage(page.page.window, reason, yields_to_force))


def _loss(page: ComparedPage) -> str | None:
    """Return what a page would lose, None if that is little."""
    lost, held = len(page.comparison.extra), len(page.stored)
    if lost >= _MANY_CANDLES and lost > held * _LARGE_PART:
        return f"the answer lacks {lost} of {held} candles"
    return None


def _width(window: Window, grid: Grid) -> int:
    return grid.index(window.end) - grid.index(window.start)


def _halves(window: Window, grid: Grid) -> list[Window]:
    middle = grid.at((grid.index(window.start) + grid.index(window.end)) // 2)
    halves = [Window(window.start, middle), Window(middle, window.end)]
    return [half for half in halves if not half.is_empty]


def _agreed(page: ComparedPage, again: Observation) -> Int64s:
    """Return the times of changes that a second observation of them confirms."""
    asked = _inside(page.comparison.changeable, again.window)
    disagreeing = compare(page.answered.inside(again.window), again.candles).unequal
    bad = np.array([to_ms(row.slot) for row in again.rejected], np.int64)
    return asked[~np.isin(asked, np.concatenate([disagreeing, bad]))]


def _inside(times: Int64s, window: Window) -> Int64s:
    return times[(times >= to_ms(window.start)) & (times < to_ms(window.end))]


def _runs(times: Int64s, grid: Grid) -> Sequence[Window]:
    """Return the slots of ascending times as windows, neighbours joined."""
    slots = grid.indices(times)
    starts = np.flatnonzero(np.diff(slots, prepend=slots[0] - 2) != 1)
    stops = [*starts[1:], len(slots)]
    return [
        Window(from_ms(int(times[start])), grid.at(int(slots[stop - 1]) + 1))
        for start, stop in zip(starts, stops, strict=True)
    ]
