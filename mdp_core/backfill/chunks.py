"""The order in which a large window is filled, in chunks of whole pages. Pure."""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from mdp_core.domain.intervals import Grid
from mdp_core.domain.windows import Window


@dataclass(frozen=True, slots=True)
class ChunkGrid:
    """Chunks of `pages` pages, cut from gaps; the first may begin inside a page."""

    grid: Grid
    page_size: int
    pages: int

    def count(self, gap: Window) -> int:
        """Count the chunks of a gap."""
        return -(-(self.grid.index(gap.end) - self._first(gap)) // self._slots)

    def chunk(self, gap: Window, place: int) -> Window:
        """Give one chunk of a gap; 0 is the oldest."""
        start = self._first(gap) + place * self._slots
        return gap.clip(self.grid.at(start), self.grid.at(start + self._slots))

    @property
    def _slots(self) -> int:
        return self.page_size * self.pages

    def _first(self, gap: Window) -> int:
        return self.grid.index(gap.start) // self.page_size * self.page_size


# Chooses the next chunk of ascending gaps (at least one).
Order: TypeAlias = Callable[[Sequence[Window], ChunkGrid], Window]


def oldest_first(gaps: Sequence[Window], chunks: ChunkGrid) -> Window:
    """Choose the first chunk."""
    return chunks.chunk(gaps[0], 0)


def newest_first(gaps: Sequence[Window], chunks: ChunkGrid) -> Window:
    """Choose the last chunk."""
    return chunks.chunk(gaps[-1], chunks.count(gaps[-1]) - 1)


class Apart:
    """Away from other workers that fill the same window.

    It goes on where its last chunk ended, and where that is taken or done, anywhere else: so each
    of several workers finds a stretch of its own, and they meet at the very end only.
    """

    def __init__(self) -> None:
        self._last: Window | None = None

    def __call__(self, gaps: Sequence[Window], chunks: ChunkGrid) -> Window:
        """Choose the chunk after the last one, else a random one."""
        following = [gap for gap in gaps if self._last and gap.start == self._last.end]
        if following:
            self._last = chunks.chunk(following[0], 0)
        else:
            (gap,) = random.choices(gaps, [chunks.count(gap) for gap in gaps])  # noqa: S311
            self._last = chunks.chunk(gap, random.randrange(chunks.count(gap)))  # noqa: S311
        return self._last
