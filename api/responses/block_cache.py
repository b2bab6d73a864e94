"""Memory of encoded blocks and compressed bodies, bounded by bytes.

The version of the rows is part of every key: a caller that looks rows up with their present version
never gets any from before a change. The least recently used entry goes first.
"""

from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeAlias, TypeVar

import numpy as np
from numpy.typing import NDArray

from mdp_core.domain.clock import to_ms
from mdp_core.domain.intervals import Int64s
from mdp_core.domain.windows import Window

Data: TypeAlias = bytes | memoryview

Key = TypeVar("Key")
Kept = TypeVar("Kept")

# What a key and its entry take beside what is kept, roughly.
_ENTRY_BYTES = 1_000
# What a row's place in text takes, once it is known.
_BOUND_BYTES = 4
# One entry may take this part of the memory, at most.
_LARGEST_PART = 8
# This part of the memory is for whole bodies that are compressed, the rest for rows.
_BODIES_PART = 4


@dataclass(slots=True)
class Rows:
    """Encoded rows.

    `bounds` holds the offset of each row in `data` and the end of the last; computed on demand.
    """

    data: Data
    time: Int64s
    bounds: NDArray[np.uint32] | None = None

    def __len__(self) -> int:
        """Return the number of rows."""
        return len(self.time)

    def span(self, window: Window) -> tuple[int, int]:
        """Return the positions of the first row in `window` and after the last."""
        first, stop = np.searchsorted(self.time, (to_ms(window.start), to_ms(window.end)))
        return int(first), int(stop)


@dataclass(frozen=True, slots=True)
class BlockKey:
    """Which block of which series; `kind` names how its rows are encoded."""

    store: int
    series_id: int
    version: int
    block: Window
    kind: str
    columns: Sequence[str]


@dataclass(frozen=True, slots=True)
class BlockPart:
    """All rows of a block that open in `window`."""

    window: Window
    rows: Rows

    def holds(self, window: Window) -> bool:
        """Return whether all of `window` is in it."""
        return self.window.start <= window.start and window.end <= self.window.end


@dataclass(frozen=True, slots=True)
class WholeBody:
    """All that is sent of an answer, and how many rows it has."""

    content: bytes
    rows: int


class ByteLru(Generic[Key, Kept]):
    """A store of values within a budget of bytes; for one thread.

    Args:
        budget: Bytes at the most; 0 keeps nothing.
        size: Tells the bytes that a thing takes.
    """

    def __init__(self, budget: int, size: Callable[[Kept], int]) -> None:
        self._budget = budget
        self._size = size
        self._kept: OrderedDict[Key, Kept] = OrderedDict()
        self._nbytes = 0

    @property
    def nbytes(self) -> int:
        """The bytes that are taken now."""
        return self._nbytes

    def get(self, key: Key) -> Kept | None:
        """Return the value stored under a key, if any."""
        kept = self._kept.get(key)
        if kept is not None:
            self._kept.move_to_end(key)
        return kept

    def keep(self, key: Key, new: Kept) -> None:
        """Store a value under its key, in place of an older one, and evict others."""
        size = self._entry_size(new)
        if size * _LARGEST_PART > self._budget:
            return
        self._forget(key)
        self._kept[key] = new
        self._nbytes += size
        while self._nbytes > self._budget:
            self._forget(next(iter(self._kept)))

    def _forget(self, key: Key) -> None:
        if (kept := self._kept.pop(key, None)) is not None:
            self._nbytes -= self._entry_size(kept)

    def _entry_size(self, kept: Kept) -> int:
        return self._size(kept) + _ENTRY_BYTES


BlockMemory: TypeAlias = ByteLru[BlockKey, BlockPart]
"""Of each block the rows of one window, whatever part of it was asked for."""

BodyMemory: TypeAlias = ByteLru[str, WholeBody]
"""Compressed bodies by their `ETag`."""


def split_memory(budget: int) -> tuple[BlockMemory, BodyMemory]:
    """Make the memories of a process, which together take `budget` bytes at the most."""
    of_bodies = budget // _BODIES_PART
    return ByteLru(budget - of_bodies, _size_of_part), ByteLru(of_bodies, _size_of_body)


def _size_of_part(part: BlockPart) -> int:
    rows = part.rows
    bounds = _BOUND_BYTES * (len(rows) + 1)  # it may have them later
    return len(rows.data) + rows.time.nbytes + bounds


def _size_of_body(body: WholeBody) -> int:
    return len(body.content)
