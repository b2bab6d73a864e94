"""Write the bytes of an answer's body piece by piece, compressed if asked.

While one piece is being sent the next ones are read and encoded; finished ones wait in memory,
where a client that does not read holds a few of them and nothing else.
"""

import asyncio
from collections import deque
from collections.abc import AsyncGenerator
from contextlib import aclosing

from api.responses.block_cache import Data, Rows
from api.responses.block_loader import Blocks, EncodeRequest, Reading, encoded
from api.responses.compression import CODINGS
from api.responses.formats import Body
from api.responses.pieces import BlockSlice, pieces

# How many pieces may be ready or in the making while one is being sent.
_AHEAD = 3


class Delivery:
    """The body of one answer, on its way to the client.

    Args:
        blocks: Gives the rows of its pieces.
        wanted: The answer, and in which form.
    """

    def __init__(self, blocks: Blocks, wanted: EncodeRequest) -> None:
        self._blocks = blocks
        self._wanted = wanted
        self._pieces = pieces(wanted.answer)
        self.timings = {**wanted.answer.timings, "read": 0.0, "encode": 0.0}
        """Milliseconds spent on each step so far; of pieces in the making at once, their sum."""
        self.rows = 0
        """How many rows were written so far."""

    async def chunks(self, body: Body, coding: str | None) -> AsyncGenerator[Data]:
        """Yield the chunks of a body, compressed if `coding` is given."""
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
        """Return a short body whole, compressed if `coding` is given."""
        async with aclosing(self._plain(body)) as chunks:
            plain = b"".join([chunk async for chunk in chunks])
        return await asyncio.to_thread(_compressed, coding, plain) if coding else plain

    def length(self, body: Body) -> int | None:
        """Return the length of an uncompressed body if all its rows are in memory."""
        if self._wanted.format.is_packed or len(self._wanted.answer.edge):
            return None
        count, length = 0, len(body.head())
        for piece in self._pieces:
            rows = self._blocks.cached(self._wanted, piece)
            if rows is None:
                return None
            count, length = count + len(rows), length + len(rows.data)
        return length + len(body.tail(count)) - (body.skip if count else 0)

    async def _plain(self, body: Body) -> AsyncGenerator[Data]:
        async with aclosing(self.all_rows()) as parts:
            async for rows in parts:
                if not self.rows:
                    yield body.head()
                self.rows += len(rows)
                yield await self._part(body, rows)
        if not self.rows:
            yield body.head()
        yield body.tail(self.rows)

    async def _part(self, body: Body, rows: Rows) -> Data:
        if self._wanted.format.is_packed:
            return await asyncio.to_thread(body.part, rows)
        return body.part(rows)

    async def all_rows(self) -> AsyncGenerator[Rows]:
        """Yield the rows of every piece and then of the edge, ascending, none empty."""
        waiting = deque[Reading | Rows]()
        try:
            for piece in self._pieces:
                waiting.append(self._begun(piece))
                if len(waiting) > _AHEAD and (rows := await self._first(waiting)):
                    yield rows
            while waiting:
                if rows := await self._first(waiting):
                    yield rows
        finally:
            for reading in [task for task in waiting if isinstance(task, Reading)]:
                self._blocks.leave(reading)
        if len(edge := self._wanted.answer.edge):
            yield await encoded(edge, self._wanted)

    def _begun(self, piece: BlockSlice) -> Reading | Rows:
        kept = self._blocks.cached(self._wanted, piece)
        return self._blocks.reading(self._wanted, piece) if kept is None else kept

    async def _first(self, waiting: deque[Reading | Rows]) -> Rows:
        """Take the first when it is ready; until then it stays in the queue."""
        rows = waiting[0]
        if isinstance(rows, Reading):
            done = await rows.encoded()
            self.timings["read"] += done.read
            self.timings["encode"] += done.encode
            rows = done.rows
        waiting.popleft()
        return rows


def _compressed(coding: str, plain: bytes) -> bytes:
    stream = CODINGS[coding]()
    return stream.add(plain) + stream.end()
