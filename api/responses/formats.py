"""Encoders of candles: the only module that knows formats.

Text is a CSV of polars: times are integers and every float has the shortest form that reads back as
the same float64; a CSV whose lines end in `],[` is an array of JSON rows. Arrow and Parquet are
pyarrow's, which alone writes what an answer says into the schema, and Parquet piece by piece.

Rows are encoded apart from the body that they go into, so that many bodies can share them.
"""

# pyarrow comes without types.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownParameterType=false, reportUnknownArgumentType=false

import io
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import ClassVar

import numpy as np
import orjson
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from typing_extensions import override

from api.responses.block_cache import Data, Rows
from api.responses.envelope import AnswerMetadata
from mdp_core.domain.candles import COLUMNS, OPTIONAL_COLUMNS, Candles
from mdp_core.domain.windows import Window

VERSION = f"2 polars {pl.__version__} pyarrow {pa.__version__}"
"""Of another version the same candles may be other bytes."""

_INTEGERS = ("time", "trades")
_END_OF_STREAM = b"\xff\xff\xff\xff\0\0\0\0"


class Body:
    """One answer's body as it is written: `head`, its rows in order, `tail`."""

    def __init__(self, head: bytes, tail: Callable[[int], bytes], *, skip: int = 0) -> None:
        self._head = head
        self._tail = tail
        self.skip = skip

    def head(self) -> bytes:
        """Return the bytes before every row."""
        return self._head

    def part(self, rows: Rows) -> Data:
        """Return the next rows (at least one); the first without a separator."""
        skip, self.skip = self.skip, 0
        return memoryview(rows.data)[skip:] if skip else rows.data

    def tail(self, count: int) -> bytes:
        """Return the bytes after all `count` rows."""
        return self._tail(count)


class RowEncoder(ABC):
    """An encoding of rows; those of one kind and one series are the same bytes."""

    is_packed: ClassVar[bool] = False
    """Whether a body is compressed in itself, takes time to write, and tells no length before."""

    def __init__(self, rows_kind: str) -> None:
        self.rows_kind = rows_kind

    @abstractmethod
    def encode(self, candles: Candles, columns: Sequence[str]) -> Rows:
        """Encode candles (at least one)."""

    @abstractmethod
    def cut(self, rows: Rows, window: Window, columns: Sequence[str]) -> Rows:
        """Return the rows that open in `window`, without encoding them again."""


class Format(RowEncoder):
    """An encoding of rows, and of the body around them."""

    def __init__(self, media_type: str, rows_kind: str) -> None:
        super().__init__(rows_kind)
        self.media_type = media_type

    @abstractmethod
    def body(self, provenance: AnswerMetadata) -> Body:
        """Begin a body."""


class TextRows(RowEncoder):
    """Rows of text, each of which ends with a byte that is nowhere else in it."""

    row_end: int = ord("\n")

    @override
    def cut(self, rows: Rows, window: Window, columns: Sequence[str]) -> Rows:
        return self.between(rows, *rows.span(window))

    def between(self, rows: Rows, first: int, stop: int) -> Rows:
        """Return the rows from position `first` to before `stop`."""
        bounds = self.bounds(rows)
        data = memoryview(rows.data)[bounds[first] : bounds[stop]]
        return Rows(data, rows.time[first:stop])

    def bounds(self, rows: Rows) -> NDArray[np.uint32]:
        """Return the offset of each row and the end of the last."""
        if rows.bounds is None:
            ends = np.flatnonzero(np.frombuffer(rows.data, np.uint8) == self.row_end) + 1
            rows.bounds = np.concatenate([[0], ends]).astype(np.uint32)
        return rows.bounds


class _Text(TextRows, Format):
    def write(self, frame: pl.DataFrame) -> bytes:
        text = io.BytesIO()
        frame.write_csv(text, include_header=False)
        return text.getvalue()

    @override
    def encode(self, candles: Candles, columns: Sequence[str]) -> Rows:
        data = self.write(pl.DataFrame([_series(candles, name) for name in columns]))
        return Rows(data, candles.time)

    @override
    def body(self, provenance: AnswerMetadata) -> Body:
        return Body(",".join(provenance.columns).encode() + b"\n", lambda _: b"")


class _Ndjson(_Text):
    @override
    def write(self, frame: pl.DataFrame) -> bytes:
        text = io.BytesIO()
        frame.write_ndjson(text)
        return text.getvalue()

    @override
    def body(self, provenance: AnswerMetadata) -> Body:
        return Body(b"", lambda _: b"")


class _Json(_Text):
    row_end = ord("]")

    @override
    def write(self, frame: pl.DataFrame) -> bytes:
        """Write every row with a comma before it."""
        text = io.BytesIO(b",[")
        text.seek(0, io.SEEK_END)
        frame.write_csv(text, include_header=False, line_terminator="],[", null_value="null")
        text.truncate(text.tell() - len(",["))
        return text.getvalue()

    @override
    def body(self, provenance: AnswerMetadata) -> Body:
        head = orjson.dumps({**provenance.window(), "columns": provenance.columns})

        def tail(count: int) -> bytes:
            return b"]," + orjson.dumps({"count": count, **provenance.completeness()})[1:]

        return Body(head[:-1] + b',"candles":[', tail, skip=len(","))


class _Arrow(Format):
    @override
    def encode(self, candles: Candles, columns: Sequence[str]) -> Rows:
        schema = _schema(columns)
        arrays = (
            pa.array(getattr(candles, field.name), field.type, from_pandas=field.nullable)
            for field in schema
        )
        batch = pa.record_batch([*arrays], schema=schema)
        return Rows(batch.serialize().to_pybytes(), candles.time)

    @override
    def cut(self, rows: Rows, window: Window, columns: Sequence[str]) -> Rows:
        first, stop = rows.span(window)
        batch = _batch(rows, _schema(columns)).slice(first, stop - first)
        return Rows(batch.serialize().to_pybytes(), rows.time[first:stop])

    @override
    def body(self, provenance: AnswerMetadata) -> Body:
        head = _schema(provenance.columns, provenance.metadata()).serialize()
        return Body(head.to_pybytes(), lambda _: _END_OF_STREAM)


class _Parquet(_Arrow):
    is_packed = True

    @override
    def body(self, provenance: AnswerMetadata) -> Body:
        return _ParquetBody(_schema(provenance.columns, provenance.metadata()))


class _ParquetBody(Body):
    """Rows become a row group each."""

    def __init__(self, schema: pa.Schema) -> None:
        written = _Written()
        writer = pq.ParquetWriter(
            written, schema, compression="zstd", compression_level=1, use_dictionary=False
        )
        self._written, self._writer, self._schema = written, writer, schema
        super().__init__(written.take(), self._close)

    @override
    def part(self, rows: Rows) -> Data:
        self._writer.write_batch(_batch(rows, self._schema))
        return self._written.take()

    def _close(self, _: int) -> bytes:
        self._writer.close()
        return self._written.take()


class _Written(io.BytesIO):
    """A file that forgets what was taken from it, but not how long it is."""

    taken = 0

    @override
    def tell(self) -> int:
        return self.taken + super().tell()

    def take(self) -> bytes:
        data = self.getvalue()
        self.taken += len(data)
        self.seek(0)
        self.truncate()
        return data


def warm_up() -> None:
    """Encode one candle in every format, so that the libraries finish loading."""
    one = np.ones(1)
    candles = Candles(np.zeros(1, np.int64), *(one,) * (len(COLUMNS) - 1))
    for form in FORMATS.values():
        form.encode(candles, COLUMNS)


def _series(candles: Candles, name: str) -> pl.Series:
    column = pl.Series(name, getattr(candles, name))
    if name in OPTIONAL_COLUMNS:
        column = column.fill_nan(None)
    return column.cast(pl.Int64) if name in _INTEGERS else column


def _type(name: str) -> pa.DataType:
    if name == "time":
        return pa.timestamp("ms", "UTC")
    return pa.int64() if name in _INTEGERS else pa.float64()


def _schema(columns: Sequence[str], metadata: Mapping[str, str] | None = None) -> pa.Schema:
    fields = [pa.field(name, _type(name), name in OPTIONAL_COLUMNS) for name in columns]
    return pa.schema(fields, metadata)


def _batch(rows: Rows, schema: pa.Schema) -> pa.RecordBatch:
    return pa.ipc.read_record_batch(pa.py_buffer(rows.data), schema)


FORMATS: Mapping[str, Format] = {
    "json": _Json("application/json", "json"),
    "ndjson": _Ndjson("application/x-ndjson", "ndjson"),
    "csv": _Text("text/csv", "csv"),
    "arrow": _Arrow("application/vnd.apache.arrow.stream", "arrow"),
    "parquet": _Parquet("application/vnd.apache.parquet", "arrow"),
}
"""Every format by its name; the first is the usual one. Those with one kind of rows share them."""
