"""A small store with the contract of candles and versions, for changes in tests.

It stands for a service that heals candles, so that the client's cache can be tried on repairs,
restores and other servers under the same URL.
"""

import io
import json
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from typing import Any, Self

import pyarrow as pa

from client_tests.scripted import Asked, Reply, ScriptedServer

MINUTE = 60_000
ARROW = "application/vnd.apache.arrow.stream"
COLUMNS = ("time", "open", "high", "low", "close", "volume")
_SCHEMA = pa.schema(
    [
        pa.field("time", pa.timestamp("ms", "UTC"), nullable=False),
        *(pa.field(name, pa.float64(), nullable=False) for name in COLUMNS[1:]),
    ]
)
_BATCH_ROWS = 1000
_MINUTES = 14 * 24 * 60


def encode(
    rows: Iterable[tuple[float, ...]],
    metadata: dict[str, str] | None = None,
    *,
    batch: int = _BATCH_ROWS,
) -> bytes:
    """Encode rows as an Arrow stream of small batches."""
    rows, schema, sink = [*rows], _SCHEMA.with_metadata(metadata or {}), io.BytesIO()
    with pa.ipc.new_stream(sink, schema) as stream:
        for at in range(0, len(rows), batch):
            columns = zip(*rows[at : at + batch], strict=True)
            arrays = [
                pa.array(it, property_body.type)
                for it, property_body in zip(columns, schema, strict=True)
            ]
            stream.write_batch(pa.record_batch(arrays, schema=schema))
    return sink.getvalue()


def candle(time: int, close: float = 1.5) -> tuple[float, ...]:
    """Make a row; its close tells repaired candles from others."""
    return (time, 1.0, 2.0, 0.5, close, time / MINUTE % 97)


class StoreServer:
    """One series of minutes, from `start` to `end`, all settled up to `settled`."""

    def __init__(self, server: ScriptedServer, start: int, minutes: int) -> None:
        self.url = server.url
        self.asked = server.asked
        self.server = server
        self.store = 1
        self.has_versions = True
        self.epoch = 0
        self.changes = list[tuple[int, int]]()
        self.rows = {time: candle(time) for time in range(start, start + minutes * MINUTE, MINUTE)}
        self.end = start + minutes * MINUTE
        self.settled = self.end
        self.unconfirmed = list[tuple[int, int]]()
        self.most = 1_000_000
        self.tamper: Callable[[Asked, Reply], Reply] = lambda _, reply: reply
        server.answer = self._answer

    @classmethod
    def running(cls) -> AbstractContextManager[Self]:
        """Run with two weeks of minutes of two months, until the context is left."""
        return _Running(cls)

    def heal(self, time: int, close: float) -> None:
        """Change a stored candle, as a repair does."""
        self.epoch += 1
        self.changes.append((time, self.epoch))
        self.rows[time] = candle(time, close)
        self.unconfirmed = [
            window for window in self.unconfirmed if not window[0] <= time < window[1]
        ]

    def expected(self, start: int, end: int) -> list[tuple[float, ...]]:
        """Return the rows of a window as they are now."""
        return [row for time, row in sorted(self.rows.items()) if start <= time < end]

    def windows(self, method: str = "GET") -> list[tuple[int, int]]:
        """Return the windows that were asked for since the last look."""
        asked = [request.query for request in self.asked if request.method == method]
        self.asked.clear()
        return [(int(request["start"]), int(request["end"])) for request in asked]

    def _answer(self, asked: Asked) -> Reply:
        query = asked.query
        start = -(-int(query["start"]) // MINUTE) * MINUTE
        end = min(int(query.get("end", self.end)), self.end)
        rows = self.expected(start, end)
        limit = int(query.get("limit", self.most))
        headers, said = dict[str, str](), dict[str, Any]()
        if len(rows) > limit:
            rows = rows[:limit]
            following = f"{asked.path}?start={int(rows[-1][0]) + MINUTE}&end={end}"
            headers["Link"] = f'<{following}>; rel="next"'
            end = int(rows[-1][0]) + MINUTE
        headers |= self.headers(start, end)
        open_windows = [
            window for window in self.unconfirmed if window[0] < end and window[1] > start
        ]
        said["unconfirmed"] = json.dumps([{"start": s, "end": e} for s, e in open_windows])
        said |= {"exchange": "binance", "symbol": "BTC-USDT", "start": str(start), "end": str(end)}
        return self.tamper(asked, Reply(200, headers, encode(rows, said)))

    def headers(self, start: int, end: int) -> dict[str, str]:
        """Return the headers of an answer to a window."""
        slots = sum(
            (min(end, e) - max(start, s)) // MINUTE
            for s, e in self.unconfirmed
            if s < end and e > start
        )
        version = max((epoch for time, epoch in self.changes if start <= time < end), default=0)
        headers = {
            "Content-Type": ARROW,
            "X-Window-Start": str(start),
            "X-Window-End": str(end),
            "X-Settled-Until": str(min(end, self.settled)),
            "X-Complete": "true",
            "X-Unconfirmed": str(slots),
        }
        if self.has_versions:
            headers["X-Version"] = f"{self.store}.7.{version}.{self.epoch}"
        return headers


START = 1_706_140_800_000  # 2024-01-25


class _Running(AbstractContextManager[Any]):
    def __init__(self, kind: type[StoreServer]) -> None:
        self._kind = kind
        self._running = ScriptedServer.running()

    def __enter__(self) -> StoreServer:
        return self._kind(self._running.__enter__(), START, _MINUTES)

    def __exit__(self, *error: object) -> None:
        self._running.__exit__(None, None, None)
