"""The queue of ordered faults.

Which request each one hits, and which rows are withheld.
"""

import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from typing import cast

import numpy as np

from mdp_core.domain.intervals import Interval
from scripts.sandbox.archive_files import CONFLICTING, ArchiveFile
from scripts.sandbox.candles import closes_ms
from scripts.sandbox.control import Fault, FaultKind
from scripts.sandbox.exchange import (
    CandleReply,
    SandboxExchange,
    SymbolsReply,
    TimeReply,
    Unprinted,
)
from scripts.sandbox.limits import Seconds

_SERIES_SELECTORS = frozenset({"symbol", "interval"})
_FILE_SELECTORS = frozenset({"symbol", "interval", "period", "date"})
_KINDS = {
    CandleReply: FaultKind.CANDLES,
    TimeReply: FaultKind.TIME,
    SymbolsReply: FaultKind.SYMBOLS,
}
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
        self._files: dict[ArchiveFile, Fault] = {}

    def order(self, faults: list[Fault]) -> None:
        """Add faults behind those that are pending."""
        self._pending += faults

    def pending(self) -> list[Fault]:
        """Give the faults that have not yet hit as often as ordered."""
        return list(self._pending)

    def clear(self) -> None:
        """Forget all faults; withheld rows are published, and spoilt files right again."""
        self._pending.clear()
        self._withheld.clear()
        self._files.clear()

    def take(
        self, exchange: str, params: Mapping[str, object], answer: Unprinted, now_ms: int
    ) -> Fault | None:
        """Give the fault that hits this request, and count it."""
        return self._use(
            lambda fault: fault.exchange == exchange and _hits(fault, params, answer, now_ms)
        )

    def take_file(self, file: ArchiveFile, *, checksum: bool) -> Fault | None:
        """Give the fault of this transfer, else the one of the file, which keeps it."""
        known = {name: getattr(file, name) for name in _FILE_SELECTORS}
        part = "checksum" if checksum else "zip"
        hit = self._use(
            lambda fault: (
                _is_of_transfers(fault)
                and _matches(
                    {"part": _usual_part(fault), **fault.selectors}, {**known, "part": part}
                )
            )
        )
        if hit is None and file not in self._files:
            bound = self._use(lambda fault: fault.is_of_files and _matches(fault.selectors, known))
            if bound:
                self._files[file] = bound
        return hit or self._files.get(file)

    def _use(self, hits: Callable[[Fault], bool]) -> Fault | None:
        """Find the first fault that hits, and count it."""
        for place, fault in enumerate(self._pending):
            if hits(fault):
                self._pending[place : place + 1] = (
                    [fault.model_copy(update={"times": fault.times - 1})] if fault.times > 1 else []
                )
                return fault
        return None

    def withhold(self, exchange: str, page: CandleReply, fault: Fault) -> None:
        """Withhold the fault's row, or the newest, from this answer on, for its seconds."""
        if len(page.columns):
            until = self._seconds() + (_LATE_SECONDS if fault.seconds is None else fault.seconds)
            slot = int(page.columns.time[-1]) if fault.slot is None else fault.slot
            self._withheld.append(_Withheld(exchange, page.symbol, page.interval, slot, until))

    def published(self, exchange: str, page: CandleReply) -> CandleReply:
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


def complaint(fault: Fault, exchange: SandboxExchange | None) -> str | None:
    """Tell what makes the order senseless, if anything.

    Without an exchange it is the archive's.
    """
    selectors, fields = _known_keys(fault, exchange), _known_fields(fault, exchange)
    unknown = sorted(fault.selectors.keys() - selectors)
    if unknown:
        return f"unknown keys {unknown}; besides the fault's own there are {sorted(selectors)}"
    if fields is not None and fault.field not in {None, *fields}:
        return f"unknown field {fault.field!r}; there are {sorted(fields)}"
    return None


def _known_keys(fault: Fault, exchange: SandboxExchange | None) -> frozenset[str]:
    if exchange is None:
        return _FILE_SELECTORS | frozenset({"part"} if _is_of_transfers(fault) else ())
    if fault.kind is FaultKind.CANDLES:
        return exchange.candle_params | _SERIES_SELECTORS
    return frozenset({"symbol"} if fault.fault == "malformed_entry" else ())


def _known_fields(fault: Fault, exchange: SandboxExchange | None) -> Collection[str] | None:
    """Name the columns that the fault can spoil; None: it may name any key."""
    if fault.fault == "conflict":
        return CONFLICTING
    return exchange.fields if exchange and fault.fault == "null_field" else None


def _is_of_transfers(fault: Fault) -> bool:
    return fault.kind is FaultKind.ARCHIVE and not fault.is_of_files


def _usual_part(fault: Fault) -> str:
    return "checksum" if fault.fault == "remade" else "zip"


def _hits(fault: Fault, params: Mapping[str, object], answer: Unprinted, now_ms: int) -> bool:
    if fault.kind is not _KINDS[type(answer)]:
        return False
    if not isinstance(answer, CandleReply):
        return True
    nested = cast("dict[str, object]", params.get("req", {}))
    known = {**params, **nested, "symbol": answer.symbol, "interval": answer.interval}
    return _matches(fault.selectors, known) and (
        fault.slot is None or _holds_closed(answer, fault.slot, now_ms)
    )


def _matches(selectors: Mapping[str, object], known: Mapping[str, object]) -> bool:
    return all(key in known and str(known[key]) == str(selectors[key]) for key in selectors)


def _holds_closed(page: CandleReply, slot_ms: int, now_ms: int) -> bool:
    """Tell whether the page has a row that opens at `slot_ms`, and it is closed."""
    found = page.columns.time[page.columns.time == slot_ms]
    return len(found) > 0 and int(closes_ms(page.series.grid, found)[0]) <= now_ms
