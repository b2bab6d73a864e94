"""Eviction order and the byte budget of the block cache."""

from dataclasses import replace

import numpy as np
import pytest
from support.strategies import utc

from api.responses.block_cache import (
    BlockKey,
    BlockMemory,
    BlockPart,
    Rows,
    WholeBody,
    split_memory,
)
from mdp_core.domain.windows import Window

_BLOCK = Window(utc(2024), utc(2025))
_KEY = BlockKey(1, 1, 0, _BLOCK, "json", ("time", "close"))


def _memory(budget: int) -> BlockMemory:
    return split_memory(budget * 4 // 3)[0]


def _rows(size: int = 10_000) -> BlockPart:
    return BlockPart(_BLOCK, Rows(bytes(size), np.arange(5, dtype=np.int64)))


def _key(number: int) -> BlockKey:
    return replace(_KEY, series_id=number)


def test_rows_are_found_under_their_own_key_only() -> None:
    """Another version, store, block, encoding or choice of columns is another key."""
    memory, rows = _memory(1 << 20), _rows()
    memory.keep(_KEY, rows)

    others = [
        replace(_KEY, version=1),
        replace(_KEY, store=2),
        replace(_KEY, series_id=2),
        replace(_KEY, block=Window(utc(2025), utc(2026))),
        replace(_KEY, kind="arrow"),
        replace(_KEY, columns=("time",)),
    ]
    assert memory.get(_KEY) is rows
    assert [memory.get(other) for other in others] == [None] * 6


def test_least_recently_used_rows_go_first() -> None:
    """Asking for rows is using them."""
    memory = _memory(120_000)
    for number in range(10):
        memory.keep(_key(number), _rows())
    memory.get(_key(0))
    memory.keep(_key(10), _rows())
    memory.keep(_key(11), _rows())

    kept = [number for number in range(12) if memory.get(_key(number))]
    assert kept == [0, *range(3, 12)]


@pytest.mark.parametrize("budget", [0, 50_000, 200_000])
def test_budget_is_never_exceeded(budget: int) -> None:
    """However much is kept, in whatever sizes."""
    memory = _memory(budget)
    for number in range(100):
        memory.keep(_key(number % 30), _rows(number * 300))
        assert memory.nbytes <= budget


def test_rows_that_take_much_of_the_memory_are_not_kept() -> None:
    """One answer must not drive out all the others."""
    memory = _memory(1 << 20)
    memory.keep(_KEY, _rows(1 << 19))

    assert (memory.get(_KEY), memory.nbytes) == (None, 0)


def test_rows_kept_again_are_counted_once() -> None:
    """Two requests may have encoded the same at the same time."""
    memory = _memory(1 << 20)
    memory.keep(_KEY, _rows())
    taken = memory.nbytes
    memory.keep(_KEY, _rows())

    assert memory.nbytes == taken


def test_part_holds_what_lies_inside_of_it() -> None:
    """Both bounds count."""
    part = BlockPart(Window(utc(2024, 2), utc(2024, 6)), _rows().rows)

    assert part.holds(part.window)
    assert part.holds(Window(utc(2024, 3), utc(2024, 4)))
    assert not part.holds(Window(utc(2024, 1), utc(2024, 4)))
    assert not part.holds(Window(utc(2024, 3), utc(2024, 7)))


def test_both_memories_together_stay_within_the_budget() -> None:
    """Rows and whole bodies have a part of it each."""
    blocks, bodies = split_memory(400_000)
    for number in range(100):
        blocks.keep(_key(number), _rows())
        bodies.keep(str(number), WholeBody(bytes(5_000), 5))

    assert 200_000 < blocks.nbytes <= 300_000
    assert 50_000 < bodies.nbytes <= 100_000
