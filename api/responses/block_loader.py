"""Load encoded rows block by block: from memory, or read once for all waiters.

A reading does not belong to a request: a client that leaves ends none that has begun, and requests
for the same rows wait for the same reading.
"""

import asyncio
import time
from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager, nullcontext
from dataclasses import dataclass
from typing import TypeAlias

from api.responses.block_cache import BlockKey, BlockMemory, BlockPart, Rows
from api.responses.formats import RowEncoder
from api.responses.pieces import BlockSlice
from mdp_core.domain.candles import Candles
from mdp_core.domain.queries import Answer
from mdp_core.domain.windows import Window
from mdp_core.service.candles import CandleService

# Fewer rows are encoded faster than a thread is reached.
_THREAD_ROWS = 2_000


@dataclass(frozen=True, slots=True)
class EncodeRequest:
    """A request for encoded rows: the answer, the format and the columns.

    `is_patient` says that many pieces are wanted, and that others go before them.
    """

    answer: Answer
    format: RowEncoder
    columns: Sequence[str]
    is_patient: bool

    def key(self, piece: BlockSlice) -> BlockKey:
        """Return the key of the block that a piece lies in."""
        answer, kind = self.answer, self.format.rows_kind
        version = answer.versions.of(piece.window)
        store, series_id = answer.versions.store, answer.series.id
        return BlockKey(store, series_id, version, piece.block, kind, self.columns)

    def cut(self, part: BlockPart, window: Window) -> Rows:
        """Return the rows of a part that open in `window`."""
        if part.window == window or not len(part.rows):
            return part.rows
        return self.format.cut(part.rows, window, self.columns)


@dataclass(frozen=True, slots=True)
class Encoded:
    """Rows, and the milliseconds that it took to read and to encode them."""

    rows: Rows
    read: float = 0.0
    encode: float = 0.0


class Reading:
    """An in-flight read. Callers must call `leave` when they stop waiting."""

    def __init__(self, key: "_ReadingKey") -> None:
        self.key = key
        self.task: asyncio.Task[Encoded]
        self.waiting = 0
        self.is_begun = False

    async def encoded(self) -> Encoded:
        """Wait for the rows.

        Raises:
            SeriesRepaired, StoreUnavailable: They could not be read.
        """
        await asyncio.wait([self.task])
        return self.task.result()


_ReadingKey: TypeAlias = tuple[BlockKey, Window]


class Blocks:
    """The source of encoded rows.

    Args:
        service: Reads the stored candles.
        memory: Where rows that can't change are kept.
        at_once: How many pieces of those who want many are read at once: others find connections.
    """

    def __init__(self, service: CandleService, memory: BlockMemory, *, at_once: int) -> None:
        self._service = service
        self._memory = memory
        self._turns = asyncio.Semaphore(at_once)
        self._shared: dict[_ReadingKey, Reading] = {}
        self._readings = set[Reading]()

    def cached(self, wanted: EncodeRequest, piece: BlockSlice) -> Rows | None:
        """Return the rows of a piece if they are in memory."""
        part = self._memory.get(wanted.key(piece))
        return wanted.cut(part, piece.window) if part and part.holds(piece.window) else None

    def reading(self, wanted: EncodeRequest, piece: BlockSlice) -> Reading:
        """Return the reading of a piece, begun or not; it is awaited until `leave`."""
        key = (wanted.key(piece), piece.window)
        # An answer with missing windows is not shared: more may have come since.
        is_shared = not wanted.answer.missing
        reading = self._shared.get(key) if is_shared else None
        if reading is None:
            reading = Reading(key)
            reading.task = asyncio.create_task(self._read(wanted, piece, reading))
            reading.task.add_done_callback(lambda _, ended=reading: self._forget(ended))
            self._readings.add(reading)
            if is_shared:
                self._shared[key] = reading
        reading.waiting += 1
        return reading

    def leave(self, reading: Reading) -> None:
        """Stop waiting; a reading without waiters that has not begun is cancelled."""
        reading.waiting -= 1
        if not reading.waiting and not reading.is_begun:
            reading.task.cancel()
            self._forget(reading)

    async def aclose(self) -> None:
        """End what is being read."""
        tasks = [reading.task for reading in self._readings]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _forget(self, reading: Reading) -> None:
        self._readings.discard(reading)
        if self._shared.get(reading.key) is reading:
            del self._shared[reading.key]
        if reading.task.done() and not reading.task.cancelled():
            reading.task.exception()  # retrieved, also when no waiter is left

    def _turn(self, wanted: EncodeRequest) -> AbstractAsyncContextManager[None]:
        return self._turns if wanted.is_patient else nullcontext()

    async def _read(self, wanted: EncodeRequest, piece: BlockSlice, reading: Reading) -> Encoded:
        async with self._turn(wanted):
            reading.is_begun = True
            begun = time.perf_counter()
            window, candles = await self._candles(wanted, piece)
            read = time.perf_counter()
            rows = await encoded(candles, wanted)
            part = BlockPart(window, rows)
            if not wanted.answer.missing:  # what is stored of a complete answer is covered
                self._memory.keep(wanted.key(piece), part)
            ms = (read - begun) * 1000, (time.perf_counter() - read) * 1000
            return Encoded(wanted.cut(part, piece.window), *ms)

    async def _candles(self, wanted: EncodeRequest, piece: BlockSlice) -> tuple[Window, Candles]:
        """Read a piece, and the rows between it and the cached part of its block.

        Parts of a block that are requested one after the other grow together. Where the whole is
        not covered, only the piece itself is returned.
        """
        kept, window = self._memory.get(wanted.key(piece)), piece.window
        if kept:
            first, last = min(kept.window.start, window.start), max(kept.window.end, window.end)
            window = Window(first, last)
        block = await self._service.read(wanted.answer, window, wanted.columns)
        if block.is_covered or window == piece.window:
            return window, block.candles
        return piece.window, block.candles.inside(piece.window)


async def encoded(candles: Candles, wanted: EncodeRequest) -> Rows:
    """Encode candles, many of them in a thread."""
    if not len(candles):
        return Rows(b"", candles.time)
    if len(candles) < _THREAD_ROWS:
        return wanted.format.encode(candles, wanted.columns)
    return await asyncio.to_thread(wanted.format.encode, candles, wanted.columns)
