"""A series' blocks in their folder: which may be used, how new candles join them."""

# pyarrow comes without types.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownParameterType=false, reportUnknownArgumentType=false

import os
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Self, TypeAlias
from urllib.parse import quote

import pyarrow as pa

from mdp_client.arrow import RecordBatch, Schema
from mdp_client.cache.blocks import Bounds, CacheBlock, blocks_of, clip, subtract
from mdp_client.cache.files import BlockFile, Content, Piece
from mdp_client.core.query import CandlesRequest, Version

StoredPiece: TypeAlias = tuple[Schema, Piece]
"""A piece, and the schema of its file."""

_READERS = 4
_NAMES = (b"exchange", b"market_type", b"symbol", b"interval")


@dataclass(frozen=True, slots=True)
class CacheFolder:
    """The folder of a service's candles: plain files, deletable at any time."""

    path: Path

    @classmethod
    def at(cls, cache: bool | str | Path, url: str) -> Self | None:  # noqa: FBT001 - as a caller says it
        """Return the folder of a service, or None where nothing is to be kept."""
        if cache is False:
            return None
        return cls((_usual_folder() if cache is True else Path(cache)) / quote(url, safe=""))

    def series(self, query: CandlesRequest, version: Version) -> "SeriesFolder":
        """Return the folder of a series' columns, in the store that the version names."""
        columns = "default" if query.fields is None else quote("-".join(query.fields), safe="")
        path = self.path / version.store / version.series / columns
        return SeriesFolder(path, query.interval)


@dataclass(frozen=True, slots=True)
class SeriesFolder:
    """The files of a series."""

    path: Path
    interval: str

    def usable(self, window: Bounds, version: Version) -> list[StoredPiece]:
        """Read what is stored of a window and still right, ascending.

        The version is that of the whole window, now: a piece that is older may be wrong.
        """
        found = list[StoredPiece]()
        for schema, pieces in self._read_all(blocks_of(self.interval, *window)):
            for piece in pieces:
                inside = clip(piece.bounds, *window)
                if inside and version.version <= piece.epoch:
                    found.append((schema, piece.cut(*inside)))
        return found

    def _read_all(self, blocks: Iterable[CacheBlock]) -> list[Content]:
        """Read blocks side by side: reading and checking leave the interpreter to others."""
        files = [self._file(block) for block in blocks]
        if len(files) == 1:
            return [content for file in files if (content := file.read())]
        with ThreadPoolExecutor(_READERS) as pool:
            return [content for content in pool.map(BlockFile.read, files) if content]

    def keep(self, schema: Schema, new: Sequence[Piece]) -> None:
        """Join pieces with the blocks they touch; they replace rows in their windows."""
        names: dict[bytes, bytes] = schema.metadata or {}
        schema = schema.with_metadata({name: names[name] for name in _NAMES if name in names})
        for block in self._touched(new):
            file = self._file(block)
            parts = [
                piece.cut(*inside)
                for piece in new
                if (inside := clip(piece.bounds, block.start, block.end))
            ]
            _, old = file.read() or (None, [])
            taken = [entry.bounds for entry in parts]
            left = [piece.cut(*part) for piece in old for part in subtract([piece.bounds], taken)]
            file.write(schema, _joined([*left, *parts]))

    def _touched(self, pieces: Iterable[Piece]) -> list[CacheBlock]:
        touched = (block for piece in pieces for block in blocks_of(self.interval, *piece.bounds))
        return [*dict.fromkeys(touched)]

    def _file(self, block: CacheBlock) -> BlockFile:
        key = "/".join((*self.path.parts[-3:], self.interval, block.name))
        return BlockFile(self.path / f"{block.name}.arrow", key)


def _usual_folder() -> Path:
    given = os.environ.get("XDG_CACHE_HOME", "")
    return (Path(given) if Path(given).is_absolute() else Path.home() / ".cache") / "mdp"


def _joined(pieces: Iterable[Piece]) -> list[Piece]:
    """Join neighbours of one epoch, each into one batch."""
    joined = list[Piece]()
    for entry in sorted(pieces, key=lambda piece: piece.start):
        last = joined[-1] if joined else None
        if last and (last.end, last.epoch) == (entry.start, entry.epoch):
            joined[-1] = Piece(last.start, entry.end, entry.epoch, last.batches + entry.batches)
        else:
            joined.append(entry)
    return [Piece(*entry.bounds, entry.epoch, _compact(entry.batches)) for entry in joined]


def _compact(batches: tuple[RecordBatch, ...]) -> tuple[RecordBatch, ...]:
    if len(batches) < 2:  # noqa: PLR2004 - there is nothing to join
        return batches
    plain = [batch.replace_schema_metadata(None) for batch in batches]
    return tuple(pa.Table.from_batches(plain).combine_chunks().to_batches())
