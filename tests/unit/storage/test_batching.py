"""Batching: one batch at a time; nothing delayed, lost, or done in vain."""

import asyncio
from collections.abc import Sequence

import pytest

from mdp_core.storage.database.batching import BatchingQueue


class Doubling:
    """Doubles numbers, each batch when it is let; refuses batches with a negative one."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.let = asyncio.Semaphore(0)

    async def do(self, numbers: Sequence[int]) -> list[int]:
        self.batches.append(list(numbers))
        await self.let.acquire()
        if min(numbers) < 0:
            raise ValueError
        return [2 * number for number in numbers]


async def _settle() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def test_what_comes_during_a_batch_makes_the_next_one() -> None:
    """The first at once, alone; the others together, when it has ended; in order."""
    doubling = Doubling()
    gathering = BatchingQueue(doubling.do)
    first = gathering.submit(1)
    await _settle()
    others = [gathering.submit(number) for number in (2, 3, 4)]
    await _settle()
    assert doubling.batches == [[1]]

    doubling.let.release()
    doubling.let.release()
    assert await asyncio.gather(first, *others) == [2, 4, 6, 8]
    assert doubling.batches == [[1], [2, 3, 4]]


async def test_error_is_everybodys_in_the_batch_and_nobody_elses() -> None:
    """A caller after a failed batch is served."""
    doubling = Doubling()
    gathering = BatchingQueue(doubling.do)
    asked = [gathering.submit(number) for number in (1, -1, 2)]
    await _settle()
    later = gathering.submit(3)
    doubling.let.release()
    doubling.let.release()

    errors = await asyncio.gather(*asked, return_exceptions=True)
    assert [type(error) for error in errors] == [ValueError] * 3
    assert await later == 6


async def test_error_for_one_is_raised_to_that_one() -> None:
    """The others of the batch have their results."""

    async def halve(numbers: Sequence[int]) -> list[int | Exception]:
        return [ValueError(n) if n % 2 else n // 2 for n in numbers]

    gathering = BatchingQueue[int, int](halve)
    results = await asyncio.gather(*map(gathering.submit, (4, 3, 8)), return_exceptions=True)
    assert results[0] == 2
    assert isinstance(results[1], ValueError)
    assert results[2] == 4


async def test_item_that_is_cancelled_before_its_batch_is_not_done() -> None:
    """Of a batch that has begun everything is done, and the others get theirs."""
    doubling = Doubling()
    gathering = BatchingQueue(doubling.do)
    begun = [gathering.submit(1), gathering.submit(2)]
    await _settle()
    waiting = [gathering.submit(3), gathering.submit(4)]
    begun[0].cancel()
    waiting[0].cancel()
    doubling.let.release()
    doubling.let.release()

    assert await asyncio.gather(begun[1], waiting[1]) == [4, 8]
    assert doubling.batches == [[1, 2], [4]]
    with pytest.raises(asyncio.CancelledError):
        await waiting[0]


async def test_nobody_left_means_no_batch() -> None:
    """A batch is never empty."""
    doubling = Doubling()
    gathering = BatchingQueue(doubling.do)
    gathering.submit(1).cancel()
    await _settle()
    last = gathering.submit(2)
    doubling.let.release()

    assert await last == 4
    assert doubling.batches == [[2]]
