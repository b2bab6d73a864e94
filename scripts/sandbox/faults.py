"""The faults: which request an ordered fault hits, and what becomes of that request's page."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import cast

import numpy as np

from mdp_core.domain.intervals import Interval
from scripts.sandbox.candles import Columns
from scripts.sandbox.control import Fault
from scripts.sandbox.exchange import Exchange, Page, Reply
from scripts.sandbox.limits import BANNED, EXCEEDED, Refusal, Seconds

SERIES_SELECTORS = frozenset({"symbol", "interval"})
_LATE_SECONDS = 30.0
_OFF_GRID_MS = 7_000
_MAINTENANCE = b"<html><head><title>503</title></head><body>Down for maintenance</body></html>"


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

    def take(self, exchange: str, params: Mapping[str, object], page: Page) -> Fault | None:
        """Give the fault that hits this request, and count it."""
        nested = cast("dict[str, object]", params.get("req", {}))
        known = {**params, **nested, "symbol": page.symbol, "interval": page.interval}
        for place, fault in enumerate(self._pending):
            if fault.exchange == exchange and _matches(fault.selectors, known):
                self._pending[place : place + 1] = (
                    [fault.model_copy(update={"times": fault.times - 1})] if fault.times > 1 else []
                )
                return fault
        return None

    def withhold(self, exchange: str, page: Page, fault: Fault) -> None:
        """Withhold the page's newest row, from this answer on, for the fault's seconds."""
        if len(page.columns):
            until = self._seconds() + (_LATE_SECONDS if fault.seconds is None else fault.seconds)
            newest = int(page.columns.time[-1])
            self._withheld.append(_Withheld(exchange, page.symbol, page.interval, newest, until))

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


def failure(fault: Fault, exchange: Exchange, now_ms: int) -> Reply | None:
    """Give the answer of a fault that replaces the page; None: the fault spoils the page."""
    match fault.fault:
        case "rate_limited":
            return _refused(exchange, Refusal(EXCEEDED, fault.retry_after), now_ms)
        case "banned":
            return _refused(exchange, Refusal(BANNED, fault.retry_after), now_ms)
        case "server_error":
            return exchange.fail()
        case "maintenance_html":
            return Reply(503, _MAINTENANCE, "text/html")
        case "null_body":
            return Reply(200, b"null")
        case _:
            return None


def _refused(exchange: Exchange, refusal: Refusal, now_ms: int) -> Reply:
    """Refuse with `Retry-After`, which not every exchange sends of its own accord."""
    refused = exchange.refuse(refusal, now_ms)
    return replace(refused, headers={**refused.headers, "Retry-After": str(refusal.retry_after)})


def spoil(fault: Fault, page: Page) -> bytes:
    """Print the page as the fault leaves it."""
    change = _CHANGES.get(fault.fault)
    columns = change(page.columns) if change and len(page.columns) else page.columns
    body = page.encode(columns)
    return body[: len(body) // 2] if fault.fault == "truncated_json" else body


def _matches(selectors: Mapping[str, object], known: Mapping[str, object]) -> bool:
    return all(key in known and str(known[key]) == str(selectors[key]) for key in selectors)


def _empty(rows: Columns) -> Columns:
    return rows.take(slice(0, 0))


def _first_half(rows: Columns) -> Columns:
    """Keep the earlier half, rounded up, so that a page of one row stays."""
    return rows.take(slice(0, (len(rows) + 1) // 2))


def _repeated(rows: Columns) -> Columns:
    """Send the middle row twice."""
    places = np.arange(len(rows))
    return rows.take(np.insert(places, len(rows) // 2, len(rows) // 2))


def _contradicted(rows: Columns) -> Columns:
    """Send the middle row twice, the second time with twice the volume and another close."""
    rows = _repeated(rows)
    second = _middle(rows)
    close = np.where(second, rows.high + rows.low - rows.close, rows.close)
    volume = np.where(second, rows.volume * 2 + 1, rows.volume)
    return replace(rows, close=close.round(8), volume=volume)


def _rotated(rows: Columns) -> Columns:
    """Send the newest row first."""
    return rows.take(np.roll(np.arange(len(rows)), 1))


def _shifted(rows: Columns) -> Columns:
    return replace(rows, time=rows.time + _middle(rows) * _OFF_GRID_MS)


def _impossible(rows: Columns) -> Columns:
    """Let the middle row's high lie below everything else."""
    return replace(rows, high=np.where(_middle(rows), rows.low / 2, rows.high))


def _middle(rows: Columns) -> "np.ndarray[tuple[int], np.dtype[np.bool_]]":
    return np.arange(len(rows)) == len(rows) // 2


_CHANGES: Mapping[str, Callable[[Columns], Columns]] = {
    "empty_page": _empty,
    "short_page": _first_half,
    "duplicate_rows": _repeated,
    "conflicting_rows": _contradicted,
    "out_of_order": _rotated,
    "off_grid": _shifted,
    "ohlc_violation": _impossible,
}
