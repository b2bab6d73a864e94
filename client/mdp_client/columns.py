"""A table's columns as memory of their own, without rows or pyarrow's kernels."""

# pyarrow comes without types, and so do modules that are imported by name.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownParameterType=false, reportUnknownArgumentType=false

from collections.abc import Sequence
from types import ModuleType
from typing import Any

import pyarrow as pa

from mdp_client.arrow import Table
from mdp_client.errors import InvalidParameter

TIME = "time"
PRICES = ("open", "high", "low", "close")
OHLCV = (*PRICES, "volume")
_ITEM_BYTES = 8


def matrix(np: ModuleType, table: Table, names: Sequence[str]) -> Any:
    """Copy columns into one float64 array, a row for each; a null becomes NaN."""
    values = np.empty((len(names), table.num_rows))
    for row, name in zip(values, names, strict=True):
        _copy(np, table.column(name), row)
    return values


def times(np: ModuleType, table: Table) -> Any:
    """Copy the open times into an array of `datetime64[ms]`."""
    values = np.empty(table.num_rows, "M8[ms]")
    _copy(np, table.column(TIME), values.view(np.int64))
    return values


def _copy(np: ModuleType, column: pa.ChunkedArray, into: Any) -> None:
    at = 0
    for chunk in column.chunks:
        part = into[at : at + len(chunk)]
        if chunk.null_count:
            part[:] = [np.nan if value is None else value for value in chunk.to_pylist()]
        elif len(chunk):
            kind = np.float64 if pa.types.is_floating(chunk.type) else np.int64
            start = chunk.offset * _ITEM_BYTES
            part[:] = np.frombuffer(chunk.buffers()[1], kind, len(chunk), start)
        at += len(chunk)


def milliseconds(table: Table) -> list[int]:
    """Return the open times, epoch ms."""
    return [
        time for chunk in table.column(TIME).chunks for time in chunk.view(pa.int64()).to_pylist()
    ]


def copied(table: Table) -> Table:
    """Copy a table into memory of its own, each column in one piece."""
    columns = [_copied(table.column(name), table.schema.field(name)) for name in table.column_names]
    return pa.Table.from_arrays(columns, schema=table.schema)


def _copied(column: pa.ChunkedArray, field: pa.Field) -> pa.Array:
    if column.null_count:
        return pa.array(column.to_pylist(), field.type)
    parts = [_bytes(chunk) for chunk in column.chunks]
    return pa.Array.from_buffers(field.type, len(column), [None, pa.py_buffer(b"".join(parts))])


def _bytes(chunk: pa.Array) -> memoryview:
    start = chunk.offset * _ITEM_BYTES
    stop = start + len(chunk) * _ITEM_BYTES
    data = chunk.buffers()[1]
    return memoryview(b"") if data is None else memoryview(data)[start:stop]


def need_columns(table: Table, names: Sequence[str], wanted: str) -> None:
    """Check that a table has the columns of a shape.

    Raises:
        InvalidParameter: It lacks one.
    """
    if lacking := [name for name in names if name not in table.column_names]:
        detail = (
            f"{wanted} needs the column {lacking[0]}: ask for it with fields, or leave that out"
        )
        raise InvalidParameter(detail=detail)
