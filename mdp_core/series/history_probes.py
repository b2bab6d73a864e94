"""Questions for a series' first candle, and which answers are believed."""

import asyncio
from datetime import datetime, timedelta

from mdp_core.domain.candles import Candles
from mdp_core.domain.clock import from_ms
from mdp_core.domain.intervals import Grid, Interval, epoch_grid
from mdp_core.domain.series import Symbol
from mdp_core.domain.windows import Window
from mdp_core.errors import BadPayload
from mdp_core.exchanges.base import ExchangeAdapter, OfferedInterval
from mdp_core.ratelimit.context import RequestContext

# Whether each further question is the wider one: the first one was not.
_ASKED_AGAIN = (True, False, True)
_NEAR_LISTING = timedelta(days=1)


class HistoryProbes:
    """Asks exchanges for first candles; `pause_seconds` lie between two questions."""

    def __init__(self, pause_seconds: float) -> None:
        self._pause_seconds = pause_seconds

    async def first(
        self,
        adapter: ExchangeAdapter,
        symbol: Symbol,
        interval: Interval,
        since: datetime | None,
        context: RequestContext,
    ) -> Candles:
        """Ask for the first candles, and once more where the answer is doubtful.

        After a candle that opens at `since`, and tells where a symbol begins, the first one of
        another interval lies inside that: any other answers another question.

        Raises:
            BadPayload: The first one opens where none can, however often it is asked for.
        """
        offered, bound = adapter.facts.intervals[interval], adapter.bound(context)
        within = _told_slot(adapter, since) if since else None
        rows = await bound.fetch_first(symbol, interval, since)
        if not rows or not _can_begin(rows, offered, within):
            await asyncio.sleep(self._pause_seconds)
            rows = await bound.fetch_first_again(symbol, interval, since)
        if rows and not _can_begin(rows, offered, within):
            raise doubtful(adapter, symbol, interval)
        return rows

    async def agreed(
        self, adapter: ExchangeAdapter, symbol: Symbol, interval: Interval, told: list[datetime]
    ) -> Candles:
        """Ask by both widths in turn until an answer to one equals an answer to the other.

        Those that were `told` before are answers to the narrow one. An exchange that answers
        another question the same way twice agrees with itself, by one width.

        Raises:
            BadPayload: No answers by different widths agree.
        """
        offered, wide, narrow = adapter.facts.intervals[interval], set[datetime](), set(told)
        for asked, is_wide in enumerate(_ASKED_AGAIN):
            if asked:  # the first of these is another question than that before
                await asyncio.sleep(self._pause_seconds)
            ask = adapter.fetch_first_again if is_wide else adapter.fetch_first
            rows = await ask(symbol, interval, None)
            if rows and _can_begin(rows, offered):
                by_this, by_other = (wide, narrow) if is_wide else (narrow, wide)
                by_this.add(first_open(rows))
                if by_this & by_other:
                    return rows
        raise doubtful(adapter, symbol, interval)


def first_open(rows: Candles) -> datetime:
    """Return when the first of some rows opens."""
    return from_ms(int(rows.time.min()))


def _can_begin(rows: Candles, offered: OfferedInterval, within: Window | None = None) -> bool:
    grid = epoch_grid(Interval.ONE_DAY) if offered.phase_varies else offered.grid
    try:
        first = first_open(rows)
    except OverflowError:
        return False
    is_within = within is None or within.start <= first < within.end
    return is_within and grid.floor(first) == first


def _told_slot(adapter: ExchangeAdapter, since: datetime) -> Window | None:
    """Return the slot of the candle that tells where a symbol begins."""
    telling = adapter.facts.history_start_interval
    grid = adapter.facts.intervals[telling].grid if telling else None
    return Window(since, grid.next(since)) if grid else None


def doubtful(adapter: ExchangeAdapter, symbol: Symbol, interval: Interval) -> BadPayload:
    """Return the error for a first candle that can't be right."""
    what = f"answered no first candle of {symbol.name} {interval} that can be right"
    return BadPayload(adapter.facts.name, what)


def contradicts_listing(rows: Candles, symbol: Symbol, grid: Grid) -> bool:
    """Return whether the first candle lies far from where the listing date says."""
    if symbol.listed_at is None:
        return False
    return abs(first_open(rows) - grid.floor(symbol.listed_at)) > _NEAR_LISTING
