"""Candles as bytes: the only place that knows formats.

One library encodes: a polars CSV whose lines end in `],[` is an array of JSON rows, with times as
integers and every float in the shortest form that reads back as the same float64.
"""

import asyncio
import io
import time
from collections.abc import AsyncIterable, AsyncIterator, Sequence
from typing import Any

import orjson
import polars as pl

from api.errors import kind_of
from mdp_core.answer import Answer
from mdp_core.clock import to_ms
from mdp_core.logs import note
from mdp_core.model import OPTIONAL_COLUMNS, Candles

_ROW_BREAK = b"],["
_INTEGERS = ("time", "trades")
# Fewer rows are encoded faster than a thread is reached.
_THREAD_ROWS = 2_000


async def json_chunks(
    answer: Answer,
    blocks: AsyncIterable[Candles],
    columns: Sequence[str],
    following: str | None,
    timings: dict[str, float],
) -> AsyncIterator[bytes]:
    """Encode an answer as JSON while its blocks are read; the first chunk holds the first block.

    Args:
        answer: What the body says beside the rows.
        blocks: The answer's candles, ascending.
        columns: What a row holds, in order.
        following: The path of the rest, if there is more.
        timings: Where the milliseconds spent on `read` and `encode` are added up.
    """
    chunk, count = _head(answer, columns), 0
    mark = time.perf_counter()
    async for candles in blocks:
        mark = _add(timings, "read", mark)
        if len(candles):
            rows = await _in_thread_if_long(candles, columns)
            chunk += (b"," if count else b"") + rows
            count += len(candles)
        mark = _add(timings, "encode", mark)
        if chunk:
            yield chunk
        chunk = b""
    note(rows=count)
    yield chunk + _tail(answer, count, following)


def json_rows(candles: Candles, columns: Sequence[str]) -> bytes:
    """Encode candles (at least one) as `[…],[…]`: JSON arrays without the brackets around all."""
    frame = pl.DataFrame([_column(candles, name) for name in columns])
    text = io.BytesIO()
    frame.write_csv(
        text, include_header=False, line_terminator=_ROW_BREAK.decode(), null_value="null"
    )
    return b"[" + text.getvalue()[: -len(_ROW_BREAK)] + b"]"


async def _in_thread_if_long(candles: Candles, columns: Sequence[str]) -> bytes:
    if len(candles) < _THREAD_ROWS:
        return json_rows(candles, columns)
    return await asyncio.to_thread(json_rows, candles, columns)


def _column(candles: Candles, name: str) -> pl.Series:
    column = pl.Series(name, getattr(candles, name))
    if name in OPTIONAL_COLUMNS:
        column = column.fill_nan(None)
    return column.cast(pl.Int64) if name in _INTEGERS else column


def _head(answer: Answer, columns: Sequence[str]) -> bytes:
    symbol = answer.series.symbol
    head = orjson.dumps(
        {
            "exchange": symbol.exchange,
            "market_type": symbol.market_type,
            "symbol": symbol.name,
            "interval": answer.series.interval.value,
            "start": to_ms(answer.window.start),
            "end": to_ms(answer.window.end),
            "settled_until": to_ms(answer.settled_until),
            "columns": columns,
        }
    )
    return head[:-1] + b',"candles":['


def _tail(answer: Answer, count: int, following: str | None) -> bytes:
    tail: dict[str, Any] = {
        "count": count,
        "complete": not answer.missing,
        "next": following,
    }
    if answer.missing:
        tail["missing"] = [
            {
                "start": to_ms(missing.window.start),
                "end": to_ms(missing.window.end),
                "reason": kind_of(missing.error).code,
            }
            for missing in answer.missing
        ]
    return b"]," + orjson.dumps(tail)[1:]


def _add(timings: dict[str, float], step: str, since: float) -> float:
    now = time.perf_counter()
    timings[step] = timings.get(step, 0.0) + (now - since) * 1000
    return now
