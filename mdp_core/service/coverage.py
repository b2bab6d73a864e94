"""The coverage of a series, and the reasons for its gaps."""

import asyncio
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from itertools import islice, pairwise

import numpy as np

from mdp_core.domain.intervals import Grid, Int64s
from mdp_core.domain.queries import CandleQuery
from mdp_core.domain.series import Series
from mdp_core.domain.watermarks import Watermarks
from mdp_core.domain.windows import Window, common, intersect, subtract
from mdp_core.errors import LimitTooLarge
from mdp_core.fill.market import MarketContext
from mdp_core.logs import note
from mdp_core.ratelimit.context import RequestContext
from mdp_core.series.resolver import SeriesResolver
from mdp_core.storage.candles.absences import AbsenceStore
from mdp_core.storage.candles.candle_store import CandleStore

_MOST_SLOTS = 100_000


class SlotState(StrEnum):
    """The knowledge of a window."""

    COVERED = "covered"
    CANDLES = "candles"
    NO_CANDLES = "no_candles"
    UNCONFIRMED = "unconfirmed"
    BEFORE_HISTORY = "before_history"
    BEYOND_MEMORY = "beyond_memory"
    NOT_FETCHED = "not_fetched"
    REJECTED = "rejected"


@dataclass(frozen=True, slots=True, order=True)
class Span:
    """A window all of whose slots are in one state."""

    window: Window
    state: SlotState
    source: str | None = None
    """How that is known, of what lies before the history."""


@dataclass(frozen=True, slots=True)
class CoveragePage:
    """The first spans of a window, ascending and without holes, and the rest."""

    spans: list[Span]
    rest: Window


class Coverage:
    """Tells what is stored, from coverage and not from candles."""

    def __init__(
        self,
        store: CandleStore,
        absences: AbsenceStore,
        resolver: SeriesResolver,
        markets: Mapping[tuple[str, str], MarketContext],
    ) -> None:
        self._store = store
        self._absences = absences
        self._resolver = resolver
        self._markets = markets

    async def spans(self, query: CandleQuery, most: int, context: RequestContext) -> CoveragePage:
        """Part the window (without bounds: from the history start to now) into spans.

        Args:
            query: Of which series and window.
            most: How many spans are told.
            context: On whose behalf the exchange is asked.

        Raises:
            InvalidWindow: `start` lies after `end`.
            MdpError: The series is unknown or the exchange's clock can't be read.
        """
        series, watermarks, window = await self._resolve(query, context)
        return _told(window, await self._spans(series, watermarks, window), most)

    async def detailed_spans(
        self, query: CandleQuery, most: int, context: RequestContext
    ) -> CoveragePage:
        """Part covered spans further, into slots with candles and without.

        Raises:
            LimitTooLarge: The window has more than 100,000 slots.
            MdpError: As `spans`.
        """
        series, watermarks, window = await self._resolve(query, context)
        slots = series.grid.count(window.start, window.end)
        if slots > _MOST_SLOTS:
            what, advice = "detail=true: the window's count of slots", "ask for a shorter window"
            raise LimitTooLarge(slots, _MOST_SLOTS, what=what, advice=advice)
        spans = await self._spans(series, watermarks, window)
        candles = await self._store.read(series.id, window)
        occupied = series.grid.indices(candles.time)
        parts = _in_detail(spans, occupied, series.grid)
        return await asyncio.to_thread(_told, window, parts, most)  # there may be thousands

    async def _resolve(
        self, query: CandleQuery, context: RequestContext
    ) -> tuple[Series, Watermarks, Window]:
        series = await self._resolver.series(
            query.exchange, query.market_type, query.symbol, query.interval, context
        )
        note(series=str(series))
        market = self._markets[query.exchange, query.market_type]
        watermarks = await market.watermarks(series, query.end, context)
        window = _asked(query, series, watermarks)
        note(window=str(window))
        return series, watermarks, window

    async def _spans(self, series: Series, watermarks: Watermarks, window: Window) -> list[Span]:
        known = window.clip(watermarks.history_start, watermarks.closed_until)
        # Coverage first: what is saved in between is told as not fetched.
        covered = await self._store.covered(series.id, known)
        absences = await self._absences.inside(series.id, known)
        doubts = [absence.window for absence in absences]
        unconfirmed = common(covered, doubts)
        gaps = subtract([known], covered)
        slots = await self._store.rejected_slots(series.id, known)
        rejected = common(gaps, [Window(slot, series.grid.next(slot)) for slot in slots])
        gaps = subtract(gaps, rejected)
        forgotten = Window(watermarks.history_start, watermarks.retention_start)
        states = {
            SlotState.BEFORE_HISTORY: intersect([window], Window(window.start, known.start)),
            SlotState.COVERED: subtract(covered, unconfirmed),
            SlotState.UNCONFIRMED: unconfirmed,
            SlotState.REJECTED: rejected,
            SlotState.BEYOND_MEMORY: intersect(gaps, forgotten),
            SlotState.NOT_FETCHED: subtract(gaps, [forgotten]),
        }
        known_by = {SlotState.BEFORE_HISTORY: series.history_source}
        return sorted(
            Span(part, state, known_by.get(state))
            for state, parts in states.items()
            for part in parts
        )


def _asked(query: CandleQuery, series: Series, watermarks: Watermarks) -> Window:
    grid = series.grid
    end = (
        watermarks.closed_until
        if query.end is None
        else min(grid.ceil(query.end), watermarks.closed_until)
    )
    start = min(watermarks.history_start, end) if query.start is None else grid.ceil(query.start)
    return Window(start, max(start, end))


def _told(window: Window, parts: Iterable[Span], most: int) -> CoveragePage:
    spans = list(islice(parts, most))
    end = spans[-1].window.end if spans else window.end
    return CoveragePage(spans, Window(end, window.end))


def _in_detail(spans: Iterable[Span], occupied: Int64s, grid: Grid) -> Iterator[Span]:
    for span in spans:
        if span.state is SlotState.COVERED:
            yield from _by_slot(span.window, occupied, grid)
        else:
            yield span


def _by_slot(window: Window, occupied: Int64s, grid: Grid) -> Iterator[Span]:
    """Part a covered window at each change between slots with candles and without."""
    first, stop = grid.index(window.start), grid.index(window.end)
    has_candle = np.zeros(stop - first, np.bool_)
    has_candle[occupied[(occupied >= first) & (occupied < stop)] - first] = True
    cuts = np.flatnonzero(np.diff(has_candle)) + 1
    for begin, end in pairwise([0, *cuts.tolist(), stop - first]):
        state = SlotState.CANDLES if has_candle[begin] else SlotState.NO_CANDLES
        yield Span(Window(grid.at(first + begin), grid.at(first + end)), state)
