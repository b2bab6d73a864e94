"""Hyperliquid's answers: every recorded one, and those that should never come."""

import math
from typing import Any

import orjson
import pytest
from support.strategies import SHARED, rows_of, utc

from mdp_core.domain.clock import from_ms
from mdp_core.domain.intervals import Interval, epoch_grid
from mdp_core.domain.windows import Window
from mdp_core.errors import BadPayload
from mdp_core.exchanges.hyperliquid import (
    HyperliquidPerpAdapter,
    from_first_traded,
    parse_candles,
    parse_symbols,
    parse_time,
)
from mdp_core.exchanges.parsing import UNREADABLE_TIME
from mdp_core.exchanges.validation import validate

RECORDED = SHARED / "recorded"
NAN = float("nan")

needs_recordings = pytest.mark.skipif(
    not RECORDED.is_dir(), reason="the recordings are not beside the project"
)

ROW: dict[str, Any] = {
    "t": 1684699200000,
    "T": 1684702799999,
    "s": "kPEPE",
    "i": "1h",
    "o": "0.001601",
    "c": "0.001604",
    "h": "0.001616",
    "l": "0.001601",
    "v": "520665683.0",
    "n": 709,
}


def recorded(name: str) -> Any:  # noqa: ANN401 - JSON
    return orjson.loads((RECORDED / f"hyperliquid_{name}.json").read_bytes())


def row(**changed: object) -> dict[str, Any]:
    return {**ROW, **changed}


def meta(*entries: dict[str, Any], **more: object) -> dict[str, Any]:
    return {"universe": list(entries), **more}


# --- candleSnapshot


@needs_recordings
def test_recorded_hours_of_2023_are_read_number_for_number() -> None:
    """Keys come in the order of 2023; every number is the one that its row has for it."""
    payload = recorded("candles_kPEPE_1h_2023-05-21")
    candles = parse_candles(payload, "kPEPE", "1h")

    assert len(candles) == len(payload) == 24
    assert candles.time.tolist() == [row["t"] for row in payload]
    for key, column in {"o": "open", "h": "high", "l": "low", "c": "close", "v": "volume"}.items():
        assert getattr(candles, column).tolist() == [float(row[key]) for row in payload]
    assert candles.trades.tolist() == [row["n"] for row in payload]
    assert candles.quote_volume.tolist() == pytest.approx([NAN] * 24, nan_ok=True)


@needs_recordings
def test_recorded_first_row_opens_before_the_start_and_is_sifted_away() -> None:
    """The parser gives all rows; one that only overlaps the window is dropped later."""
    candles = parse_candles(recorded("candles_kPEPE_1h_2023-05-21"), "kPEPE", "1h")
    asked = Window(from_ms(1684702800000), from_ms(1684785600000))
    validated = validate(candles, epoch_grid(Interval.ONE_HOUR), asked)

    assert int(candles.time[0]) == 1684699200000
    assert (len(validated.candles), len(validated.rejected)) == (23, 0)
    assert int(validated.candles.time[0]) == 1684702800000


@needs_recordings
def test_recorded_row_from_before_trading_is_read_and_is_no_beginning() -> None:
    """It has prices, no volume and no trades: a row, but not the first candle."""
    candles = parse_candles(recorded("candles_BTC_1d_prelisting_row"), "BTC", "1d")

    assert from_ms(int(candles.time[0])) == utc(2020, 8, 19)
    assert (candles.volume.tolist(), candles.trades.tolist()) == ([0.0], [0.0])
    assert len(from_first_traded(candles)) == 0


def test_series_begins_with_the_first_traded_candle_whatever_the_order() -> None:
    """The earliest with a trade, not the answer's first; quiet ones after it stay."""
    quiet = row(t=10_800_000, v="0.0", n=0)
    rows = [quiet, row(t=7_200_000), row(t=3_600_000), row(t=0, v="0.0", n=0)]
    kept = from_first_traded(parse_candles(rows, "kPEPE", "1h"))

    assert kept.time.tolist() == [10_800_000, 7_200_000, 3_600_000]


def test_slot_whose_rows_disagree_on_trades_is_no_beginning() -> None:
    """One of two rows has no trades: the next traded candle is the first."""
    rows = [row(t=0, v="0.0", n=0), row(t=0, v="1.0", n=1), row(t=3_600_000)]
    kept = from_first_traded(parse_candles(rows, "kPEPE", "1h"))

    assert kept.time.tolist() == [3_600_000]


def test_row_without_a_volume_is_no_beginning() -> None:
    """It tells of no trade: a null in rows from before trading begins no series."""
    rows = [row(t=0, v="0.0", n=0), row(t=3_600_000, v=None, n=0), row(t=7_200_000)]
    kept = from_first_traded(parse_candles(rows, "kPEPE", "1h"))

    assert kept.time.tolist() == [7_200_000]


@needs_recordings
def test_recorded_null_is_a_bad_payload() -> None:
    """`null` stands for an error, also where it comes with a 200."""
    with pytest.raises(BadPayload, match="hyperliquid"):
        parse_candles(recorded("error_500_null_DOCUMENTED"), "NOPE", "1h")


@pytest.mark.parametrize(
    "payload",
    [
        pytest.param([{k: v for k, v in ROW.items() if k != "s"}], id="no coin"),
        pytest.param([row(s="PEPE")], id="another coin"),
        pytest.param([row(i="1m")], id="another interval"),
    ],
)
def test_candles_of_another_shape_are_a_bad_payload(payload: object) -> None:
    """Whatever is sent, it is that one error, which names the exchange."""
    with pytest.raises(BadPayload, match="hyperliquid answered candles"):
        parse_candles(payload, "kPEPE", "1h")


@pytest.mark.parametrize(
    "stray",
    [row(s="PEPE"), row(i="1m"), row(s=None)],
    ids=["coin", "interval", "no coin"],
)
def test_row_of_something_else_lies_in_no_window(stray: object) -> None:
    """The row beside it is read; it is found as a stray."""
    candles = parse_candles([stray, ROW], "kPEPE", "1h")

    assert candles.time.tolist() == [UNREADABLE_TIME, ROW["t"]]


@pytest.mark.parametrize(("count", "read"), [(None, NAN), ("709", math.inf)])
def test_trade_count_that_is_missing_or_none_is_told_apart(count: object, read: float) -> None:
    """The first is a fact, the other costs its row."""
    candles = parse_candles([ROW, row(n=count)], "kPEPE", "1h")

    assert str(candles.trades[1]) == str(read)


def test_number_may_be_a_json_number_or_have_an_exponent() -> None:
    """Nothing is lost on the way: the same decimal, however it is written."""
    candles = parse_candles([row(v=520665683, o="1.601e-3", c=0.001604)], "kPEPE", "1h")

    assert rows_of(candles)[0][:6] == rows_of(parse_candles([ROW], "kPEPE", "1h"))[0][:6]


# --- meta


@needs_recordings
def test_recorded_universe_of_2025_is_read() -> None:
    """203 coins, 32 of them delisted; no `collateralToken` means USDC."""
    symbols = {symbol.native: symbol for symbol in parse_symbols(recorded("meta_2025-08-22"))}
    bitcoin = symbols["BTC"]

    assert len(symbols) == 203
    assert sum(not symbol.active for symbol in symbols.values()) == 32
    assert {symbol.quote for symbol in symbols.values()} == {"USDC"}
    assert (bitcoin.name, bitcoin.base, bitcoin.active) == ("BTC-USDC", "BTC", True)
    assert (bitcoin.step_size, bitcoin.tick_size, bitcoin.multiplier) == (1e-5, None, 1)
    assert not symbols["MATIC"].active
    assert (symbols["kPEPE"].name, symbols["kPEPE"].multiplier) == ("kPEPE-USDC", 1000)
    assert symbols["kPEPE"].step_size == 1.0


@pytest.mark.parametrize(
    ("flags", "active"),
    [
        pytest.param({}, True, id="missing"),
        pytest.param(
            {"isDelisted": None, "onlyIsolated": None, "marginMode": None}, True, id="null"
        ),
        pytest.param({"isDelisted": False}, True, id="false"),
        pytest.param({"isDelisted": True}, False, id="true"),
        pytest.param({"growthMode": "enabled", "whatever": {"new": 1}}, True, id="new keys"),
    ],
)
def test_flags_that_are_missing_or_null_are_off(flags: dict[str, Any], active: bool) -> None:  # noqa: FBT001
    """Flags are there only when set, and some programs' answers spell out nulls."""
    (symbol,) = parse_symbols(meta({"name": "BTC", "szDecimals": 5, **flags}, collateralToken=None))

    assert (symbol.name, symbol.active) == ("BTC-USDC", active)


def test_only_perpetuals_of_the_main_dex_are_listed() -> None:
    """Spot ids, outcome tokens and builders' coins share the wire, not the list."""
    names = ["@107", "PURR/USDC", "#12", "xyz:TSLA", "BTC", "kPEPE", "币安"]
    symbols = parse_symbols(meta(*({"name": name, "szDecimals": 0} for name in names)))

    assert [symbol.native for symbol in symbols] == ["BTC", "kPEPE", "币安"]


def test_coin_without_decimals_has_no_step() -> None:
    """A missing value is unknown."""
    (symbol,) = parse_symbols(meta({"name": "BTC"}))

    assert symbol.step_size is None


@pytest.mark.parametrize(
    "payload",
    [
        pytest.param(meta({"szDecimals": 1}), id="no name"),
        pytest.param(meta({"name": 5}), id="name is no text"),
        pytest.param(meta({"name": "BTC"}, collateralToken=360), id="unknown collateral"),
    ],
)
def test_meta_of_another_shape_is_a_bad_payload(payload: object) -> None:
    """Also where the margin is another token: prices would be in something else."""
    with pytest.raises(BadPayload, match="hyperliquid"):
        parse_symbols(payload)


# --- the clock, the facts


def test_time_is_read() -> None:
    """`exchangeStatus` has it in ms."""
    assert parse_time({"time": 1684699200000, "specialStatuses": None}) == utc(2023, 5, 21, 20)


def test_offered_intervals_leave_out_six_hours_and_months() -> None:
    """There is no 6h, and `1M` is no month; a week opens on Thursday."""
    intervals = HyperliquidPerpAdapter.facts.intervals
    week = intervals[Interval.ONE_WEEK].grid

    assert set(Interval) - set(intervals) == {Interval.SIX_HOURS, Interval.ONE_MONTH}
    assert week.floor(utc(2025, 11, 2)) == utc(2025, 10, 30)
    assert week.floor(utc(2025, 11, 2)).weekday() == 3
