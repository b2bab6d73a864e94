"""Binary COPY for candles: no Python object per candle.

Format: https://www.postgresql.org/docs/current/sql-copy.html (Binary Format).
"""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from mdp_core.domain.candles import COLUMNS, Candles
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
