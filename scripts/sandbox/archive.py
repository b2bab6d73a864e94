"""Binance's public archive of USD-M candles, under `/archive`.

The files hold the candles that the REST interface answers with. A day's is published the next day
at 08:35 UTC, a month's on the first Monday after it at 12:06; candles longer than a day come by
the month only.
"""

import re
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from types import MappingProxyType

from mdp_core.domain.clock import to_ms
from mdp_core.domain.intervals import Interval, MonthGrid
from scripts.sandbox.archive_files import ArchiveFile, checksum_of, zip_of
from scripts.sandbox.candles import TimeSpan
from scripts.sandbox.control import Fault
from scripts.sandbox.exchange import Reply, SeriesBook

_PATH = re.compile(
    r"/data/futures/um/(?P<period>daily|monthly)/klines/(?P<symbol>[^/]+)/(?P<interval>[^/]+)"
    r"/(?P=symbol)-(?P=interval)-(?P<date>[\d-]+)\.zip(?P<checksum>\.CHECKSUM)?"
)
_INTERVALS = {entry.value: entry for entry in Interval if entry is not Interval.ONE_MONTH} | {
    "1mo": Interval.ONE_MONTH
}
_BY_MONTH_ONLY = {Interval.THREE_DAYS, Interval.ONE_WEEK, Interval.ONE_MONTH}
_FORMATS = {"daily": "%Y-%m-%d", "monthly": "%Y-%m"}
_DAY = timedelta(days=1)
_DAYS_AFTER = timedelta(hours=8, minutes=35)
_MONTHS_AFTER = timedelta(hours=12, minutes=6)
_MONTHS = MonthGrid()
_KEPT_FILES = 8
_ERRORS = MappingProxyType(
    {
        "missing": (404, "NoSuchKey"),
        "forbidden": (403, "AccessDenied"),
        "server_error": (500, "InternalError"),
        "rate_limited": (429, "SlowDown"),
        "banned": (418, "AccessDenied"),
    }
)
_HTML = b"<!DOCTYPE html><html><head><title>Please wait</title></head><body></body></html>"


class Archive:
    """The archive of one Binance."""

    def __init__(self, series: SeriesBook, symbols: Sequence[str]) -> None:
        """Publish the series of these symbols."""
        self._series = series
        self._symbols = tuple(symbols)
        self._right_zip = lru_cache(maxsize=_KEPT_FILES)(self._made)

    def find(self, path: str, now_ms: int) -> "tuple[ArchiveFile, bool] | None":
        """Find a published file by its path, and tell whether its checksum is asked for."""
        asked = _PATH.fullmatch(path)
        interval = _INTERVALS.get(asked["interval"]) if asked else None
        if asked is None or interval is None or asked["symbol"] not in self._symbols:
            return None
        file = _file(asked["period"], asked["symbol"], interval, asked["date"])
        if file is None or file.published_ms > now_ms or not self._has_rows(file):
            return None
        return file, asked["checksum"] is not None

    def content(self, file: ArchiveFile, fault: Fault | None) -> bytes:
        """Give the bytes of the zip; this takes some tenths of a second of work."""
        if fault is None or not fault.is_of_files or fault.fault == "checksum":
            return self._right_zip(file, None)
        return self._made(file, fault)

    def checksum(self, file: ArchiveFile, fault: Fault | None) -> bytes:
        """Give the bytes of the file with the checksum; as much work."""
        return checksum_of(file, self.content(file, fault), fault)

    def _made(self, file: ArchiveFile, fault: Fault | None) -> bytes:
        is_other = fault is not None and fault.fault == "other_symbol"
        symbol = self._another(file) if is_other else file.symbol
        return zip_of(file, self._series(symbol, file.interval), fault)

    def _another(self, file: ArchiveFile) -> str:
        """Name another symbol that has rows in the file's time."""
        others = (replace(file, symbol=name) for name in self._symbols if name != file.symbol)
        return next(other.symbol for other in others if self._has_rows(other))

    def _has_rows(self, file: ArchiveFile) -> bool:
        series = self._series(file.symbol, file.interval)
        return len(series.first(file.window, 1, file.published_ms)) > 0


def failed(fault: Fault) -> Reply | None:
    """Give the answer of a fault that replaces the file; None: the file comes."""
    match fault.fault:
        case "maintenance_html":
            return Reply(503, _HTML, "text/html")
        case "html":
            return Reply(200, _HTML, "text/html")
        case "redirect":
            return Reply(302, b"", "text/html", {"Location": fault.location or "/archive/moved"})
        case name if name in _ERRORS:
            return error(name, fault.retry_after)
        case _:
            return None


def error(name: str, retry_after: int = 1) -> Reply:
    """Word an error as the archive's storage does."""
    status, code = _ERRORS[name]
    body = f'<?xml version="1.0" encoding="UTF-8"?>\n<Error><Code>{code}</Code></Error>'
    headers = {"Retry-After": str(retry_after)} if name in {"rate_limited", "banned"} else {}
    return Reply(status, body.encode(), "application/xml", headers)


def _file(period: str, symbol: str, interval: Interval, date: str) -> ArchiveFile | None:
    if period == "daily" and interval in _BY_MONTH_ONLY:
        return None
    try:
        start = datetime.strptime(date, _FORMATS[period]).replace(tzinfo=UTC)
    except ValueError:
        return None
    if start.strftime(_FORMATS[period]) != date:  # such as 2024-5
        return None
    end = start + _DAY if period == "daily" else _MONTHS.next(start)
    window = TimeSpan(to_ms(start), to_ms(end))
    published = end + _DAYS_AFTER if period == "daily" else _first_monday(end) + _MONTHS_AFTER
    return ArchiveFile(period, symbol, interval, date, window, to_ms(published))


def _first_monday(month: datetime) -> datetime:
    return month + _DAY * (-month.weekday() % 7)
