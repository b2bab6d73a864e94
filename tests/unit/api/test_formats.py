"""Every format, read by its users' libraries: the same numbers as in JSON."""

import csv
import io
import json
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import duckdb
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from pyarrow import csv as arrow_csv
from pyarrow import ipc, parquet
from support.strategies import MINUTES, a_row, a_symbol, bits, candles_of, utc

from api.responses.envelope import AnswerMetadata
from api.responses.formats import FORMATS
from mdp_core.domain.candles import COLUMNS, Candles
from mdp_core.domain.intervals import Interval
from mdp_core.domain.queries import Answer
from mdp_core.domain.series import Series
from mdp_core.domain.versions import Versions
from mdp_core.domain.windows import Window

_NAN = math.nan
_MINUTE_MS = 60_000
_START_MS = 1_714_521_600_000
_WINDOW = Window(utc(2024, 5), utc(2024, 5, 2))
_HARD = [0.0, -0.0, 5e-324, 1.7976931348623157e308, 1e16, 1e22, 1e23, 0.1, 1e-7, 9e15, 1 / 3]

Rows = Sequence[Sequence[Any]]
Reader = Callable[[bytes, Path], Rows]


def _hard_candles() -> Candles:
    """Numbers that are easily misread, and both optional columns with and without."""
    rows = [
        a_row(
            _START_MS + n * _MINUTE_MS,
            open=_HARD[n % 11],
            volume=n / 7,
            quote_volume=_NAN if n % 3 == 0 else n / 3,
            trades=_NAN if n % 5 == 0 else n * 1000,
        )
        for n in range(1, 101)
    ]
    return candles_of(rows)


def _body(name: str, blocks: Sequence[Candles]) -> bytes:
    series = Series(1, a_symbol(), Interval.ONE_MINUTE, MINUTES, None)
    answer = Answer(
        series=series,
        window=_WINDOW,
        settled_until=_WINDOW.end,
        stored=_WINDOW,
        edge=Candles.empty(),
        missing=[],
        next=None,
        cache="hit",
        upstream_requests=0,
        versions=Versions(1, 3),
        timings={},
    )
    format_ = FORMATS[name]
    body = format_.body(AnswerMetadata(answer, COLUMNS, "/candles/the/rest"))
    parts = [format_.encode(block, COLUMNS) for block in blocks]
    written = [body.head(), *(bytes(body.part(part)) for part in parts)]
    return b"".join([*written, body.tail(sum(map(len, parts)))])


def _of_pandas(frame: pd.DataFrame) -> Rows:
    if not pd.api.types.is_integer_dtype(frame["time"]):
        assert str(frame["time"].dtype) == "datetime64[ms, UTC]"
        frame = frame.assign(time=frame["time"].astype("int64"))
    return frame.astype(object).to_numpy().tolist()


def _of_pyarrow(table: Any) -> Rows:  # noqa: ANN401 - pyarrow comes without types
    if table.schema.field("time").type != pa.int64():
        assert table.schema.field("time").type == pa.timestamp("ms", "UTC")
        table = table.set_column(0, "time", table["time"].cast(pa.int64()))
    return [list(row.values()) for row in table.to_pylist()]


def _of_polars(frame: pl.DataFrame) -> Rows:
    if frame.schema["time"] != pl.Int64:
        assert frame.schema["time"] == pl.Datetime("ms", "UTC")
        frame = frame.with_columns(pl.col("time").dt.epoch("ms"))
    return frame.rows()


def _in_duckdb(function: str) -> Reader:
    def read(body: bytes, path: Path) -> Rows:
        path.write_bytes(body)
        time = "epoch_ms(time)" if function == "read_parquet" else "time"
        query = f"SELECT * REPLACE ({time} AS time) FROM {function}('{path}')"  # noqa: S608
        return duckdb.connect().execute(query).fetchall()

    return read


def _with_csv(body: bytes, _: Path) -> Rows:
    rows = list(csv.reader(io.StringIO(body.decode())))[1:]
    return [[int(row[0]), *(float(text) if text else None for text in row[1:])] for row in rows]


READERS: Mapping[tuple[str, str], Reader] = {
    ("ndjson", "json"): lambda body, _: [[*json.loads(line).values()] for line in body.split()],
    ("ndjson", "pandas"): lambda body, _: _of_pandas(
        pd.read_json(io.BytesIO(body), lines=True, engine="pyarrow")
    ),
    ("ndjson", "polars"): lambda body, _: _of_polars(pl.read_ndjson(body)),
    ("ndjson", "duckdb"): _in_duckdb("read_ndjson"),
    ("csv", "csv"): _with_csv,
    ("csv", "pandas"): lambda body, _: _of_pandas(
        pd.read_csv(io.BytesIO(body), dtype={"time": "int64"})
    ),
    ("csv", "polars"): lambda body, _: _of_polars(
        pl.read_csv(body, schema_overrides={"time": pl.Int64})
    ),
    ("csv", "pyarrow"): lambda body, _: _of_pyarrow(arrow_csv.read_csv(io.BytesIO(body))),
    ("csv", "duckdb"): _in_duckdb("read_csv"),
    ("arrow", "pyarrow"): lambda body, _: _of_pyarrow(ipc.open_stream(body).read_all()),
    ("arrow", "pandas"): lambda body, _: _of_pandas(ipc.open_stream(body).read_pandas()),
    ("arrow", "polars"): lambda body, _: _of_polars(pl.read_ipc_stream(body)),
    ("parquet", "pyarrow"): lambda body, _: _of_pyarrow(parquet.read_table(io.BytesIO(body))),
    ("parquet", "pandas"): lambda body, _: _of_pandas(pd.read_parquet(io.BytesIO(body))),
    ("parquet", "polars"): lambda body, _: _of_polars(pl.read_parquet(body)),
    ("parquet", "duckdb"): _in_duckdb("read_parquet"),
}
# Without a line these have no columns to tell, and say so by an error.
_NEED_A_LINE = {
    ("ndjson", "pandas"),
    ("ndjson", "polars"),
    ("csv", "pyarrow"),
    ("ndjson", "duckdb"),
}


def _in_bits(rows: Rows) -> list[list[bytes]]:
    return [[bits(_NAN if value is None else float(value)) for value in row] for row in rows]


@pytest.mark.parametrize(("name", "library"), READERS)
@pytest.mark.parametrize("cut", [100, 40], ids=["one block", "three blocks"])
def test_every_library_reads_the_numbers_of_json(
    name: str, library: str, cut: int, tmp_path: Path
) -> None:
    """To the last bit, with nulls for nothing, however the rows were put together."""
    candles = _hard_candles()
    blocks = [candles[slice(first, first + cut)] for first in range(0, 100, cut)]
    expected = json.loads(_body("json", blocks))["candles"]

    read = READERS[name, library](_body(name, blocks), tmp_path / "body")

    assert _in_bits(read) == _in_bits(expected)


@pytest.mark.parametrize(("name", "library"), sorted(READERS.keys() - _NEED_A_LINE))
def test_every_library_reads_an_empty_window(name: str, library: str, tmp_path: Path) -> None:
    """No rows, and no error."""
    assert json.loads(_body("json", []))["candles"] == []
    assert list(READERS[name, library](_body(name, []), tmp_path / "body")) == []


@pytest.mark.parametrize("name", ["arrow", "parquet"])
def test_schema_says_what_the_answer_holds(name: str) -> None:
    """A file on disk tells its source, and for which window it is complete."""
    body = _body(name, [_hard_candles()])
    read = ipc.open_stream if name == "arrow" else parquet.ParquetFile
    schema = read(io.BytesIO(body)).schema
    schema = schema if name == "arrow" else schema.to_arrow_schema()
    said = {key.decode(): value.decode() for key, value in (schema.metadata or {}).items()}

    assert said.items() >= {
        ("exchange", "binance"),
        ("market_type", "perp"),
        ("symbol", "BTC-USDT"),
        ("interval", "1m"),
        ("start", "1714521600000"),
        ("end", "1714608000000"),
        ("settled_until", "1714608000000"),
        ("complete", "true"),
        ("next", "/candles/the/rest"),
    }
    types = {field.name: str(field.type) for field in schema}
    assert types == {
        "time": "timestamp[ms, tz=UTC]",
        **dict.fromkeys(COLUMNS[1:], "double"),
        "trades": "int64",
    }


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize(("first", "stop"), [(0, 1), (0, 100), (17, 60), (99, 100), (40, 40)])
def test_rows_cut_from_a_block_are_those_of_the_window(name: str, first: int, stop: int) -> None:
    """Byte for byte as if they had been encoded alone: a strong ETag says so."""
    candles, format_ = _hard_candles(), FORMATS[name]
    at = [utc(2024, 5, 1, minute // 60, minute % 60) for minute in (first + 1, stop + 1)]
    block = format_.encode(candles, COLUMNS)

    cut = format_.cut(block, Window(*at), COLUMNS)

    assert cut.time.tolist() == candles.time[first:stop].tolist()
    if stop > first:
        assert bytes(cut.data) == bytes(format_.encode(candles[slice(first, stop)], COLUMNS).data)
