"""Load arrays of the database as columns of numpy: no Python object per element.

Format: `array_send` in the server's source: number of dimensions, flags, element type, length,
lower bound, then every element behind its own length. A null element would have no bytes and break
the stride, so the queries turn nulls into NaN.
"""

import numpy as np
from numpy.typing import NDArray
from psycopg.abc import AdaptContext, Buffer
from psycopg.adapt import Loader
from psycopg.pq import Format
from typing_extensions import override

from mdp_core.domain.candles import Float64s
from mdp_core.domain.intervals import Int64s

_ARRAY_HEADER_BYTES = 20
_POSTGRES_EPOCH_MS = 946_684_800_000  # 2000-01-01, in epoch milliseconds


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
