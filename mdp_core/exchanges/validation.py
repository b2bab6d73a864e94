"""Validate answers as exchanges sent them: strays, order, wrong rows. Vectorised.

One place for every exchange, so that no adapter can let a wrong number through.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import cast

import numpy as np
from numpy.typing import NDArray

from mdp_core.domain.candles import COLUMNS, OPTIONAL_COLUMNS, Bools, Candles, RejectedRow
from mdp_core.domain.clock import to_ms
from mdp_core.domain.intervals import Grid, Int64s
from mdp_core.domain.windows import Window
from mdp_core.errors import BadPayload
from mdp_core.exchanges.base import ExchangeFacts
from mdp_core.exchanges.parsing import UNREADABLE_TIME

_RIGHT = ""
_MOST_TRADES = 2**31 - 1  # what the table's integer holds


@dataclass(frozen=True, slots=True)
class Observation:
    """One answer to one window that was asked for; it speaks of that window.

    Attributes:
        window: The question.
        candles: Rows of the window that can be right, ascending and unique.
        rejected: Rows of the window that can't be right.
        is_live: Whether rows of the window came: a silent exchange's answer looks empty too.
        has_strays: Whether rows came from farther out than the exchange is known to send, or from
            a time that can't be read: what is absent from such an answer stays unconfirmed.
    """

    window: Window
    candles: Candles
    rejected: Sequence[RejectedRow]
    is_live: bool
    has_strays: bool

    @property
    def is_witness(self) -> bool:
        """True if slots absent from the answer count as evidence by themselves."""
        return self.is_live and not self.has_strays


@dataclass(frozen=True, slots=True)
class ValidatedRows:
    """The rows that can be right, ascending and unique, and those that can't."""

    candles: Candles
    rejected: Sequence[RejectedRow]


def judge(rows: Candles, grid: Grid, window: Window, facts: ExchangeFacts) -> Observation:
    """Tell what an answer to `window` says, before any of its rows is believed.

    Rows from before the window are dropped as far as the exchange is known to send them: where no
    other came, the answer counts as empty.

    Raises:
        BadPayload: There are other rows, and none of them lies in the window: the answer is to
            another question, or in another unit, and proves nothing.
    """
    reaches_back = grid.at(grid.index(window.start) - facts.overshoot_slots)
    inside = rows.inside(window)
    has_strays = len(rows.inside(Window(reaches_back, window.end))) < len(rows)
    if has_strays and not len(inside):
        raise BadPayload(facts.name, _off_the_question(rows.time, window))
    validated = validate(inside, grid, window)
    return Observation(window, validated.candles, validated.rejected, bool(len(inside)), has_strays)


def _off_the_question(times_ms: Int64s, window: Window) -> str:
    """Describe what an answer is about, in the unit that makes its times look right."""
    bounds = (to_ms(window.start), to_ms(window.end))
    first = int(times_ms[0])
    units = (
        unit
        for unit, per_ms in (("seconds", 1e-3), ("microseconds", 1e3), ("nanoseconds", 1e6))
        if bounds[0] <= first / per_ms < bounds[1]
    )
    hint = next((f", as if it told {unit}" for unit in units), "")
    shown = "can't be read" if first == UNREADABLE_TIME else f"is {first} ms{hint}"
    return (
        f"answered {len(times_ms)} row(s), none of them of {window}: the first one's time {shown}"
    )


def validate(candles: Candles, grid: Grid, window: Window) -> ValidatedRows:
    """Keep the rows of `window` that can be right.

    Rows outside the window are dropped, order is restored, identical duplicates collapse. A row
    off the grid, differing duplicates, a number that is missing or not finite, a price that is not
    positive, a price outside low and high, a negative volume, a number of trades that can't be:
    rejected, with every row of that slot.
    """
    rows = candles.inside(window)
    rows = rows[np.argsort(rows.time, kind="stable")]
    rows = rows[~_repeats(rows)]
    slots = grid.indices(rows.time)
    faults = _faults(rows, grid, slots)
    wrong = np.unique(slots[np.logical_or.reduce(list(faults.values()))])
    if not len(wrong):
        return ValidatedRows(rows, [])
    reasons = np.select(list(faults.values()), list(faults), default=_RIGHT)
    rejected = [_rejected(rows, slots == slot, grid.at(int(slot)), reasons) for slot in wrong]
    return ValidatedRows(rows[~np.isin(slots, wrong)], rejected)


def _repeats(rows: Candles) -> Bools:
    """Mark each row that equals the one before it, NaN being equal to NaN."""
    same = np.zeros(len(rows), np.bool_)
    same[1:] = True
    for name in COLUMNS:
        column = getattr(rows, name).view(np.int64)
        same[1:] &= column[1:] == column[:-1]
    return same


def _faults(rows: Candles, grid: Grid, slots: Int64s) -> dict[str, Bools]:
    """Mark the rows of which each of these can be said."""
    prices = np.stack([rows.open, rows.high, rows.low, rows.close])
    finite = np.isfinite(prices).all(axis=0) & np.isfinite(rows.volume)
    for name in OPTIONAL_COLUMNS:
        finite &= ~np.isinf(getattr(rows, name))
    volumes = (rows.volume, rows.quote_volume, rows.taker_buy_volume, rows.taker_buy_quote_volume)
    outside = ((prices < rows.low) | (prices > rows.high)).any(axis=0)
    faults = {
        "off the grid": rows.time != _opens(grid, slots),
        "rows of one slot that differ": _shared(slots),
        "a number that is missing or not finite": ~finite,
        "a price that is not positive": (prices <= 0).any(axis=0),
        "open or close outside low and high": outside,
        "a negative volume": np.logical_or.reduce([volume < 0 for volume in volumes]),
        "a number of trades that can't be": (rows.trades < 0) | (rows.trades > _MOST_TRADES),
    }
    return cast("dict[str, Bools]", faults)


def _opens(grid: Grid, slots: Int64s) -> Int64s:
    """Give the open time of each of the ascending `slots`."""
    if not len(slots):
        return slots
    first = int(slots[0])
    return grid.times(first, int(slots[-1]) + 1)[slots - first]


def _shared(slots: Int64s) -> Bools:
    """Mark the rows whose slot another row has too; `slots` ascend."""
    equal = slots[1:] == slots[:-1]
    shared = np.zeros(len(slots), np.bool_)
    shared[1:] |= equal
    shared[:-1] |= equal
    return shared


def _rejected(
    rows: Candles, of_slot: Bools, slot: datetime, reasons: NDArray[np.str_]
) -> RejectedRow:
    texts = [
        ", ".join(f"{name}={getattr(rows, name)[at]}" for name in COLUMNS)
        for at in np.flatnonzero(of_slot)
    ]
    of_each = dict.fromkeys(str(reason) for reason in reasons[of_slot] if reason != _RIGHT)
    return RejectedRow(slot, "; ".join(texts), ", ".join(of_each))


def absent_slots(times_ms: Int64s, grid: Grid, window: Window) -> Int64s:
    """Give the slots (indices, ascending) of `window` at which no candle opens."""
    slots = np.arange(grid.index(window.start), grid.index(window.end), dtype=np.int64)
    return slots[~np.isin(slots, grid.indices(times_ms))]
