"""The queue of ordered faults: which request each one hits, and which rows are withheld."""

import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import cast

import numpy as np

from mdp_core.domain.intervals import Interval
from scripts.sandbox.candles import closes_ms
from scripts.sandbox.control import Fault, Kind
from scripts.sandbox.exchange import Listing, Page, Reading, Unprinted
from scripts.sandbox.limits import Seconds

SERIES_SELECTORS = frozenset({"symbol", "interval"})
_KINDS = {Page: Kind.CANDLES, Reading: Kind.TIME, Listing: Kind.SYMBOLS}
_LATE_SECONDS = 30.0


@dataclass(frozen=True, slots=True)
class _Withheld:
    exchange: str
    symbol: str
    interval: Interval
    time_ms: int
    until: float


class Faults:
    """The faults that are still to come, in the order in which they were given."""

    def __init__(self, seconds: Seconds = time.monotonic) -> None:
        """Start without any; `seconds` is a source of real time."""
        self._seconds = seconds
        self._pending: list[Fault] = []
        self._withheld: list[_Withheld] = []

    def order(self, faults: list[Fault]) -> None:
        """Add faults behind those that are pending."""
        self._pending += faults

    def pending(self) -> list[Fault]:
        """Give the faults that have not yet hit as often as ordered."""
        return list(self._pending)

    def clear(self) -> None:
        """Forget all faults; withheld rows are published."""
        self._pending.clear()
        self._withheld.clear()

    def take(
        self, exchange: str, params: Mapping[str, object], answer: Unprinted, now_ms: int
    ) -> Fault | None:
        """Give the fault that hits this request, and count it."""
        for place, fault in enumerate(self._pending):
            if fault.exchange == exchange and _hits(fault, params, answer, now_ms):
                self._pending[place : place + 1] = (
                    [fault.model_copy(update={"times": fault.times - 1})] if fault.times > 1 else []
                )
                return fault
        return None

    def withhold(self, exchange: str, page: Page, fault: Fault) -> None:
        """Withhold the fault's row, or the newest, from this answer on, for its seconds."""
        if len(page.columns):
            until = self._seconds() + (_LATE_SECONDS if fault.seconds is None else fault.seconds)
            slot = int(page.columns.time[-1]) if fault.slot is None else fault.slot
            self._withheld.append(_Withheld(exchange, page.symbol, page.interval, slot, until))

    def published(self, exchange: str, page: Page) -> Page:
        """Give the page without the rows that are withheld at the moment."""
        now = self._seconds()
        self._withheld = [row for row in self._withheld if row.until > now]
        times = [
            row.time_ms
            for row in self._withheld
            if (row.exchange, row.symbol, row.interval) == (exchange, page.symbol, page.interval)
        ]
        if not times:
            return page
        kept = ~np.isin(page.columns.time, times)
        return page if kept.all() else replace(page, columns=page.columns.take(kept))


def _hits(fault: Fault, params: Mapping[str, object], answer: Unprinted, now_ms: int) -> bool:
    if fault.kind is not _KINDS[type(answer)]:
        return False
    if not isinstance(answer, Page):
        return True
    nested = cast("dict[str, object]", params.get("req", {}))
    known = {**params, **nested, "symbol": answer.symbol, "interval": answer.interval}
    return _matches(fault.selectors, known) and (
        fault.slot is None or _holds_closed(answer, fault.slot, now_ms)
    )


def _matches(selectors: Mapping[str, object], known: Mapping[str, object]) -> bool:
    return all(key in known and str(known[key]) == str(selectors[key]) for key in selectors)


def _holds_closed(page: Page, slot_ms: int, now_ms: int) -> bool:
    """Tell whether the page has a row that opens at `slot_ms`, and it is closed."""
    found = page.columns.time[page.columns.time == slot_ms]
    return len(found) > 0 and int(closes_ms(page.series.grid, found)[0]) <= now_ms
