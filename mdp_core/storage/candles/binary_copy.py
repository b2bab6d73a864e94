"""Binary COPY for candles: no Python object per candle.

Format: https://www.postgresql.org/docs/current/sql-copy.html (Binary Format).
"""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from mdp_core.domain.candles import COLUMNS, OPTIONAL_COLUMNS, Candles
from mdp_core.domain.intervals import Int64s

_HEADER = b"PGCOPY\n\xff\r\n\0" + bytes(8)
_TRAILER = b"\xff\xff"
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
    patterns = np.zeros(len(candles), np.int8)  # a bit for each column that a row lacks
    for bit, name in enumerate(OPTIONAL_COLUMNS):
        patterns |= np.isnan(getattr(candles, name)).astype(np.int8) << bit
    for pattern in np.unique(patterns).tolist():
        lacking = {name for bit, name in enumerate(OPTIONAL_COLUMNS) if pattern >> bit & 1}
        columns = tuple(name for name in COLUMNS if name not in lacking)
        rows = patterns == pattern
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
