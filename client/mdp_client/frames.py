"""Shapes for frame libraries, backtesters and charts, in the caller's own memory."""

# pyarrow comes without types, and so do modules that are imported by name.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownParameterType=false, reportUnknownArgumentType=false

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from mdp_client.arrow import Table
from mdp_client.columns import (
    OHLCV,
    PRICES,
    TIME,
    copied,
    matrix,
    milliseconds,
    need_columns,
    times,
)
from mdp_client.errors import InvalidParameter
from mdp_client.optional import need

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    import polars as pl

_NUMPY_ORDERS = {
    "ohlcv": OHLCV,
    "jesse": ("open", "close", "high", "low", "volume"),
}
_FIXED_STEPS = {"m": "min", "h": "h", "d": "D", "w": "W"}


def to_pandas(table: Table, *, capitalize: bool = False) -> "pd.DataFrame":
    """Build a frame whose index is the open time."""
    frame = _plain_frame(table, "to_pandas")
    pandas = need("pandas", "pandas", "to_pandas")
    frame.index = _index(table, pandas, TIME)
    return frame.rename(columns=str.capitalize) if capitalize else frame


def to_vectorbt(table: Table) -> "pd.DataFrame":
    """Build the frame that vectorbt reads: capitalised, index `Open time`."""
    frame = to_pandas(table, capitalize=True)
    frame.index.name = "Open time"
    return frame


def to_freqtrade(table: Table) -> "pd.DataFrame":
    """Build the frame that freqtrade reads: the open time in the column `date`."""
    need_columns(table, OHLCV, "to_freqtrade")
    pandas = need("pandas", "pandas", "to_freqtrade")
    frame = _plain_frame(table.select([TIME, *OHLCV]), "to_freqtrade")
    frame.insert(0, "date", _index(table, pandas, "date"))
    return frame


def _plain_frame(table: Table, wanted: str) -> "pd.DataFrame":
    """Build a frame of all columns but the time, over one array."""
    pandas, np = need("pandas", "pandas", wanted), need("numpy", "pandas", wanted)
    names = [name for name in table.column_names if name != TIME]
    floats = [name for name in names if pa.types.is_floating(table.schema.field(name).type)]
    frame = pandas.DataFrame(matrix(np, table, floats).T, columns=floats, copy=False)
    for place, name in enumerate(names):
        if name not in floats:
            counts = pandas.array(table.column(name).to_pylist(), dtype="Int64")
            frame.insert(place, name, counts)
    return frame


def _index(table: Table, pandas: Any, name: str) -> "pd.DatetimeIndex":
    np = need("numpy", "pandas", "to_pandas")
    return pandas.DatetimeIndex(times(np, table), copy=False, name=name).tz_localize("UTC")


def to_polars(table: Table) -> "pl.DataFrame":
    """Build a polars frame."""
    polars = need("polars", "polars", "to_polars")
    return polars.from_arrow(copied(table.replace_schema_metadata(None)))


def to_numpy(table: Table, order: str) -> "np.ndarray[Any, Any]":
    """Build a float64 array, one row a candle, the open time in ms in column one.

    Raises:
        InvalidParameter: There is no such order, or the answer lacks a column of it.
    """
    np = need("numpy", "pandas", "to_numpy")
    if order not in _NUMPY_ORDERS:
        raise InvalidParameter(detail=f"order={order!r}: there are {', '.join(_NUMPY_ORDERS)}")
    need_columns(table, _NUMPY_ORDERS[order], f"to_numpy(order={order!r})")
    return np.ascontiguousarray(matrix(np, table, (TIME, *_NUMPY_ORDERS[order])).T)


def to_ccxt(table: Table) -> list[list[float]]:
    """Build ccxt's rows: the open time in ms as an integer, then prices and volume."""
    need_columns(table, OHLCV, "to_ccxt")
    columns = (table.column(name).to_pylist() for name in OHLCV)
    return [list(row) for row in zip(milliseconds(table), *columns, strict=True)]


def to_lightweight_charts(table: Table) -> list[dict[str, float]]:
    """Build the items of a candlestick series, the open time in seconds."""
    need_columns(table, PRICES, "to_lightweight_charts")
    seconds = (time // 1000 for time in milliseconds(table))
    prices = (table.column(name).to_pylist() for name in PRICES)
    rows = zip(seconds, *prices, strict=True)
    return [dict(zip((TIME, *PRICES), row, strict=True)) for row in rows]


def to_nautilus(table: Table, interval: str, bar_type: Any, instrument: Any) -> list[Any]:
    """Build nautilus bars, timed at the close, in the instrument's precision."""
    need_columns(table, OHLCV, "to_nautilus")
    wranglers = need("nautilus_trader.persistence.wranglers", "nautilus", "to_nautilus")
    frame = to_pandas(table.select([TIME, *OHLCV]))
    frame.index = _close_of(interval)(frame.index)
    return wranglers.BarDataWrangler(bar_type, instrument).process(frame)


def _close_of(interval: str) -> Callable[[Any], Any]:
    pandas = need("pandas", "pandas", "to_nautilus")
    count, unit = int(interval[:-1]), interval[-1]
    if unit in _FIXED_STEPS:
        step = pandas.Timedelta(count, _FIXED_STEPS[unit])
    else:
        step = pandas.DateOffset(months=count)
    return lambda index: index + step
