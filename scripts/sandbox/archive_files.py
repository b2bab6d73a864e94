"""The files of Binance's archive, right or spoilt: text, zip and checksum."""

import hashlib
import io
import struct
import zipfile
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import numpy as np
import polars as pl

from mdp_core.domain.intervals import Interval
from scripts.sandbox.candles import Columns, Floats, PublishedSeries, TimeSpan, closes_ms
from scripts.sandbox.control import Fault
from scripts.sandbox.exchange import in_unit, ms_of
from scripts.sandbox.markets import taker_share
from scripts.sandbox.spoiling import changed

# Public files show both: 2020 has no header, 2022 has one; spot tells microseconds since 2025.
_HEADER_SINCE_MS = ms_of("2022-01-01T00:00Z")
_MICROSECONDS_SINCE_MS = ms_of("2025-01-01T00:00Z")
_MOST_ROWS = 31 * 1440
_MADE = (2026, 1, 1, 0, 0, 0)  # a file's bytes depend on nothing but its candles
_QUICK = 1
_BOMB_CHUNK, _BOMB_CHUNKS = 1 << 24, 256  # 4 GiB of zeros
_METHOD_AT, _SIZES_AT = 8, 14  # in the header before a zip's first member


@dataclass(frozen=True, slots=True)
class ArchiveFile:
    """One published file; `date` is its day or month as in its name."""

    period: str
    symbol: str
    interval: Interval
    date: str
    window: TimeSpan
    published_ms: int

    @property
    def stem(self) -> str:
        """Name the file without its ending."""
        interval = "1mo" if self.interval is Interval.ONE_MONTH else self.interval
        return f"{self.symbol}-{interval}-{self.date}"


def zip_of(file: ArchiveFile, series: PublishedSeries, fault: Fault | None) -> bytes:
    """Make the file's bytes, as a fault of the file's leaves them."""
    rows = _rows(file, series, fault)
    text = _text(rows, series, file.window.start_ms, fault)
    match fault.fault if fault else None:
        case "bomb":
            return _bomb(file, text)
        case "two_members":
            return _zip({f"{file.stem}.csv": text, f"{file.stem}-2.csv": text})
        case "wrong_member":
            return _zip({"readme.csv": text})
        case "truncated":
            whole = _zip({f"{file.stem}.csv": text})
            return whole[: len(whole) // 2]
        case _:
            return _zip({f"{file.stem}.csv": text})


def checksum_of(file: ArchiveFile, content: bytes, fault: Fault | None) -> bytes:
    """Make the text that tells the file's SHA-256.

    Only those of months end with a newline.
    """
    if fault and fault.fault in {"checksum", "remade"}:
        content += b"another edition"
    end = "\n" if file.period == "monthly" else ""
    return f"{hashlib.sha256(content).hexdigest()}  {file.stem}.zip{end}".encode()


def _rows(file: ArchiveFile, series: PublishedSeries, fault: Fault | None) -> Columns:
    window = file.window
    if fault and fault.fault == "shifted_window":
        width = window.end_ms - window.start_ms
        window = TimeSpan(window.start_ms - width, window.end_ms - width)
    rows = series.first(window, _MOST_ROWS, file.published_ms)
    return _spoilt(rows, fault) if fault and len(rows) else rows


def _spoilt(rows: Columns, fault: Fault) -> Columns:
    match fault.fault:
        case "hole":
            return _with_hole(rows)
        case "conflict":
            return _in_conflict(rows, fault.field)
        case _:
            return changed(fault, rows)


def _with_hole(rows: Columns) -> Columns:
    """Leave out one in 24 of the rows, at least one, in the middle."""
    width = max(1, len(rows) // 24)
    first = (len(rows) - width) // 2
    places = np.arange(len(rows))
    return rows.take((places < first) | (places >= first + width))


def _in_conflict(rows: Columns, field: str | None) -> Columns:
    """Change one row in the middle, still sound: its volume and close, or one field."""
    there = np.arange(len(rows)) == len(rows) // 2
    names = (field,) if field else ("close", "volume")
    return replace(
        rows,
        **{name: np.where(there, CONFLICTING[name](rows), getattr(rows, name)) for name in names},
    )


CONFLICTING: Mapping[str, Callable[[Columns], Floats]] = {
    "open": lambda rows: (rows.high + rows.low - rows.open).round(8),
    "high": lambda rows: rows.high * 1.5,
    "low": lambda rows: rows.low * 0.5,
    "close": lambda rows: (rows.high + rows.low - rows.close).round(8),
    "volume": lambda rows: rows.volume * 2 + 1,
}


def _text(rows: Columns, series: PublishedSeries, start_ms: int, fault: Fault | None) -> bytes:
    """Print rows as the era of the file did, or as another did."""
    has_header = start_ms >= _HEADER_SINCE_MS
    unit = "us" if start_ms >= _MICROSECONDS_SINCE_MS else "ms"
    if fault and fault.fault == "other_era":
        has_header, unit = not has_header, "ms" if unit == "us" else "us"
    if fault and fault.fault == "wrong_unit":
        unit = fault.unit
    taker, taker_quote = taker_share(rows, series.decimals)
    last = {"s": 1000, "ms": 1}.get(unit, 0)  # the close is the last moment in the file's unit
    closes = in_unit(closes_ms(series.grid, rows.time) - last, unit) - (unit in {"us", "ns"})
    frame = pl.DataFrame(
        {
            "open_time": in_unit(rows.time, unit),
            **{name: getattr(rows, name) for name in ("open", "high", "low", "close", "volume")},
            "close_time": closes,
            "quote_volume": rows.quote,
            "count": rows.trades,
            "taker_buy_volume": taker,
            "taker_buy_quote_volume": taker_quote,
            "ignore": np.zeros(len(rows), dtype=np.int64),
        }
    )
    return frame.write_csv(include_header=has_header, float_scientific=False).encode()


def _zip(members: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        for name, content in members.items():
            info = zipfile.ZipInfo(name, _MADE)
            file.writestr(info, content, zipfile.ZIP_DEFLATED, _QUICK)
    return buffer.getvalue()


def _bomb(file: ArchiveFile, text: bytes) -> bytes:
    """Make a zip that says it holds the text, and behind it inflates to gigabytes.

    Its member is stored ready deflated, and called so afterwards.
    """
    deflate = zlib.compressobj(9, wbits=-15)
    begin = deflate.compress(text) + deflate.flush(zlib.Z_FULL_FLUSH)
    chunk = deflate.compress(bytes(_BOMB_CHUNK)) + deflate.flush(zlib.Z_FULL_FLUSH)
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as packed:
        info = zipfile.ZipInfo(f"{file.stem}.csv", _MADE)
        packed.writestr(info, begin + chunk * _BOMB_CHUNKS + deflate.flush())
        info.compress_type = zipfile.ZIP_DEFLATED
        info.file_size, info.CRC = len(text), zlib.crc32(text)
    content = bytearray(buffer.getvalue())
    sizes = info.CRC, info.compress_size, info.file_size
    struct.pack_into("<H", content, _METHOD_AT, info.compress_type)
    struct.pack_into("<III", content, _SIZES_AT, *sizes)
    return bytes(content)
