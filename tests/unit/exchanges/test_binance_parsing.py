"""Binance's answers: every recorded one, and those that no exchange should send."""

import math
import re
import struct
from dataclasses import replace
from datetime import datetime
from decimal import Decimal, InvalidOperation
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.strategies import SHARED, Row, rows_of, steady, utc

from mdp_core.domain.candles import COLUMNS, OPTIONAL_COLUMNS
from mdp_core.domain.clock import from_ms, to_ms
from mdp_core.domain.intervals import Interval
from mdp_core.domain.series import Symbol
from mdp_core.errors import BadPayload
from mdp_core.exchanges.binance import (
    BinanceFuturesAdapter,
    parse_candles,
    parse_symbols,
    parse_time,
)
from mdp_core.exchanges.parsing import UNREADABLE_TIME

RECORDED = SHARED / "recorded"
DAY_MS = 86_400_000
FULL_WIDTH = "\uff11\uff12"  # 12, to Python
EXCHANGE_INFO = "exchangeInfo_5symbols_2026-10-07"

needs_recordings = pytest.mark.skipif(
    not RECORDED.is_dir(), reason="the recordings are not beside the project"
)

KLINE: list[Any] = [
    1791382920000,
    "83137.90",
    "83155.70",
    "83082.90",
    "83084.90",
    "102.437",
    1791382979999,
    "8514292.61220",
    4409,
    "49.832",
    "4141805.93340",
    "0",
]
NUMBERS = {1: "open", 2: "high", 3: "low", 4: "close", 5: "volume", 7: "quote_volume"}

PERPETUAL: dict[str, Any] = {
    "symbol": "BTCUSDT",
    "pair": "BTCUSDT",
    "contractType": "PERPETUAL",
    "deliveryDate": 4133404800000,
    "onboardDate": 1567965300000,
    "status": "TRADING",
    "baseAsset": "BTC",
    "quoteAsset": "USDT",
    "filters": [
        {"filterType": "LOT_SIZE", "stepSize": "0.001"},
        {"filterType": "PRICE_FILTER", "tickSize": "0.10"},
    ],
}
BITCOIN = Symbol(
    exchange="binance",
    market_type="perp",
    name="BTC-USDT",
    native="BTCUSDT",
    base="BTC",
    quote="USDT",
    active=True,
    tick_size=0.1,
    step_size=0.001,
    listed_at=from_ms(1567965300000),
)

texts = st.one_of(
    st.text(max_size=4),
    st.sampled_from(
        ["nan", "inf", "-Infinity", "1_000", "0x10", " 1", "1.5", "-1", "1e3", FULL_WIDTH]
    ),
)
scalars = st.one_of(
    st.none(), st.booleans(), st.integers(-(2**70), 2**70), st.floats(allow_nan=False), texts
)
json_values = st.recursive(
    scalars,
    lambda inner: st.one_of(
        st.lists(inner, max_size=13), st.dictionaries(st.text(max_size=4), inner, max_size=3)
    ),
    max_leaves=15,
)


def recorded(name: str) -> Any:  # noqa: ANN401 - JSON
    return orjson.loads((RECORDED / f"binance_usdm_{name}.json").read_bytes())


def exchange_info(*entries: object) -> dict[str, object]:
    return {"timezone": "UTC", "symbols": list(entries)}


def perpetual(**changed: object) -> dict[str, Any]:
    return {**PERPETUAL, **changed}


def kline(position: int, value: object) -> list[Any]:
    return [*KLINE[:position], value, *KLINE[position + 1 :]]


# --- klines


@needs_recordings
def test_recorded_days_of_2019_are_read() -> None:
    """The answer begins with the first candle, and holds the one opening at its end."""
    candles = parse_candles(recorded("klines_BTCUSDT_1d_2019"))

    assert len(candles) == 116
    assert from_ms(int(candles.time[0])) == utc(2019, 9, 8)
    assert int(candles.time[-1]) == 1577836800000 == to_ms(utc(2020))
    assert set((candles.time[1:] - candles.time[:-1]).tolist()) == {DAY_MS}


@needs_recordings
@pytest.mark.parametrize("name", ["BTCUSDT_1d_2019", "BTCUSDT_1m_limit2_2026-10-07"])
def test_recorded_numbers_are_in_their_columns(name: str) -> None:
    """Each number is the one that its row has for it."""
    payload = recorded(f"klines_{name}")

    assert rows_of(parse_candles(payload)) == [
        (row[0], *(float(row[at]) for at in (*range(1, 6), *range(7, 11)))) for row in payload
    ]


@needs_recordings
def test_recorded_forming_candle_is_read_as_any_row() -> None:
    """The second minute was still forming: it is the caller who knows what time it is."""
    candles = parse_candles(recorded("klines_BTCUSDT_1m_limit2_2026-10-07"))

    assert candles.time.tolist() == [1791382920000, 1791382980000]
    assert candles.trades.tolist() == [4409.0, 801.0]


@pytest.mark.parametrize(
    "row",
    [
        pytest.param(KLINE[:11], id="eleven columns"),
        pytest.param([*KLINE, "more"], id="thirteen columns"),
        pytest.param([*KLINE[:11], []], id="columns that are not read"),
        pytest.param(kline(6, "?"), id="another close time"),
    ],
)
def test_row_may_have_more_columns_than_are_needed(row: list[Any]) -> None:
    """The documentation and the live answers differ about the last one."""
    assert rows_of(parse_candles([row])) == rows_of(parse_candles([KLINE]))


def test_short_row_lacks_its_last_numbers() -> None:
    """A kline without quote volume, trades and taker volumes is read."""
    candles = parse_candles([KLINE, KLINE[:6]])

    assert candles.volume.tolist() == [102.437, 102.437]
    assert all(math.isnan(getattr(candles, name)[1]) for name in OPTIONAL_COLUMNS)


def read_slowly(row: object) -> Row:
    """Read one row as an oracle: missing is NaN, anything but a number is infinite."""
    values: list[object] = [
        row[at] if isinstance(row, list) and at < len(row) else None  # pyright: ignore[reportUnknownArgumentType]
        for at in (*range(6), *range(7, 11))
    ]
    time = values[0]
    if type(time) is not int or abs(time) >= 2**63:
        time = UNREADABLE_TIME
    trades = values[7] if type(values[7]) is int or values[7] in (None, "") else "x"
    return (time, *(_decimal(value) for value in [*values[1:7], trades, *values[8:]]))  # pyright: ignore[reportReturnType]


def _decimal(value: object) -> float:
    if value is None or value == "":
        return math.nan
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        return math.inf
    if isinstance(value, str) and not re.fullmatch(r"[0-9eE.+-]+", value):
        return math.inf
    try:
        return float(Decimal(value))
    except (InvalidOperation, OverflowError):
        return math.inf


def assert_right_or_bad(payload: object) -> None:
    try:
        candles = parse_candles(payload)
    except BadPayload:
        is_list = isinstance(payload, list)
        assert not is_list or all(read_slowly(row)[0] == UNREADABLE_TIME for row in payload)  # pyright: ignore[reportUnknownVariableType]
        return
    assert isinstance(payload, list)
    read = [struct.pack("q9d", *row) for row in rows_of(candles)]
    assert read == [struct.pack("q9d", *read_slowly(row)) for row in payload]  # pyright: ignore[reportUnknownVariableType]


@steady
@given(json_values)
def test_any_json_is_read_rightly_as_klines_or_is_a_bad_payload(payload: object) -> None:
    """Nothing else may come out."""
    assert_right_or_bad(payload)


@steady
@given(st.integers(1, 4), st.integers(0, 3), st.integers(0, 11), json_values)
def test_broken_klines_are_read_as_far_as_they_can_be(
    rows: int, row: int, column: int, value: object
) -> None:
    """One value among right ones is something else."""
    payload = [list(KLINE) for _ in range(rows)]
    payload[row % rows][column] = value

    assert_right_or_bad(payload)


@steady
@given(st.lists(st.one_of(st.just(KLINE), st.lists(scalars, max_size=13)), max_size=4))
def test_rows_of_any_length_are_read_as_far_as_they_can_be(payload: list[Any]) -> None:
    """Short rows, long rows, rows of anything."""
    assert_right_or_bad(payload)


@steady
@given(st.decimals(allow_nan=False, allow_infinity=False, places=8), st.sampled_from([*NUMBERS]))
def test_decimal_text_is_read_as_the_nearest_float(number: Decimal, position: int) -> None:
    """Nothing is rounded on the way."""
    candles = parse_candles([kline(position, f"{number:f}")])

    assert float(getattr(candles, NUMBERS[position])[0]) == float(number)


# --- exchangeInfo


@needs_recordings
def test_recorded_perpetuals_are_listed_and_nothing_else() -> None:
    """A contract on gold and a dated one are left out; a Chinese name is a name."""
    symbols = {symbol.name: symbol for symbol in parse_symbols(recorded(EXCHANGE_INFO))}

    assert list(symbols) == ["BTC-USDT", "币安人生-USDT", "OMG-USDT"]
    assert symbols["BTC-USDT"] == BITCOIN
    assert symbols["币安人生-USDT"].native == "币安人生USDT"
    assert symbols["币安人生-USDT"].tick_size == 0.0001
    assert symbols["币安人生-USDT"].step_size == 1.0


@needs_recordings
def test_recorded_delisted_perpetual_is_inactive_since_its_delivery() -> None:
    """It stays in the list for ever, in a state that is not TRADING."""
    omg = next(s for s in parse_symbols(recorded(EXCHANGE_INFO)) if s.base == "OMG")

    assert not omg.active
    assert omg.delisted_at == from_ms(1738314000000)
    assert omg.listed_at == from_ms(1593680400000)


@pytest.mark.parametrize(
    ("base", "multiplier"),
    [
        ("BTC", 1),
        ("1000SHIB", 1000),
        ("1INCH", 1),
        ("1000000MOG", 1_000_000),
        ("10000LADYS", 10_000),
        ("1MBABYDOGE", 1),
        ("100X", 1),
        ("1000", 1),
        ("2000CATS", 1),
        ("1001NIGHTS", 1),
        ("币安人生", 1),
    ],
)
def test_multiplier_is_read_from_the_name_and_the_name_stays(base: str, multiplier: int) -> None:
    """Prices and volumes count in thousands: the familiar name says so."""
    (symbol,) = parse_symbols(exchange_info(perpetual(baseAsset=base)))

    assert symbol.name == f"{base}-USDT"
    assert symbol.base == base
    assert symbol.multiplier == multiplier


@pytest.mark.parametrize(
    "contract",
    [
        "",
        None,
        "TRADIFI_PERPETUAL",
        "CURRENT_QUARTER",
        "NEXT_MONTH",
        "PERPETUAL DELIVERING",
        "PERPETUAL_DELIVERING",
        "perpetual",
        "SOMETHING_NEW",
        ["PERPETUAL"],
        7,
    ],
)
def test_other_contract_types_are_left_out(contract: object) -> None:
    """Unknown ones too, whatever else the entry lacks."""
    other = {"contractType": contract, "symbol": "BTCUSDT_261225"}

    assert parse_symbols(exchange_info(other, {}, PERPETUAL)) == [BITCOIN]


@pytest.mark.parametrize(
    "status",
    ["PENDING_TRADING", "SETTLING", "CLOSE", "DELIVERED", "SOMETHING_NEW", "", None, 1, []],
)
def test_state_other_than_trading_is_inactive(status: object) -> None:
    """Unknown states come and go; the symbol is listed all the same."""
    (symbol,) = parse_symbols(exchange_info(perpetual(status=status)))

    assert symbol == replace(BITCOIN, active=False)


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        pytest.param({"newKey": {"a": [1]}}, BITCOIN, id="unknown key"),
        pytest.param({"filters": []}, replace(BITCOIN, tick_size=None, step_size=None), id="empty"),
        pytest.param(
            {"filters": None}, replace(BITCOIN, tick_size=None, step_size=None), id="null"
        ),
        pytest.param(
            {"filters": [{"filterType": "NEW"}, {}, {"filterType": "LOT_SIZE"}]},
            replace(BITCOIN, tick_size=None, step_size=None),
            id="unknown filters",
        ),
        pytest.param(
            {"filters": PERPETUAL["filters"][::-1]}, BITCOIN, id="filters in another order"
        ),
        pytest.param({"onboardDate": None}, replace(BITCOIN, listed_at=None), id="no onboardDate"),
        pytest.param({"onboardDate": 0}, replace(BITCOIN, listed_at=None), id="onboardDate 0"),
        pytest.param({"deliveryDate": None}, BITCOIN, id="no deliveryDate"),
        pytest.param({"deliveryDate": 0}, BITCOIN, id="deliveryDate 0"),
        pytest.param(
            {"deliveryDate": 1738314000000},
            replace(BITCOIN, delisted_at=from_ms(1738314000000)),
            id="delivered",
        ),
    ],
)
def test_what_is_unknown_or_missing_does_no_harm(
    changed: dict[str, object], expected: Symbol
) -> None:
    """Keys come and go: only the names must be there."""
    assert parse_symbols(exchange_info(perpetual(**changed))) == [expected]


@pytest.mark.parametrize("key", ["filters", "onboardDate", "deliveryDate", "status", "pair"])
def test_perpetual_without_a_key_that_may_be_missing_is_listed(key: str) -> None:
    """Information may be absent."""
    entry = {name: value for name, value in PERPETUAL.items() if name != key}

    assert [symbol.name for symbol in parse_symbols(exchange_info(entry))] == ["BTC-USDT"]


@pytest.mark.parametrize("key", ["symbol", "baseAsset", "quoteAsset"])
@pytest.mark.parametrize("value", ["(absent)", None, "", 7, True, [], {}])
def test_perpetual_without_its_names_is_left_out(key: str, value: object) -> None:
    """A symbol named `None-USDT` would be served for ever."""
    entry = perpetual(**{key: value})
    if value == "(absent)":
        del entry[key]

    assert parse_symbols(exchange_info(PERPETUAL, entry)) == [BITCOIN]


@pytest.mark.parametrize(
    "payload",
    [
        pytest.param(None, id="null"),
        pytest.param([], id="list"),
        pytest.param({}, id="no symbols"),
        pytest.param({"symbols": None}, id="null symbols"),
        pytest.param({"symbols": {}}, id="dict of symbols"),
        pytest.param({"symbols": ""}, id="text of symbols"),
        pytest.param({"symbols": "BTCUSDT"}, id="one symbol's name"),
        pytest.param({"symbols": 5}, id="number of symbols"),
        pytest.param({"symbols": ["BTCUSDT"]}, id="names of symbols"),
        pytest.param({"symbols": [None]}, id="null symbol"),
        pytest.param("symbols", id="text"),
    ],
)
def test_exchange_info_without_a_list_of_symbols_is_a_bad_payload(payload: object) -> None:
    """An empty list would look as if everything had been delisted."""
    with pytest.raises(BadPayload, match="exchangeInfo"):
        parse_symbols(payload)


@pytest.mark.parametrize(
    "changed",
    [
        pytest.param({"onboardDate": "1567965300000"}, id="onboardDate as text"),
        pytest.param({"onboardDate": True}, id="onboardDate as boolean"),
        pytest.param({"onboardDate": 1567965300000.5}, id="onboardDate as float"),
        pytest.param({"deliveryDate": 10**17}, id="deliveryDate beyond the calendar"),
        pytest.param({"filters": [{"filterType": "LOT_SIZE", "stepSize": "nan"}]}, id="nan"),
        pytest.param({"filters": [{"filterType": "LOT_SIZE", "stepSize": "1_0"}]}, id="1_0"),
        pytest.param({"filters": [{"filterType": "LOT_SIZE", "stepSize": True}]}, id="boolean"),
        pytest.param({"filters": [{"filterType": "LOT_SIZE", "stepSize": "N/A"}]}, id="N/A"),
        pytest.param({"filters": ["LOT_SIZE"]}, id="filters as names"),
        pytest.param({"filters": [None]}, id="null filter"),
        pytest.param({"baseAsset": None}, id="null base"),
    ],
)
def test_malformed_entry_costs_its_own_symbol_and_is_logged_by_name(
    changed: dict[str, object], caplog: pytest.LogCaptureFixture
) -> None:
    """A wrong time or size is worse than none; what was known of it stays."""
    bad = perpetual(symbol="ETHUSDT", **changed)

    symbols = parse_symbols(exchange_info(PERPETUAL, bad))

    assert symbols == [BITCOIN]
    assert symbols.malformed == {"ETHUSDT"}
    (line,) = caplog.records
    assert vars(line)["symbols"] == ["ETHUSDT"]


def test_list_of_malformed_entries_alone_is_a_bad_payload() -> None:
    """The shape of the list has changed."""
    with pytest.raises(BadPayload, match="exchangeInfo"):
        parse_symbols(exchange_info(perpetual(baseAsset=None), perpetual(onboardDate="x")))


@steady
@given(json_values)
def test_any_json_is_a_list_of_symbols_or_a_bad_payload(payload: object) -> None:
    """Nothing else may come out, wherever it stands."""
    for body in (payload, {"symbols": payload}, exchange_info(payload)):
        assert_symbols_or_bad(body)


@steady
@given(st.sampled_from([*PERPETUAL]), json_values)
def test_perpetual_with_any_value_is_a_symbol_or_a_bad_payload(key: str, value: object) -> None:
    """One value of a right entry is something else."""
    assert_symbols_or_bad(exchange_info(perpetual(**{key: value})))


def assert_symbols_or_bad(payload: object) -> None:
    try:
        symbols = parse_symbols(payload)
    except BadPayload:
        return
    for symbol in symbols:
        assert all((symbol.base, symbol.quote, symbol.native))
        assert symbol.name == f"{symbol.base}-{symbol.quote}"


# --- time, and the history start of a series


@needs_recordings
def test_recorded_time_is_read() -> None:
    """Milliseconds, UTC."""
    assert parse_time(recorded("time")) == from_ms(1620099477465)


# --- facts


def test_every_interval_is_offered_in_its_own_spelling() -> None:
    """All fifteen; `1m` and `1M` differ by case alone."""
    offered = BinanceFuturesAdapter.facts.intervals

    assert {interval: o.native for interval, o in offered.items()} == {
        interval: interval.value for interval in Interval
    }
    assert [i for i, o in offered.items() if o.phase_varies] == [Interval.THREE_DAYS]


@pytest.mark.parametrize(
    ("interval", "opened"),
    [
        (Interval.ONE_WEEK, utc(2024, 6, 10)),
        (Interval.ONE_WEEK, utc(2017, 7, 3)),
        (Interval.THREE_DAYS, utc(2024, 1, 1)),
        (Interval.THREE_DAYS, utc(2026, 7, 10)),
        (Interval.ONE_MONTH, utc(2020, 10, 1)),
        (Interval.ONE_MONTH, utc(2020, 11, 1)),
        (Interval.ONE_DAY, utc(2019, 9, 8)),
    ],
)
def test_documented_open_lies_on_the_grid(interval: Interval, opened: datetime) -> None:
    """Opens that the documentation or a recording shows."""
    grid = BinanceFuturesAdapter.facts.intervals[interval].grid

    assert grid.floor(opened) == opened


def test_columns_of_a_kline_are_those_of_the_house() -> None:
    """Each of ours is filled."""
    (row,) = rows_of(parse_candles([KLINE]))

    assert dict(zip(COLUMNS, row, strict=True)) == {
        "time": 1791382920000,
        "open": 83137.9,
        "high": 83155.7,
        "low": 83082.9,
        "close": 83084.9,
        "volume": 102.437,
        "quote_volume": 8514292.6122,
        "trades": 4409.0,
        "taker_buy_volume": 49.832,
        "taker_buy_quote_volume": 4141805.9334,
    }
