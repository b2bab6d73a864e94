"""The work of a fault on the answer that it hits: to replace it or spoil it."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, TypeAlias

import numpy as np
import orjson

from scripts.sandbox.candles import DISTANT_FUTURE_MS, Columns, Flags, TimeSpan
from scripts.sandbox.control import Fault
from scripts.sandbox.exchange import (
    CandleReply,
    Reply,
    SandboxExchange,
    SymbolsReply,
    TimeReply,
    Unprinted,
)
from scripts.sandbox.limits import BANNED, EXCEEDED, Refusal

_OFF_GRID_MS = 7_000
_OFF_CLOCK_SECONDS = 5 * 3600.0
_NEWEST_ROWS = 100
_MAINTENANCE = b"<html><head><title>503</title></head><body>Down for maintenance</body></html>"


def failure(fault: Fault, exchange: SandboxExchange, now_ms: int) -> Reply | None:
    """Give the answer of a fault that replaces the exchange's; None.

    The fault spoils it.
    """
    fail = _FAILURES.get(fault.fault)
    return fail(fault, exchange, now_ms) if fail else None


def _rate_limited(fault: Fault, exchange: SandboxExchange, now_ms: int) -> Reply:
    return _refused(exchange, Refusal(EXCEEDED, fault.retry_after), now_ms)


def _banned(fault: Fault, exchange: SandboxExchange, now_ms: int) -> Reply:
    return _refused(exchange, Refusal(BANNED, fault.retry_after), now_ms)


def _redirect(fault: Fault, exchange: SandboxExchange, now_ms: int) -> Reply:
    del now_ms
    target = fault.location or f"/{exchange.name}/moved"
    return Reply(302, b"", "text/html", {"Location": target})


def _constant(answer: Reply) -> "_Failing":
    """Give the failing that is the same at every exchange."""
    return lambda fault, exchange, now_ms: answer  # noqa: ARG005 - every failing is given these


_Failing: TypeAlias = Callable[[Fault, SandboxExchange, int], Reply]
_FAILURES: Mapping[str, _Failing] = {
    "rate_limited": _rate_limited,
    "banned": _banned,
    "server_error": lambda _, exchange, __: exchange.fail(),
    "maintenance_html": _constant(Reply(503, _MAINTENANCE, "text/html")),
    "null_body": _constant(Reply(200, b"null")),
    "error_body": lambda _, exchange, now_ms: Reply(200, exchange.error_body(now_ms)),
    "redirect": _redirect,
}


def _refused(exchange: SandboxExchange, refusal: Refusal, now_ms: int) -> Reply:
    """Refuse with `Retry-After`, which not every exchange sends of its own accord."""
    refused = exchange.refuse(refusal, now_ms)
    return replace(refused, headers={**refused.headers, "Retry-After": str(refusal.retry_after)})


def misdirect(fault: Fault, page: CandleReply, now_ms: int) -> CandleReply:
    """Give the page that answers another window, where that is the fault."""
    if fault.fault == "wrong_window":
        count = len(page.columns) or _NEWEST_ROWS
        rows = page.series.last(TimeSpan(0, DISTANT_FUTURE_MS), count, now_ms)
        return replace(page, columns=rows)
    if fault.fault == "shifted_window" and len(page.columns):
        return replace(page, columns=_earlier(page, now_ms))
    return page


def _earlier(page: CandleReply, now_ms: int) -> Columns:
    """Give the rows of the window that begins half a window earlier.

    At least one slot.
    """
    grid = page.series.grid
    first, last = (int(slot) for slot in grid.indices(page.columns.time[[0, -1]]))
    shift = (last - first) // 2 + 1
    bounds = (int(grid.times(slot, slot + 1)[0]) for slot in (first - shift, last - shift + 1))
    return page.series.first(TimeSpan(*bounds), last - first + 1, now_ms)


def spoil(fault: Fault | None, answer: Unprinted) -> bytes:
    """Print the answer as the fault leaves it."""
    body = _printed(fault, answer)
    return body[: len(body) // 2] if fault and fault.fault == "truncated_json" else body


def _printed(fault: Fault | None, answer: Unprinted) -> bytes:
    match answer:
        case CandleReply():
            return _printed_page(fault, answer) if fault else answer.encode(answer.columns)
        case TimeReply():
            return answer.encode(_misread(fault, answer.now_ms) if fault else answer.now_ms)
        case SymbolsReply():
            return answer.encode(_relisted(fault, answer) if fault else answer.entries)


def _misread(fault: Fault, now_ms: int) -> int:
    """Give the time as a clock shows it that is wrong, or told in another unit."""
    off_ms = int((_OFF_CLOCK_SECONDS if fault.seconds is None else fault.seconds) * 1000)
    match fault.fault:
        case "clock_ahead":
            return now_ms + off_ms
        case "clock_behind":
            return now_ms - off_ms
        case "clock_in_seconds":
            return now_ms // 1000
        case _:
            return now_ms


def _relisted(fault: Fault, listing: SymbolsReply) -> "list[Mapping[str, object]]":
    entries = list(listing.entries)
    match fault.fault:
        case "empty_list":
            return []
        case "half_list":
            return entries[: len(entries) // 2]
        case "malformed_entry":
            return _with_malformed(fault, listing)
        case _:
            return entries


def _with_malformed(fault: Fault, listing: SymbolsReply) -> "list[Mapping[str, object]]":
    """Spoil one entry: the one that the fault names, else the middle one."""
    middle = listing.entries[len(listing.entries) // 2][listing.key]
    name = fault.selectors.get("symbol", middle)
    key, value = (fault.field, None) if fault.field else listing.weak
    return [
        {**entry, key: value} if entry[listing.key] == name else entry for entry in listing.entries
    ]


def _printed_page(fault: Fault, page: CandleReply) -> bytes:
    columns = changed(fault, page.columns)
    unit = fault.unit if fault.fault == "wrong_unit" else None
    body = page.encode(columns, unit)
    return _with_null(fault, page, body) if fault.fault == "null_field" else body


def _with_null(fault: Fault, page: CandleReply, body: bytes) -> bytes:
    """Empty a field of the middle row, which the other faults spoil too."""
    rows: list[Any] = orjson.loads(body)
    if rows:
        time = page.fields["time"]
        ascending = sorted(rows, key=lambda row: row[time])
        ascending[len(rows) // 2][page.fields[fault.field or "close"]] = None
    return orjson.dumps(rows)


def changed(fault: Fault, rows: Columns) -> Columns:
    """Give the rows as a fault of single rows leaves them."""
    change = _CHANGES.get(fault.fault)
    return change(rows) if change and len(rows) else rows


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
    """Send the middle row twice, then with twice the volume and another close."""
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


def _middle(rows: Columns) -> Flags:
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
