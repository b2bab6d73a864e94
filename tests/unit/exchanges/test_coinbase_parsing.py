"""Coinbase's answers: every recorded one, and those that no exchange should send."""

import math
from typing import Any

import orjson
import pytest
from support.strategies import SHARED, rows_of, utc

from mdp_core.errors import BadPayload
from mdp_core.exchanges.coinbase import (
    CoinbaseSpotAdapter,
    parse_candles,
    parse_symbols,
    parse_time,
)
from mdp_core.exchanges.parsing import UNREADABLE_TIME

RECORDED = SHARED / "recorded"

needs_recordings = pytest.mark.skipif(
    not RECORDED.is_dir(), reason="the recordings are not beside the project"
)

# Time in seconds, low, high, open, close, volume.
ROW: list[Any] = [1788238800, 78704.49, 79195.32, 78704.5, 79136.06, 280.96550693]
PRODUCT: dict[str, Any] = {
    "id": "BTC-USD",
    "base_currency": "BTC",
    "quote_currency": "USD",
    "quote_increment": "0.01",
    "base_increment": "0.00000001",
    "status": "online",
    "status_message": "",
    "trading_disabled": False,
}


def recorded(name: str) -> Any:  # noqa: ANN401 - JSON
    return orjson.loads((RECORDED / f"coinbase_exchange_{name}.json").read_bytes())


def changed_row(position: int, value: object) -> list[Any]:
    return [*ROW[:position], value, *ROW[position + 1 :]]


def product(**changed: object) -> dict[str, Any]:
    return {**PRODUCT, **changed}


# --- candles


@needs_recordings
def test_recorded_hours_are_read_in_our_order_and_units() -> None:
    """Low and high come before open and close, times in seconds, rows newest first."""
    payload = recorded("candles_BTC-USD_1h_2026-09-01")
    candles = parse_candles(payload)

    assert [entry[:6] for entry in rows_of(candles)] == [
        (time * 1000, open_, high, low, close, volume)
        for time, low, high, open_, close, volume in payload
    ]
    assert min(candles.time.tolist()) == 1788220800000
    assert len(candles) == 6
    assert candles.close.dtype == float


def test_whole_numbers_and_noise_are_numbers() -> None:
    """Whole prices are written as integers; answers of 2018 have the noise of floats."""
    candles = parse_candles([[1517443200, 10098, 10110, 10099, 10100, 4.727521520000001]])

    assert rows_of(candles)[0][:6] == (
        1517443200000,
        10099.0,
        10110.0,
        10098.0,
        10100.0,
        4.727521520000001,
    )


def test_numbers_may_be_strings() -> None:
    """As the exchange's newer interface writes them."""
    texts = [ROW[0], *map(str, ROW[1:])]

    assert rows_of(parse_candles([texts, ROW]))[0][:6] == rows_of(parse_candles([ROW]))[0][:6]


@needs_recordings
@pytest.mark.parametrize(
    "name", ["error_400_too_many_candles", "error_404_not_found", "error_429_public_rate_limit"]
)
def test_recorded_error_body_is_a_bad_payload(name: str) -> None:
    """An object with a message may come with a 200: no candles and no products."""
    with pytest.raises(BadPayload, match="coinbase answered candles"):
        parse_candles(recorded(name))
    with pytest.raises(BadPayload, match="coinbase answered products"):
        parse_symbols(recorded(name))


def test_row_without_volume_lacks_it() -> None:
    """It costs that row."""
    assert [math.isnan(v) for v in parse_candles([ROW, ROW[:5]]).volume] == [False, True]


@pytest.mark.parametrize("seconds", [2**61, -(2**61)])
def test_time_beyond_64_bits_in_milliseconds_lies_in_no_window(seconds: int) -> None:
    """Seconds may be read, and be none."""
    assert parse_candles([changed_row(0, seconds), ROW]).time.tolist()[0] == UNREADABLE_TIME


# --- products


@needs_recordings
def test_recorded_products_are_read() -> None:
    """Nine of them, two delisted; one that takes limit orders only is traded, too."""
    payload = recorded("products_9_2026-09-27")
    symbols = {symbol.name: symbol for symbol in parse_symbols(payload)}
    bitcoin = symbols["BTC-USD"]
    limited = [entry["id"] for entry in payload if entry["limit_only"]]

    assert len(symbols) == 9
    assert sum(not symbol.active for symbol in symbols.values()) == 2
    assert limited
    assert all(symbols[name].active for name in limited)
    assert (bitcoin.native, bitcoin.base, bitcoin.quote) == ("BTC-USD", "BTC", "USD")
    assert (bitcoin.tick_size, bitcoin.step_size) == (0.01, 1e-8)


def test_products_of_2018_are_read() -> None:
    """No `base_increment`, `trading_disabled`; a null message, and sizes gone since."""
    old = {
        "id": "BTC-USD",
        "base_currency": "BTC",
        "quote_currency": "USD",
        "base_min_size": "0.001",
        "base_max_size": "70",
        "quote_increment": "0.01",
        "display_name": "BTC/USD",
        "status": "online",
        "margin_enabled": False,
        "status_message": None,
        "min_market_funds": "10",
        "max_market_funds": "1000000",
        "post_only": False,
        "limit_only": False,
        "cancel_only": False,
    }
    (symbol,) = parse_symbols([old])

    assert (symbol.name, symbol.active) == ("BTC-USD", True)
    assert (symbol.tick_size, symbol.step_size) == (0.01, None)


@pytest.mark.parametrize(
    ("changed", "active"),
    [
        pytest.param({}, True, id="online"),
        pytest.param({"trading_disabled": None, "limit_only": None}, True, id="null flags"),
        pytest.param({"post_only": True, "auction_mode": True}, True, id="restricted orders"),
        pytest.param({"trading_disabled": True}, False, id="trading disabled"),
        pytest.param({"status": "offline"}, False, id="offline"),
        pytest.param({"status": "internal"}, False, id="internal"),
        pytest.param({"status": "delisted"}, False, id="delisted"),
        pytest.param({"status": "hibernating"}, False, id="unknown"),
        pytest.param({"status": None}, False, id="null"),
        pytest.param({"status": ["online"]}, False, id="list"),
    ],
)
def test_product_is_active_only_where_it_surely_trades(
    changed: dict[str, Any],
    active: bool,  # noqa: FBT001
) -> None:
    """An unknown word never crashes or is active; missing and null flags are off."""
    (symbol,) = parse_symbols([product(**changed)])

    assert symbol.active is active


def test_name_comes_from_the_id() -> None:
    """BTCAUCTION-USD had the base currency BTC; digits and other scripts are names."""
    names = ["BTCAUCTION-USD", "1INCH-GBP", "币-USD", "00-USD"]
    symbols = parse_symbols([product(id=name, display_name="X/Y") for name in names])

    assert [(symbol.name, symbol.native) for symbol in symbols] == [(name, name) for name in names]
    assert [symbol.base for symbol in symbols] == ["BTCAUCTION", "1INCH", "币", "00"]


@pytest.mark.parametrize("name", ["BTC-USD-PERP", "BTCUSD", "BTC-PERP-INTX", "-USD", ""])
def test_product_with_an_id_of_a_new_kind_leaves_the_others_on_the_list(name: str) -> None:
    """An unknown kind is left out; it must not cost the whole exchange."""
    symbols = parse_symbols([product(), product(id=name), product(id="ETH-USD")])

    assert [symbol.name for symbol in symbols] == ["BTC-USD", "ETH-USD"]


@pytest.mark.parametrize(
    "payload",
    [
        pytest.param([product(id=None)], id="null id"),
        pytest.param([product(id=5)], id="id is no text"),
    ],
)
def test_products_of_another_shape_are_a_bad_payload(payload: object) -> None:
    """Whatever is sent, it is that one error."""
    with pytest.raises(BadPayload, match="coinbase answered products"):
        parse_symbols(payload)


# --- the clock, the facts


def test_time_is_read() -> None:
    """ISO-8601 with milliseconds."""
    payload = {"iso": "2026-09-01T12:30:00.500Z", "epoch": 1788265800.5}

    assert parse_time(payload) == utc(2026, 9, 1, 12, 30).replace(microsecond=500_000)


def test_six_intervals_are_offered() -> None:
    """All others are refused by the exchange."""
    offered = CoinbaseSpotAdapter.facts.intervals

    assert {interval.value: entry.native for interval, entry in offered.items()} == {
        "1m": "60",
        "5m": "300",
        "15m": "900",
        "1h": "3600",
        "6h": "21600",
        "1d": "86400",
    }
