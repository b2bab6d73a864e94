"""Compression of bodies: one stream each, flushed after every chunk."""

import zlib
from collections.abc import Callable, Mapping
from typing import Protocol

import zstandard

# The fast end: a candle's digits are nearly random, and higher levels gain less than a tenth.
_GZIP_LEVEL = 1
_ZSTD_LEVEL = 1
_GZIP_WINDOW = 31

VERSION = f"zlib {zlib.ZLIB_RUNTIME_VERSION} zstd {'.'.join(map(str, zstandard.ZSTD_VERSION))}"
"""Of another version the same body may be other bytes."""


class Compressor(Protocol):
    """A stream; its output so far can be decoded at once."""

    def add(self, data: bytes | memoryview) -> bytes:
        """Return the compressed form of the next bytes."""
        ...

    def end(self) -> bytes:
        """Return the bytes that close the stream."""
        ...


class _Gzip:
    def __init__(self) -> None:
        self._stream = zlib.compressobj(_GZIP_LEVEL, wbits=_GZIP_WINDOW)

    def add(self, data: bytes | memoryview) -> bytes:
        return self._stream.compress(data) + self._stream.flush(zlib.Z_SYNC_FLUSH)

    def end(self) -> bytes:
        return self._stream.flush()


class _Zstd:
    def __init__(self) -> None:
        self._stream = zstandard.ZstdCompressor(_ZSTD_LEVEL).compressobj()

    def add(self, data: bytes | memoryview) -> bytes:
        return self._stream.compress(data) + self._stream.flush(zstandard.COMPRESSOBJ_FLUSH_BLOCK)

    def end(self) -> bytes:
        return self._stream.flush()


CODINGS: Mapping[str, Callable[[], Compressor]] = {"zstd": _Zstd, "gzip": _Gzip}
"""Every coding by its name in HTTP; the first is the best."""
