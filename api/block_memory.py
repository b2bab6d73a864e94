"""Encoded rows, kept so that they need not be read and encoded again.

Only what can't change is kept, and the series' epoch is part of the key: whoever looks rows up with
the epoch that the store has now never gets what a repair has replaced. What was used least recently
goes first.
"""

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from mdp_core.clock import to_ms
from mdp_core.intervals import Int64s
from mdp_core.model import Window

Data: TypeAlias = bytes | memoryview

# What a key and its entry take beside the rows, roughly.
_ENTRY_BYTES = 1_000
# One entry may take this part of the memory, at most.
_LARGEST_PART = 8


@dataclass(frozen=True, slots=True)
class Rows:
    """Encoded rows: where each begins in `data`, and where the last ends, if that can be told."""

    data: Data
    time: Int64s
    bounds: NDArray[np.uint32] | None = None

    def __len__(self) -> int:
        """Count them."""
        return len(self.time)

    @property
    def nbytes(self) -> int:
        """Give the bytes of memory that they take."""
        bounds = 0 if self.bounds is None else self.bounds.nbytes
        return len(self.data) + self.time.nbytes + bounds

    def span(self, window: Window) -> tuple[int, int]:
        """Give the position of the first row that opens in `window`, and that after the last."""
        first, stop = np.searchsorted(self.time, (to_ms(window.start), to_ms(window.end)))
        return int(first), int(stop)


@dataclass(frozen=True, slots=True)
class RowsKey:
    """Which rows: `kind` names how they are encoded."""

    series_id: int
    epoch: int
    window: Window
    kind: str
    columns: Sequence[str]


class BlockMemory:
    """Keeps encoded rows within a budget of bytes; not for several threads.

    Args:
        budget: Bytes at the most; 0 keeps nothing.
    """

    def __init__(self, budget: int) -> None:
        self._budget = budget
        self._kept: OrderedDict[RowsKey, Rows] = OrderedDict()
        self._nbytes = 0

    @property
    def nbytes(self) -> int:
        """Give the bytes that are taken now."""
        return self._nbytes

    def get(self, key: RowsKey) -> Rows | None:
        """Give what is kept under a key."""
        rows = self._kept.get(key)
        if rows is not None:
            self._kept.move_to_end(key)
        return rows

    def keep(self, key: RowsKey, rows: Rows) -> None:
        """Keep rows that can't change while the series' epoch is that of the key."""
        if _size(rows) * _LARGEST_PART > self._budget:
            return
        self._forget(key)
        self._kept[key] = rows
        self._nbytes += _size(rows)
        while self._nbytes > self._budget:
            self._forget(next(iter(self._kept)))

    def _forget(self, key: RowsKey) -> None:
        if (rows := self._kept.pop(key, None)) is not None:
            self._nbytes -= _size(rows)


def _size(rows: Rows) -> int:
    return rows.nbytes + _ENTRY_BYTES
