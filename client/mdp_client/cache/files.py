"""One block on disk: an Arrow stream, whose schema says which part it holds.

A checksum after the stream's end covers every byte before it. A file is written under another
name, synced and renamed; it is read into memory and never mapped, since cutting a mapped file
kills the process that reads it.
"""

# pyarrow comes without types.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownParameterType=false, reportUnknownArgumentType=false

import json
import os
import secrets
import struct
import time
import zlib
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Self, TypeAlias

import pyarrow as pa

from mdp_client.arrow import RecordBatch, Schema
from mdp_client.cache.blocks import Bounds
from mdp_client.cache.slicing import between

_PIECES, _KEY = b"mdp_pieces", b"mdp_key"
_CHECKSUM = struct.Struct("<4sI")
_MAGIC = b"mdp1"
_PART_SUFFIX = ".part"
# What a killed process left behind; no write takes this long.
_STALE_SECONDS = 3600.0


@dataclass(frozen=True, slots=True)
class Piece:
    """All candles of a window.

    Attributes:
        epoch: The series' epoch when they were fetched, or last found valid.
        batches: Ascending, inside the window.
    """

    start: int
    end: int
    epoch: int
    batches: tuple[RecordBatch, ...]

    @property
    def bounds(self) -> Bounds:
        """Return the window."""
        return self.start, self.end

    def cut(self, start: int, end: int, epoch: int | None = None) -> Self:
        """Return the part of it in a window inside its own."""
        batches = tuple(between(self.batches, start, end))
        return type(self)(start, end, self.epoch if epoch is None else epoch, batches)


Content: TypeAlias = tuple[Schema, list[Piece]]


@dataclass(frozen=True, slots=True)
class BlockFile:
    """The place of a block, and the key that its content must name."""

    path: Path
    key: str

    def read(self) -> Content | None:
        """Read the block; None where there is no file, or one that is not to be believed."""
        try:
            return _read(self.path, self.key)
        except (OSError, ValueError, KeyError, TypeError, pa.ArrowException):
            return None

    def write(self, schema: Schema, pieces: Sequence[Piece]) -> None:
        """Write the block; where that can't be done (a full disk), it is fetched again.

        Args:
            schema: With the metadata that names the series.
            pieces: Ascending, apart from one another.
        """
        part = self.path.with_name(f"{self.path.name}.{secrets.token_hex(8)}{_PART_SUFFIX}")
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with part.open("xb") as file:
                for data in _content(schema, pieces, self.key):
                    file.write(data)
                file.flush()
                os.fsync(file.fileno())
            part.rename(self.path)
        except OSError:
            with suppress(OSError):
                part.unlink()
        else:
            _remove_stale(self.path.parent)


def _read(path: Path, key: str) -> Content | None:
    with path.open("rb", buffering=0) as file:
        buffer = pa.allocate_buffer(os.fstat(file.fileno()).st_size)
        data = memoryview(buffer).cast("B")
        is_whole = file.readinto(data) == len(data) > _CHECKSUM.size
    if not is_whole:
        return None
    magic, checksum = _CHECKSUM.unpack(data[-_CHECKSUM.size :])
    if magic != _MAGIC or zlib.crc32(data[: -_CHECKSUM.size]) != checksum:
        return None
    stream = pa.ipc.open_stream(buffer)
    fields = dict(stream.schema.metadata)
    if fields.pop(_KEY) != key.encode():
        return None
    bounds = json.loads(fields.pop(_PIECES))
    batches = [*stream]
    pieces = [
        Piece(start, end, epoch, tuple(batches[at:stop])) for start, end, epoch, at, stop in bounds
    ]
    return stream.schema.with_metadata(fields), pieces


def _content(schema: Schema, pieces: Sequence[Piece], key: str) -> Iterable[pa.Buffer | bytes]:
    """Yield a file's parts; the head says which batches belong to which piece."""
    bounds, at = list[list[int]](), 0
    for piece in pieces:
        stop = at + len(piece.batches)
        bounds.append([piece.start, piece.end, piece.epoch, at, stop])
        at = stop
    head = {**(schema.metadata or {}), _KEY: key.encode(), _PIECES: json.dumps(bounds).encode()}
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, schema.with_metadata(head)) as stream:
        for batch in (batch for piece in pieces for batch in piece.batches):
            stream.write_batch(batch.replace_schema_metadata(head))
    data = sink.getvalue()
    yield data
    yield _CHECKSUM.pack(_MAGIC, zlib.crc32(data))


def _remove_stale(folder: Path) -> None:
    with suppress(OSError):
        for part in folder.glob(f"*{_PART_SUFFIX}"):
            if time.time() - part.stat().st_mtime > _STALE_SECONDS:
                part.unlink()
