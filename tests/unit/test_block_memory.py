"""What is kept, what goes first, and that a budget is a budget."""

from dataclasses import replace

import numpy as np
import pytest
from unit_strategies import utc

from api.block_memory import BlockMemory, Rows, RowsKey
from mdp_core.model import Window

_KEY = RowsKey(1, 0, Window(utc(2024), utc(2025)), "json", ("time", "close"))


def _rows(size: int = 10_000) -> Rows:
    return Rows(bytes(size), np.arange(5, dtype=np.int64))


def _key(number: int) -> RowsKey:
    return replace(_KEY, series_id=number)


def test_rows_are_found_under_their_own_key_only() -> None:
    """Another epoch, window, encoding or choice of columns is another key."""
    memory, rows = BlockMemory(1 << 20), _rows()
    memory.keep(_KEY, rows)

    others = [
        replace(_KEY, epoch=1),
        replace(_KEY, series_id=2),
        replace(_KEY, window=Window(utc(2024), utc(2024, 2))),
        replace(_KEY, kind="arrow"),
        replace(_KEY, columns=("time",)),
    ]
    assert memory.get(_KEY) is rows
    assert [memory.get(other) for other in others] == [None] * 5


def test_least_recently_used_rows_go_first() -> None:
    """Asking for rows is using them."""
    memory = BlockMemory(120_000)
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
    memory = BlockMemory(budget)
    for number in range(100):
        memory.keep(_key(number % 30), _rows(number * 300))
        assert memory.nbytes <= budget


def test_rows_that_take_much_of_the_memory_are_not_kept() -> None:
    """One answer must not drive out all the others."""
    memory = BlockMemory(1 << 20)
    memory.keep(_KEY, _rows(1 << 19))

    assert (memory.get(_KEY), memory.nbytes) == (None, 0)


def test_rows_kept_again_are_counted_once() -> None:
    """Two requests may have encoded the same at the same time."""
    memory = BlockMemory(1 << 20)
    memory.keep(_KEY, _rows())
    taken = memory.nbytes
    memory.keep(_KEY, _rows())

    assert memory.nbytes == taken
