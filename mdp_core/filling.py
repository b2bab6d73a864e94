"""The life of a page: what it lacks is asked for, doubted, sifted and saved.

One task per page in a process, owned here and not by the requests that wait for it: a client that
leaves cancels nothing, and whoever else wants the page waits for the same task.
"""

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from functools import partial

import numpy as np

from mdp_core.clock import to_ms
from mdp_core.errors import BadRows, MdpError
from mdp_core.exchanges.base import ExchangeAdapter
from mdp_core.intervals import Grid, Int64s
from mdp_core.model import Candles, Series, Window, hull
from mdp_core.planner import (
    Page,
    Reach,
    absent_slots,
    adjacent_runs,
    doubtful_slots,
    final_until,
    remarkable_slots,
    subtract,
)
from mdp_core.store import CandleStore
from mdp_core.validation import Sifted, sift

# How long to wait before an absent candle is asked for once more.
_DOUBT_SECONDS = 2.0
# How long it is believed where an exchange's memory was seen to end.
_FORGOTTEN_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class Tail:
    """Closed candles that are not final yet, all there were in `window` when it was asked for."""

    window: Window
    candles: Candles
    fresh_until: float
    at_edge: bool
    """Whether `window` ended at the last closed candle then."""


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a page could not be filled."""

    page: Page
    error: MdpError


class PageFiller:
    """Makes the store equal one exchange, page by page."""

    def __init__(self, adapter: ExchangeAdapter, store: CandleStore, *, concurrency: int) -> None:
        self._adapter = adapter
        self._store = store
        self._free = asyncio.Semaphore(concurrency)
        self._tasks: dict[tuple[int, int], asyncio.Task[None]] = {}
        self._tails: dict[tuple[int, int], Tail] = {}
        self._remembered_from: dict[int, tuple[datetime, float]] = {}

    @property
    def page_size(self) -> int:
        """Slots of one page."""
        return self._adapter.facts.page_size

    async def fill(self, series: Series, pages: Sequence[Page], reach: Reach) -> list[Failure]:
        """Fill the pages, or wait for those who are filling them; what succeeded stays stored."""
        self._start(series, pages, reach)
        tasks = [self._tasks[series.id, page.index] for page in pages]
        results = await asyncio.gather(*map(asyncio.shield, tasks), return_exceptions=True)
        failures: list[Failure] = []
        for page, result in zip(pages, results, strict=True):
            if isinstance(result, MdpError):
                failures.append(Failure(page, result))
            elif isinstance(result, BaseException):
                raise result
        return failures

    def tails(self, series: Series, window: Window) -> list[Tail]:
        """Give what was asked for so lately that it is not asked for again, ascending."""
        now = time.monotonic()
        return sorted(
            (
                tail
                for (series_id, _), tail in self._tails.items()
                if series_id == series.id
                and tail.fresh_until > now
                and not tail.window.clip(window.start, window.end).is_empty
            ),
            key=lambda tail: tail.window,
        )

    def throttled(self, series: Series, reach: Reach) -> Reach:
        """Cut a reach where a fresh tail ended at the live edge: the rest is not asked for yet."""
        tails = self.tails(series, Window(reach.begins, reach.closed))
        ends = [tail.window.end for tail in tails if tail.at_edge]
        return replace(reach, closed=ends[-1]) if ends else reach

    def remembered(self, series: Series, reach: Reach) -> Reach:
        """Cut a reach where the exchange was seen to have forgotten what lies before."""
        seen, until = self._remembered_from.get(series.id, (reach.earliest, 0.0))
        if time.monotonic() >= until:
            return reach
        return replace(reach, earliest=min(max(reach.earliest, seen), reach.closed))

    async def close(self) -> None:
        """End the tasks that still run; what they had saved stays."""
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _start(self, series: Series, pages: Sequence[Page], reach: Reach) -> None:
        """Have a task for each page; adjacent ones that are new share one, and its request."""
        new = [page for page in pages if (series.id, page.index) not in self._tasks]
        for run in adjacent_runs(new, self._adapter.facts.pages_per_request):
            task = asyncio.create_task(self._fill(series, run, reach))
            keys = [(series.id, page.index) for page in run]
            self._tasks |= dict.fromkeys(keys, task)
            task.add_done_callback(partial(self._forget, keys))

    def _forget(self, keys: Sequence[tuple[int, int]], task: asyncio.Task[None]) -> None:
        for key in keys:
            del self._tasks[key]
        if not task.cancelled():
            task.exception()  # nobody may be left to see it

    async def _fill(self, series: Series, run: Sequence[Page], reach: Reach) -> None:
        async with self._free:
            whole = hull([page.window for page in run])
            gaps = await self._store.missing(series.id, whole)
            if not gaps:
                return
            resting = await self._store.resting_slots(series.id, whole)
            gaps = subtract(gaps, [Window(slot, series.grid.next(slot)) for slot in resting])
            if not gaps:
                raise BadRows(series.exchange, resting, "seen several times")
            window = hull(gaps)
            sifted = await self._ask(series, window, reach)
        absent = _absent(sifted, series.grid, window)
        final = window.clip(window.start, final_until(absent, series.grid, reach))
        final = self._without_forgotten(series, final, absent, reach)
        wrong = [row.slot for row in sifted.rejected]
        known = subtract([final], [Window(slot, series.grid.next(slot)) for slot in wrong])
        await self._store.save(series.id, known, sifted.candles, sifted.rejected)
        if wrong:
            raise BadRows(series.exchange, wrong, sifted.rejected[0].reason)
        tail = window.clip(final.end, window.end)
        self._keep_tail(series, run[-1], tail, sifted.candles, at_edge=tail.end == reach.closed)

    def _without_forgotten(
        self, series: Series, final: Window, absent: Int64s, reach: Reach
    ) -> Window:
        """Begin with the first candle where memory ends: before it nothing is known."""
        grid = series.grid
        if final.start != reach.earliest or reach.earliest == reach.begins:
            return final
        first = grid.index(final.start)
        leading = int((absent == np.arange(first, first + len(absent))).sum())
        if leading:
            until = time.monotonic() + _FORGOTTEN_SECONDS
            self._remembered_from[series.id] = (grid.at(first + leading), until)
        return final.clip(grid.at(first + leading), final.end)

    def _keep_tail(
        self, series: Series, page: Page, window: Window, candles: Candles, *, at_edge: bool
    ) -> None:
        now = time.monotonic()
        self._tails = {key: tail for key, tail in self._tails.items() if tail.fresh_until > now}
        if not window.is_empty:
            fresh_until = now + self._adapter.facts.tail_seconds
            tail = Tail(window, candles.inside(window), fresh_until, at_edge)
            self._tails[series.id, page.index] = tail

    async def _ask(self, series: Series, window: Window, reach: Reach) -> Sifted:
        """Ask for `window`, and once more for absent slots that would count as "no candle"."""
        grid, symbol, interval = series.grid, series.symbol, series.interval
        candles = await self._adapter.fetch_page(symbol, interval, window)
        sifted = sift(candles, grid, window)
        doubtful = doubtful_slots(_absent(sifted, grid, window), grid, reach)
        if not self._adapter.facts.publishes_every_interval:
            doubtful = remarkable_slots(doubtful, grid, window)
        if not len(doubtful):
            return sifted
        await asyncio.sleep(_DOUBT_SECONDS)
        again = Window(grid.at(int(doubtful[0])), grid.at(int(doubtful[-1]) + 1))
        more = await self._adapter.fetch_page(symbol, interval, again)
        return sift(Candles.concatenate([candles, more]), grid, window)


def _absent(sifted: Sifted, grid: Grid, window: Window) -> Int64s:
    """Give the slots for which nothing came, neither a right row nor a wrong one."""
    wrong = [to_ms(row.slot) for row in sifted.rejected]
    times = np.concatenate([sifted.candles.time, np.array(wrong, np.int64)])
    return absent_slots(times, grid, window)
