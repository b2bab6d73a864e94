"""Part an answer along the blocks that all answers of a series share."""

from dataclasses import dataclass

from mdp_core.domain.queries import Answer
from mdp_core.domain.windows import Window

# Long enough that a query's own cost does not count, short enough that reading, encoding and
# sending overlap (measured).
_BLOCK_SLOTS = 20_000


@dataclass(frozen=True, slots=True)
class BlockSlice:
    """The need of an answer in one block; blocks lie on a fixed grid of 20,000 slots.

    `block` is the whole block's window, `window` the part that the answer needs.
    """

    block: Window
    window: Window


def pieces(answer: Answer) -> list[BlockSlice]:
    """Return the stored window of an answer in pieces, ascending."""
    grid, window = answer.series.grid, answer.stored
    if (begins := answer.series.empty_before) is not None:
        window = window.clip(begins, window.end)  # nothing to read lies before
    parts: list[BlockSlice] = []
    while not window.is_empty:
        number = grid.index(window.start) // _BLOCK_SLOTS
        block = Window(grid.at(number * _BLOCK_SLOTS), grid.at((number + 1) * _BLOCK_SLOTS))
        parts.append(BlockSlice(block, window.clip(block.start, block.end)))
        window = Window(parts[-1].window.end, window.end)
    return parts
