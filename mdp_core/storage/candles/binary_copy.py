"""Binary COPY and array loaders for candles: no Python object per candle.

Formats: https://www.postgresql.org/docs/current/sql-copy.html (Binary Format) and, for arrays,
`array_send` in the server's source: number of dimensions, flags, element type, length, lower bound,
then every element behind its own length. A null element would have no bytes and break the stride,
so the queries turn nulls into NaN.
"""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray
from psycopg.abc import AdaptContext, Buffer
from psycopg.adapt import Loader
from psycopg.pq import Format
from typing_extensions import override

from mdp_core.domain.candles import COLUMNS, Candles, Float64s
from mdp_core.domain.intervals import Int64s

_HEADER = b"PGCOPY\n\xff\r\n\0" + bytes(8)
_TRAILER = b"\xff\xff"
_ARRAY_HEADER_BYTES = 20
_POSTGRES_EPOCH_MS = 946_684_800_000  # 2000-01-01, in epoch milliseconds


def copy_batches(
    series_ids: int | Int64s, candles: Candles
) -> Iterator[tuple[tuple[str, ...], bytes]]:
    """Pack candles for `COPY candles (series_id, <columns>) … (FORMAT binary)`.

    Rows that lack the same optional columns make one batch, since a null has no bytes.

    Args:
        series_ids: Whose candle each row is; one number: all of them.
        candles: In any order.

    Yields:
        The columns after `series_id`, and the whole stream of bytes for them.
    """
    of_rows = np.broadcast_to(np.asarray(series_ids, np.int64), len(candles))
    has_quote_volume, has_trades = ~np.isnan(candles.quote_volume), ~np.isnan(candles.trades)
    for quote_volume in (True, False):
        for trades in (True, False):
            rows = (has_quote_volume == quote_volume) & (has_trades == trades)
            if rows.any():
                lacking: dict[str, bool] = {"quote_volume": not quote_volume, "trades": not trades}
                columns = tuple(name for name in COLUMNS if not lacking.get(name))
                yield columns, _pack(of_rows[rows], columns, candles[rows])


def _pack(series_ids: Int64s, columns: tuple[str, ...], candles: Candles) -> bytes:
    types = {"time": ">i8", "trades": ">i4"}
    layout = [("fields", ">i2"), ("series_id_bytes", ">i4"), ("series_id", ">i4")]
    for name in columns:
        layout += [(f"{name}_bytes", ">i4"), (name, types.get(name, ">f8"))]
    rows: NDArray[np.void] = np.empty(len(candles), np.dtype(layout))
    rows["fields"] = len(columns) + 1
    rows["series_id_bytes"], rows["series_id"] = 4, series_ids
    for name in columns:
        rows[f"{name}_bytes"] = rows.dtype[name].itemsize
        rows[name] = getattr(candles, name)
    rows["time"] = (candles.time - _POSTGRES_EPOCH_MS) * 1000
    return b"".join((_HEADER, rows.tobytes(), _TRAILER))


def register_array_loaders(cursor: AdaptContext) -> None:
    """Register loaders of `float8[]` and `timestamptz[]` (no nulls) as columns."""
    types = cursor.adapters.types
    cursor.adapters.register_loader(types["float8"].array_oid, _Floats)
    cursor.adapters.register_loader(types["timestamptz"].array_oid, _Times)


class _Floats(Loader):
    format = Format.BINARY

    @override
    def load(self, data: Buffer) -> Float64s:
        return _elements(data, ">f8").astype(np.float64)


class _Times(Loader):
    format = Format.BINARY

    @override
    def load(self, data: Buffer) -> Int64s:
        return _elements(data, ">i8").astype(np.int64) // 1000 + _POSTGRES_EPOCH_MS


def _elements(data: Buffer, element: str) -> NDArray[np.generic]:
    if len(data) < _ARRAY_HEADER_BYTES:  # an empty array has no dimension to describe
        return np.empty(0, element)
    layout = np.dtype([("bytes", ">i4"), ("value", element)])
    return np.frombuffer(data, layout, offset=_ARRAY_HEADER_BYTES)["value"]
