"""Bodies that were compressed on their way."""

# pyarrow comes without types.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownParameterType=false, reportUnknownArgumentType=false

from typing import TypeVar

import pyarrow as pa

from mdp_client.core.actions import Action, Flow, Receive
from mdp_client.core.asking import read_body
from mdp_client.errors import BadBody, BrokenBody, MdpError

T = TypeVar("T")


def inflated(flow: Flow[T], coding: str) -> Flow[T]:
    """Have a flow receive a body as it was before it was compressed.

    The compressed body of one answer is held in memory, a third of its candles; pyarrow inflates
    it piece by piece. Of one that broke off, what came whole is received before the failure.

    Args:
        flow: Receives one body, and nothing else.
        coding: As `Content-Encoding` says; empty or `identity` for none.

    Raises:
        BadBody: The coding is another than was asked for.
    """
    if coding in ("", "identity"):
        return (yield from flow)
    if coding != "zstd":
        flow.close()
        raise BadBody(detail=f"the body is in the coding {coding}, which was not asked for")
    body, failure = yield from _compressed()
    stream = pa.CompressedInputStream(pa.BufferReader(body), "zstd")
    return (yield from _served(flow, stream, failure))


def _compressed() -> Flow[tuple[bytes, MdpError | None]]:
    chunks = list[bytes]()
    try:
        while chunk := (yield from read_body(1)):
            chunks.append(chunk)
    except MdpError as error:
        return b"".join(chunks), error
    return b"".join(chunks), None


def _served(flow: Flow[T], stream: pa.CompressedInputStream, failure: MdpError | None) -> Flow[T]:
    """Answer each `Receive` of a flow from the stream; pass on other actions."""
    result: object = None
    while True:
        try:
            action: Action = flow.send(result)
        except StopIteration as end:
            return end.value
        if not isinstance(action, Receive):
            result = yield action
            continue
        result = _inflate(stream, action.room)
        if not result and failure:
            raise failure


def _inflate(stream: pa.CompressedInputStream, room: memoryview) -> int:
    try:
        return stream.readinto(room)
    except (pa.ArrowException, OSError) as error:
        raise BrokenBody(detail=f"the compressed body can't be inflated: {error}") from error
