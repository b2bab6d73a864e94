"""Answers in every format: a client reads the stored numbers, bit for bit."""

import json
import math
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.strategies import MINUTES, Row, a_row, a_symbol, bits, candles_of, steady, utc

from api.responses.envelope import AnswerMetadata
from api.responses.formats import FORMATS
from mdp_core.domain.candles import COLUMNS, OPTIONAL_COLUMNS, Candles
from mdp_core.domain.clock import to_ms
from mdp_core.domain.intervals import Interval
from mdp_core.domain.queries import Answer, Missing
from mdp_core.domain.series import Series
from mdp_core.domain.versions import Versions
from mdp_core.domain.windows import Window
from mdp_core.errors import BadRows, ExchangeUnavailable, RateLimited

NAN = math.nan
ROW_COLUMNS = ["time", "open", "high", "low", "close", "volume"]
WINDOW = Window(utc(2024, 6, 10), utc(2024, 6, 11))

finite = st.one_of(
    st.floats(allow_nan=False, allow_infinity=False),
    st.sampled_from([0.0, -0.0, 5e-324, 1.7976931348623157e308, 1e16, 1e22, 1e23, 0.1, 1e-7, 9e15]),
    st.integers(-(2**53), 2**53).map(float),
)
optional = st.one_of(st.just(NAN), finite)
trades = st.one_of(st.just(NAN), st.integers(0, 2**31 - 1).map(float))
rows = st.lists(
    st.tuples(st.integers(-(2**52), 2**52), *[finite] * 5, optional, trades, optional, optional),
    max_size=20,
)


def answer() -> Answer:
    series = Series(1, a_symbol(), Interval.ONE_MINUTE, MINUTES, None)
    return Answer(
        series=series,
        window=WINDOW,
        settled_until=WINDOW.end,
        stored=WINDOW,
        edge=Candles.empty(),
        missing=[],
        next=None,
        cache="hit",
        upstream_requests=0,
        versions=Versions(1, 3),
        timings={},
    )


def encoded(
    blocks: Sequence[Candles],
    columns: Sequence[str] = ROW_COLUMNS,
    following: str | None = None,
    of: Answer | None = None,
    name: str = "json",
) -> bytes:
    """Write a whole body."""
    format_ = FORMATS[name]
    body = format_.body(AnswerMetadata(of or answer(), columns, following))
    rows = [format_.encode(block, columns) for block in blocks if len(block)]
    parts = [bytes(body.part(row)) for row in rows]
    return b"".join([body.head(), *parts, body.tail(sum(map(len, rows)))])


def body_of(
    blocks: Sequence[Candles],
    columns: Sequence[str] = ROW_COLUMNS,
    following: str | None = None,
    of: Answer | None = None,
) -> dict[str, Any]:
    return strict_json(encoded(blocks, columns, following, of))


def json_rows(candles: Candles, columns: Sequence[str]) -> bytes:
    return bytes(FORMATS["json"].encode(candles, columns).data[1:])


def strict_json(text: bytes) -> Any:  # noqa: ANN401 - JSON
    """Read JSON with two parsers: one refuses NaN, the other sees each number."""
    assert orjson.loads(text) == json.loads(text)
    return json.loads(text)


def printed(rows: list[Row]) -> list[list[float | None]]:
    return strict_json(b"[" + (json_rows(candles_of(rows), COLUMNS) if rows else b"") + b"]")


@steady
@given(rows.filter(bool))
def test_floats_are_read_back_bit_for_bit(rows: list[Row]) -> None:
    """Very small, very large and whole ones; minus zero too."""
    for sent, received in zip(rows, printed(rows), strict=True):
        numbers = [NAN if value is None else value for value in received[1:7]]
        assert [bits(value) for value in numbers] == [bits(value) for value in sent[1:7]]


@steady
@given(rows.filter(bool))
def test_times_and_trades_are_integers(rows: list[Row]) -> None:
    """A time printed as a float would not be the row shape of ccxt."""
    for sent, received in zip(rows, printed(rows), strict=True):
        assert type(received[0]) is int
        assert received[0] == sent[0]
        count = received[7]
        assert count is None if math.isnan(sent[7]) else type(count) is int
        assert count is None or count == sent[7]


def test_row_is_printed_in_the_shortest_form() -> None:
    """Byte for byte, so that a change of the library shows."""
    bare = a_row(0, **dict.fromkeys(OPTIONAL_COLUMNS, NAN))
    rows = [a_row(1718022600000, open=0.1, volume=1e22), bare]

    assert json_rows(candles_of(rows), COLUMNS) == (
        b"[1718022600000,0.1,12.0,9.0,11.0,1e+22,52.5,7,2.0,21.5],"
        b"[0,10.0,12.0,9.0,11.0,5.0,null,null,null,null]"
    )


@pytest.mark.parametrize(
    "columns",
    [
        ["time"],
        ["time", "close"],
        ["time", "trades"],
        ["time", "quote_volume", "open"],
        ROW_COLUMNS,
        [*COLUMNS],
    ],
    ids=len,
)
def test_row_holds_the_columns_asked_for_in_their_order(columns: list[str]) -> None:
    """No other, and in one array even where there is but one."""
    row = a_row(60_000)
    values = dict(zip(COLUMNS, row, strict=True))

    assert (
        strict_json(b"[" + json_rows(candles_of([row, row]), columns) + b"]")
        == [[values[name] for name in columns]] * 2
    )


def test_body_says_what_was_answered() -> None:
    """Every key of the contract, in its order, times in milliseconds."""
    body = body_of([candles_of([a_row(60_000), a_row(120_000)])], following="/candles/…?end=1")

    assert list(body.items()) == [
        ("exchange", "binance"),
        ("market_type", "perp"),
        ("symbol", "BTC-USDT"),
        ("interval", "1m"),
        ("start", to_ms(WINDOW.start)),
        ("end", to_ms(WINDOW.end)),
        ("settled_until", to_ms(WINDOW.end)),
        ("unconfirmed", []),
        ("columns", ROW_COLUMNS),
        ("candles", [list(a_row(60_000)[:6]), list(a_row(120_000)[:6])]),
        ("count", 2),
        ("complete", True),
        ("next", "/candles/…?end=1"),
    ]


@pytest.mark.parametrize("blocks", [0, 1, 3])
def test_answer_without_candles_is_whole(blocks: int) -> None:
    """No block, or only empty ones."""
    body = body_of([Candles.empty()] * blocks)

    assert (body["candles"], body["count"], body["complete"], body["next"]) == ([], 0, True, None)


@pytest.mark.parametrize(
    "lengths",
    [
        [1],
        [1, 1],
        [3, 2, 1],
        [0, 2],
        [2, 0],
        [2, 0, 0, 2],
        [0, 0, 1, 0],
        [2500, 1],
        [1, 2000, 2000],
    ],
    ids=str,
)
def test_blocks_are_joined_in_order(lengths: list[int]) -> None:
    """Empty blocks leave no comma."""
    minutes = iter(range(sum(lengths)))
    blocks = [candles_of([a_row(next(minutes) * 60_000) for _ in range(n)]) for n in lengths]

    body = body_of(blocks)

    assert [row[0] for row in body["candles"]] == [n * 60_000 for n in range(sum(lengths))]
    assert body["count"] == sum(lengths)


def test_what_is_missing_is_listed_with_its_reason() -> None:
    """The reason is the code under which the error would have been answered."""
    hours = [Window(utc(2024, 6, 10, hour), utc(2024, 6, 10, hour + 1)) for hour in range(3)]
    errors = [
        ExchangeUnavailable("binance", "answered HTTP 500"),
        RateLimited("binance", 3.0),
        BadRows("binance", [hours[2].start], "a negative volume"),
    ]
    missing = [Missing(hour, error) for hour, error in zip(hours, errors, strict=True)]

    body = body_of([], of=replace(answer(), missing=missing))

    assert body["complete"] is False
    assert body["missing"] == [
        {"start": to_ms(hour.start), "end": to_ms(hour.end), "reason": reason}
        for hour, reason in zip(
            hours, ("upstream_unavailable", "rate_limited", "upstream_bad_data"), strict=True
        )
    ]


def test_complete_answer_has_no_list_of_what_is_missing() -> None:
    """It has nothing to say about it."""
    assert "missing" not in body_of([])


def test_edge_of_finality_is_told() -> None:
    """It may lie before the end."""
    until = WINDOW.end - timedelta(minutes=1)

    body = body_of([], of=replace(answer(), settled_until=until))

    assert body["settled_until"] == to_ms(until) == body["end"] - 60_000


def test_after_warming_up_nothing_is_loaded_amid_an_answer() -> None:
    """In a separate process: a library loads nothing new with the first candle."""
    program = """
import sys, numpy
from api.responses.formats import FORMATS, warm_up
from mdp_core.domain.candles import COLUMNS, OPTIONAL_COLUMNS, Candles
warm_up()
before = set(sys.modules)
one = numpy.ones(1)
for each in FORMATS.values():
    each.encode(Candles(numpy.zeros(1, int), *(one,) * 7), COLUMNS)
sys.exit(repr(set(sys.modules) - before) if set(sys.modules) - before else 0)
"""
    subprocess.run([sys.executable, "-c", program], check=True)  # noqa: S603 - our own program
