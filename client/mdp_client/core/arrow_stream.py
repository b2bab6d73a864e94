"""Read an Arrow IPC stream from the wire into each batch's own memory.

pyarrow takes a stream that is cut at a batch's end for a whole one; here only the end-of-stream
marker ends a stream.
"""

# pyarrow comes without types.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownParameterType=false, reportUnknownArgumentType=false

import struct
from collections.abc import Callable
from typing import Any

import pyarrow as pa

from mdp_client.arrow import RecordBatch, Schema
from mdp_client.core.actions import Emit, Flow, Receive
from mdp_client.errors import BrokenBody

_PREFIX = struct.Struct("<iI")
_CONTINUATION = -1
# What the service sends stays far below; a garbled length must not become an allocation.
_MOST_METADATA_BYTES, _MOST_BODY_BYTES = 1 << 24, 1 << 30
# The flatbuffer field of a message's table that holds the length of its body.
_BODY_LENGTH_FIELD = 3


def read_schema() -> Flow[Schema]:
    """Receive the message that begins a stream.

    Raises:
        BrokenBody: The body ends before it, or is no stream.
    """
    message = yield from _message()
    if message is None:
        raise BrokenBody(detail="the stream ends before its schema")
    return _decoded(pa.ipc.read_schema, message)


def read_batches(schema: Schema, check: Callable[[RecordBatch], None]) -> Flow[None]:
    """Receive every batch of a stream and emit it, up to the end-of-stream marker.

    Args:
        schema: As `read_schema` returned it.
        check: Raises where a batch is not what was asked for.

    Raises:
        BrokenBody: The body ends before the marker, goes on after it, or is no stream.
    """
    while (message := (yield from _message())) is not None:
        batch = _batch(message, schema)
        check(batch)
        yield Emit(batch)
    beyond: int = yield Receive(memoryview(bytearray(1)))
    if beyond:
        raise BrokenBody(detail="the body goes on after the stream's end")


def _batch(message: pa.Buffer, schema: Schema) -> RecordBatch:
    return _decoded(pa.ipc.read_record_batch, message, schema)


def _message() -> Flow[pa.Buffer | None]:
    """Receive one encapsulated message; None is the end-of-stream marker."""
    prefix = bytearray(_PREFIX.size)
    yield from _fill(memoryview(prefix))
    continuation, length = _PREFIX.unpack(prefix)
    if continuation != _CONTINUATION or length > _MOST_METADATA_BYTES:
        raise BrokenBody(detail="the body is no Arrow stream")
    if not length:
        return None
    metadata = bytearray(length)
    yield from _fill(memoryview(metadata))
    body_at = _PREFIX.size + length
    buffer = pa.allocate_buffer(body_at + _body_length(metadata))
    room = memoryview(buffer).cast("B")
    room[:body_at] = prefix + metadata
    yield from _fill(room[body_at:])
    return buffer


def _fill(room: memoryview) -> Flow[None]:
    filled = 0
    while filled < len(room):
        count: int = yield Receive(room[filled:])
        if not count:
            raise BrokenBody(detail="the body ends before the stream's end")
        filled += count


def _body_length(metadata: bytearray) -> int:
    """Return the length of the body that follows a message's metadata.

    pyarrow tells it only of whole messages, so this reads the one field of the flatbuffer: the root
    table, the offset in its vtable, the number there (https://flatbuffers.dev/internals).
    """
    try:
        (table,) = struct.unpack_from("<I", metadata)
        (back,) = struct.unpack_from("<i", metadata, table)
        vtable = table - back
        (vtable_bytes,) = struct.unpack_from("<H", metadata, vtable)
        slot = 4 + 2 * _BODY_LENGTH_FIELD
        if slot >= vtable_bytes:
            return 0
        (offset,) = struct.unpack_from("<H", metadata, vtable + slot)
        (length,) = struct.unpack_from("<q", metadata, table + offset) if offset else (0,)
    except struct.error as error:
        raise BrokenBody(detail="the body holds what is no Arrow message") from error
    if not 0 <= length <= _MOST_BODY_BYTES:
        raise BrokenBody(detail="the body holds what is no Arrow message")
    return length


def _decoded(decode: Callable[..., Any], *arguments: object) -> Any:
    try:
        return decode(*arguments)
    except (pa.ArrowException, OSError) as error:
        raise BrokenBody(detail=f"the body holds what is no Arrow message: {error}") from error
