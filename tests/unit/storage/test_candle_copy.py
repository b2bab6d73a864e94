"""Packed candles against a small parser of binary COPY, by PostgreSQL's manual."""

import math
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime

import numpy as np
import psycopg
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from psycopg.adapt import AdaptersMap, Transformer
from psycopg.pq import Format
from support.strategies import Row, a_row, bits, candles_of, steady, utc

from mdp_core.domain.candles import COLUMNS
from mdp_core.domain.clock import to_ms
from mdp_core.storage.candles.binary_copy import copy_batches
from mdp_core.storage.database.array_loaders import register_array_loaders

NAN = math.nan
FLOAT8, FLOAT8_ARRAY = 701, 1022
TIMESTAMPTZ, TIMESTAMPTZ_ARRAY = 1184, 1185
POSTGRES_EPOCH = datetime(2000, 1, 1, tzinfo=UTC)

odd_floats = st.sampled_from(
    [0.0, -0.0, 5e-324, -5e-324, 2.2250738585072014e-308, 1e308, 1.7976931348623157e308, 0.1]
)
floats = st.one_of(st.floats(allow_nan=False), odd_floats)
optional_floats = st.one_of(st.just(NAN), floats)
optional_trades = st.one_of(st.just(NAN), st.integers(-(2**31), 2**31 - 1).map(float))
times_ms = st.integers(to_ms(utc(1)), to_ms(utc(9999, 12, 31)))


class Stream:
    """Bytes, read from the front."""

    def __init__(self, data: bytes) -> None:
        self._data = data

    def take(self, length: int) -> bytes:
        assert len(self._data) >= length, "the stream ends early"
        taken, self._data = self._data[:length], self._data[length:]
        return taken

    def integer(self, length: int) -> int:
        return int.from_bytes(self.take(length), "big", signed=True)

    @property
    def is_at_end(self) -> bool:
        return not self._data


def fields_of(data: bytes) -> list[list[bytes]]:
    """Read a stream: signature, flags, extension, tuples of counted fields, trailer."""
    stream = Stream(data)
    assert stream.take(11) == b"PGCOPY\n\377\r\n\0"
    assert stream.integer(4) == 0, "no flags"
    stream.take(stream.integer(4))
    tuples = list[list[bytes]]()
    while (count := stream.integer(2)) != -1:
        tuples.append([stream.take(stream.integer(4)) for _ in range(count)])
    assert stream.is_at_end
    return tuples


def decoded(column: str, data: bytes) -> float:
    """Read one field as the server would, by its column's type."""
    if column == "time":
        (microseconds,) = struct.unpack(">q", data)
        assert microseconds % 1000 == 0
        return microseconds // 1000 + to_ms(POSTGRES_EPOCH)
    (number,) = struct.unpack(">i" if column == "trades" else ">d", data)
    return number


def rows_sent(series_id: int, rows: list[Row]) -> list[dict[str, float]]:
    """Pack rows and read every batch back, as dicts of the columns that have a value."""
    sent = list[dict[str, float]]()
    for columns, data in copy_batches(series_id, candles_of(rows)):
        for first, *fields in fields_of(data):
            assert struct.unpack(">i", first) == (series_id,)
            pairs = zip(columns, fields, strict=True)
            sent.append({name: decoded(name, field) for name, field in pairs})
    return sent


def expected_of(row: Row) -> dict[str, float]:
    pairs = zip(COLUMNS, row, strict=True)
    return {name: value for name, value in pairs if not math.isnan(value)}


def exact(row: dict[str, float]) -> dict[str, float | bytes]:
    """Make rows comparable bit for bit; integers stay as they are."""
    whole = ("time", "trades")
    return {name: int(v) if name in whole else bits(v) for name, v in row.items()}


def by_time(rows: list[dict[str, float]]) -> list[dict[str, float | bytes]]:
    return [exact(row) for row in sorted(rows, key=lambda row: row["time"])]


@steady
@given(
    st.integers(1, 2**31 - 1),
    st.dictionaries(
        times_ms,
        st.tuples(*[floats] * 5, optional_floats, optional_trades, *[optional_floats] * 2),
        max_size=12,
    ),
)
def test_every_row_arrives_bit_for_bit(
    series_id: int, numbers: dict[int, tuple[float, ...]]
) -> None:
    """Each row is in one batch, with its own numbers and no column that it lacks."""
    rows: list[Row] = [(time, *row) for time, row in numbers.items()]  # pyright: ignore[reportAssignmentType]

    sent = rows_sent(series_id, rows)

    assert by_time(sent) == by_time([expected_of(row) for row in rows])


@pytest.mark.parametrize("quote_volume", [52.5, NAN], ids=["quote volume", "no quote volume"])
@pytest.mark.parametrize("trades", [7.0, NAN], ids=["trades", "no trades"])
def test_batch_names_the_columns_that_its_rows_have(quote_volume: float, trades: float) -> None:
    """A null has no bytes: the column is left out, and the server fills in null."""
    row = a_row(0, quote_volume=quote_volume, trades=trades)

    ((columns, data),) = copy_batches(1, candles_of([row, row]))

    lacking = {"quote_volume"} if math.isnan(quote_volume) else set[str]()
    lacking |= {"trades"} if math.isnan(trades) else set()
    assert columns == tuple(name for name in COLUMNS if name not in lacking)
    assert [len(fields) for fields in fields_of(data)] == [1 + len(columns)] * 2


def test_rows_of_every_null_pattern_make_four_batches() -> None:
    """Rows that lack the same columns travel together, and none is lost."""
    patterns = [(q, t) for q in (1.0, NAN) for t in (1.0, NAN)]
    rows = [a_row(n, quote_volume=q, trades=t) for n, (q, t) in enumerate(patterns * 3)]

    batches = list(copy_batches(1, candles_of(rows)))

    assert len({columns for columns, _ in batches}) == len(batches) == 4
    assert by_time(rows_sent(1, rows)) == by_time([expected_of(row) for row in rows])


def test_no_rows_make_no_batch() -> None:
    """There is nothing to copy."""
    assert list(copy_batches(1, candles_of([]))) == []


@pytest.mark.parametrize(
    ("time", "microseconds"),
    [
        pytest.param(utc(2000), 0, id="Postgres' epoch"),
        pytest.param(utc(1970), -946_684_800_000_000, id="epoch"),
        pytest.param(utc(1999, 12, 31, 23, 59), -60_000_000, id="a minute before"),
        pytest.param(utc(1900), -3_155_673_600_000_000, id="long before"),
        pytest.param(utc(2024, 6, 10), 771_292_800_000_000, id="our days"),
        pytest.param(utc(9999, 12, 31), 252_455_529_600_000_000, id="far future"),
    ],
)
def test_time_counts_microseconds_from_2000(time: datetime, microseconds: int) -> None:
    """As `timestamptz` does with 64-bit integers."""
    ((_, data),) = copy_batches(1, candles_of([a_row(to_ms(time))]))

    assert struct.unpack(">q", fields_of(data)[0][1]) == (microseconds,)


@dataclass(frozen=True)
class Context:
    """The part of a cursor that a loader uses."""

    adapters: AdaptersMap
    connection: None = None


def load(array_oid: int, data: bytes) -> NDArray[np.generic]:
    context = Context(AdaptersMap(psycopg.adapters))
    register_array_loaders(context)
    return Transformer(context).get_loader(array_oid, Format.BINARY).load(data)


def array_of(element_oid: int, elements: Iterator[bytes]) -> bytes:
    """Write an array as `array_send` does: an empty one has no dimension."""
    parts = list(elements)
    head = struct.pack(">iiI", 1 if parts else 0, 0, element_oid)
    if parts:
        head += struct.pack(">ii", len(parts), 1)
    return head + b"".join(struct.pack(">i", len(part)) + part for part in parts)


@steady
@given(st.lists(st.one_of(optional_floats, st.just(math.inf)), min_size=1))
def test_float_array_is_loaded_bit_for_bit(values: list[float]) -> None:
    """NaN, which stands for null, included."""
    loaded = load(FLOAT8_ARRAY, array_of(FLOAT8, (bits(value) for value in values)))

    assert loaded.dtype == np.float64
    assert [bits(value) for value in loaded.tolist()] == [bits(value) for value in values]


@steady
@given(st.lists(times_ms, min_size=1))
def test_time_array_is_loaded_as_epoch_milliseconds(values: list[int]) -> None:
    """Before 2000 and before 1970 too."""
    sent = (struct.pack(">q", (ms - to_ms(POSTGRES_EPOCH)) * 1000) for ms in values)

    loaded = load(TIMESTAMPTZ_ARRAY, array_of(TIMESTAMPTZ, sent))

    assert loaded.dtype == np.int64
    assert loaded.tolist() == values


@pytest.mark.parametrize(
    ("array_oid", "element_oid"), [(FLOAT8_ARRAY, FLOAT8), (TIMESTAMPTZ_ARRAY, TIMESTAMPTZ)]
)
def test_empty_array_is_loaded_as_no_values(array_oid: int, element_oid: int) -> None:
    """`'{}'` has no dimension and a shorter header."""
    assert load(array_oid, array_of(element_oid, iter(()))).tolist() == []
