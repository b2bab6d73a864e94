"""From an answer to the bytes of its body: read, encode, keep, compress, piece by piece.

While one piece is being sent the next ones are read and encoded; finished ones wait in memory,
where a client that does not read holds a few of them and nothing else.
"""

import asyncio
import time
from collections import deque
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing

from api.block_memory import BlockMemory, Data, Rows, RowsKey
from api.compression import CODINGS
from api.encoding import Body, Format
from mdp_core.answer import Answer
from mdp_core.logs import note
from mdp_core.model import Candles, Window
from mdp_core.service import CandleService, Piece, pieces

# Fewer rows are encoded faster than a thread is reached.
_THREAD_ROWS = 2_000
# How many pieces may be ready or in the making while one is being sent.
_AHEAD = 2


class Delivery:
    """Writes the body of one answer, in one format, with the columns that were asked for.

    Args:
        service: Reads the stored candles.
        memory: Where rows that can't change are kept.
        answer: Whose candles.
        format_: How they are encoded.
        columns: What a row holds, in order.
    """

    def __init__(
        self,
        service: CandleService,
        memory: BlockMemory,
        answer: Answer,
        format_: Format,
        columns: Sequence[str],
    ) -> None:
        self._service = service
        self._memory = memory
        self._answer = answer
        self._format = format_
        self._columns = tuple(columns)
        self._pieces = pieces(answer)
        self.timings = {**answer.timings, "read": 0.0, "encode": 0.0}
        """Milliseconds spent on each step so far; of pieces in the making at once, their sum."""

    async def chunks(self, body: Body, coding: str | None) -> AsyncGenerator[Data]:
        """Write a body, compressed where there is a coding; the first chunk waits for a piece."""
        plain = self._plain(body)
        if coding is None:
            async with aclosing(plain):
                async for chunk in plain:
                    yield chunk
            return
        stream = CODINGS[coding]()
        async with aclosing(plain):
            async for chunk in plain:
                yield await asyncio.to_thread(stream.add, chunk)
        yield stream.end()

    async def whole(self, body: Body, coding: str | None) -> bytes:
        """Write a body of a few pieces at once, compressed where there is a coding."""
        async with aclosing(self._plain(body)) as chunks:
            plain = b"".join([chunk async for chunk in chunks])
        return await asyncio.to_thread(_compressed, coding, plain) if coding else plain

    def length(self, body: Body) -> int | None:
        """Give the length of a body without coding, if every row of it is in memory."""
        if self._format.is_packed or len(self._answer.edge):
            return None
        count, length = 0, len(body.head())
        for piece in self._pieces:
            rows = self._kept(piece)
            if rows is None:
                return None
            count, length = count + len(rows), length + len(rows.data)
        return length + len(body.tail(count)) - (body.skip if count else 0)

    async def _plain(self, body: Body) -> AsyncGenerator[Data]:
        count = 0
        async with aclosing(self._all_rows()) as parts:
            async for rows in parts:
                if not count:
                    yield body.head()
                count += len(rows)
                yield await self._part(body, rows)
        if not count:
            yield body.head()
        note(rows=count)
        yield body.tail(count)

    async def _part(self, body: Body, rows: Rows) -> Data:
        if self._format.is_packed:
            return await asyncio.to_thread(body.part, rows)
        return body.part(rows)

    async def _all_rows(self) -> AsyncGenerator[Rows]:
        """Give the rows of every piece and then of the edge, ascending; none is empty."""
        waiting = deque[asyncio.Task[Rows] | Rows]()
        try:
            for piece in self._pieces:
                kept = self._kept(piece)
                waiting.append(asyncio.create_task(self._fresh(piece)) if kept is None else kept)
                if len(waiting) > _AHEAD and (rows := await _first(waiting)):
                    yield rows
            while waiting:
                if rows := await _first(waiting):
                    yield rows
        finally:
            for each in waiting:
                if isinstance(each, asyncio.Task):
                    each.cancel()
        if len(self._answer.edge):
            yield await self._encoded(self._answer.edge)

    def _kept(self, piece: Piece) -> Rows | None:
        """Give a piece from memory: as it is, or cut from its block."""
        rows = self._memory.get(self._key(piece.window))
        if rows is not None or piece.window == piece.block:
            return rows
        block = self._memory.get(self._key(piece.block))
        return self._format.cut(block, piece.window, self._columns) if block else block

    async def _fresh(self, piece: Piece) -> Rows:
        begun = time.perf_counter()
        candles = await self._service.read(self._answer, piece.window, self._columns)
        self._spent("read", begun)
        rows = await self._encoded(candles)
        if not self._answer.missing:  # what is stored of a complete answer is covered
            self._memory.keep(self._key(piece.window), rows)
        return rows

    async def _encoded(self, candles: Candles) -> Rows:
        begun = time.perf_counter()
        if not len(candles):
            rows = Rows(b"", candles.time)
        elif len(candles) < _THREAD_ROWS:
            rows = self._format.encode(candles, self._columns)
        else:
            rows = await asyncio.to_thread(self._format.encode, candles, self._columns)
        self._spent("encode", begun)
        return rows

    def _key(self, window: Window) -> RowsKey:
        answer, kind = self._answer, self._format.rows_kind
        return RowsKey(answer.series.id, answer.epoch, window, kind, self._columns)

    def _spent(self, step: str, since: float) -> None:
        spent = (time.perf_counter() - since) * 1000
        self.timings[step] = self.timings.get(step, 0.0) + spent


async def _first(waiting: deque[asyncio.Task[Rows] | Rows]) -> Rows:
    """Take the first when it is ready; until then it stays, for whoever has to cancel it.

    To await the task itself would hand on every cancellation of ours: a second one interrupts how
    the first one ends a query, at the cost of the connection.
    """
    rows = waiting[0]
    if isinstance(rows, asyncio.Task):
        await asyncio.wait([rows])
        rows = rows.result()
    waiting.popleft()
    return rows


def _compressed(coding: str, plain: bytes) -> bytes:
    stream = CODINGS[coding]()
    return stream.add(plain) + stream.end()
