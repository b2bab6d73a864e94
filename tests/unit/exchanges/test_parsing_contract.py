"""The contract of all parsing: a bad value costs its row, a bad shape the answer."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from functools import partial
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.strategies import rows_of, steady

from mdp_core.domain.candles import COLUMNS, Candles
from mdp_core.errors import BadPayload
from mdp_core.exchanges import binance, coinbase, hyperliquid
from mdp_core.exchanges.parsing import UNREADABLE_TIME


@dataclass(frozen=True, slots=True)
class Wire:
    """The answers of one exchange to a question for candles."""

    name: str
    row: Any
    more: Any
    """The same row with what no version of the interface has yet."""
    time_ms: int
    numbers: Mapping[Any, str]
    parse: Callable[[object], Candles]
    time_of: Callable[[object], object]
    time_key: str
    symbols_of: Callable[[object], object]

    def changed(self, key: Any, value: object) -> Any:  # noqa: ANN401 - JSON
        """Give the row with another value."""
        if isinstance(self.row, dict):
            return {**self.row, key: value}
        return [*self.row[:key], value, *self.row[key + 1 :]]

    @property
    def time_column(self) -> Any:  # noqa: ANN401 - a key or a position
        """Name the column or key of the time."""
        return "t" if isinstance(self.row, dict) else 0

    def read(self, *rows: object) -> list[tuple[float, ...]]:
        """Parse rows; give all their numbers."""
        return [*rows_of(self.parse([*rows]))]


_KLINE = [
    *(1791382920000, "83137.90", "83155.70", "83082.90", "83084.90", "102.437"),
    *(1791382979999, "8514292.61220", 4409, "49.832", "4141805.93340", "0"),
]
_COINBASE = [1788238800, 78704.49, 79195.32, 78704.5, 79136.06, 280.96550693]
_HYPERLIQUID = {
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
WIRES = [
    Wire(
        "binance", _KLINE, [*_KLINE, "more", None], 1791382920000,
        {1: "open", 2: "high", 3: "low", 4: "close", 5: "volume", 7: "quote_volume"},
        binance.parse_candles, binance.parse_time, "serverTime", binance.parse_symbols,
    ),
    Wire(
        "coinbase", _COINBASE, [*_COINBASE, 7, None], 1788238800000,
        {1: "low", 2: "high", 3: "open", 4: "close", 5: "volume"},
        coinbase.parse_candles, coinbase.parse_time, "iso", coinbase.parse_symbols,
    ),
    Wire(
        "hyperliquid", _HYPERLIQUID, {**_HYPERLIQUID, "q": "1", "extra": None}, 1684699200000,
        {"o": "open", "h": "high", "l": "low", "c": "close", "v": "volume"},
        partial(hyperliquid.parse_candles, coin="kPEPE", interval="1h"),
        hyperliquid.parse_time, "time", hyperliquid.parse_symbols,
    ),
]  # fmt: skip
NO_TEXT_TIMES = [None, True, "1684699200000", "soon", [], {}]
NO_TIMES = [*NO_TEXT_TIMES, 1684699200000.0, 2**63, -(2**63) - 1]
SCALARS = st.one_of(
    st.none(), st.booleans(), st.integers(-(2**70), 2**70), st.text(max_size=4), st.just("nan")
)
each_wire = pytest.mark.parametrize("wire", WIRES, ids=lambda wire: wire.name)
each_number = pytest.mark.parametrize(
    ("wire", "key"),
    [
        pytest.param(wire, key, id=f"{wire.name}-{wire.numbers[key]}")
        for wire in WIRES
        for key in wire.numbers
    ],
)


@each_wire
def test_no_rows_are_no_candles(wire: Wire) -> None:
    """A window before the listing, or one without trades."""
    assert len(wire.parse([])) == 0


@each_wire
def test_row_may_have_more_than_is_needed(wire: Wire) -> None:
    """New columns and keys are ignored."""
    assert str(wire.read(wire.more)) == str(wire.read(wire.row))


@each_wire
@pytest.mark.parametrize(
    "payload",
    [
        None,
        {},
        {"code": -1121, "msg": "no"},
        "[]",
        0,
        [None],
        [{}],
        [[]],
        ["123456789012"],
        [[], []],
    ],
    ids=str,
)
def test_answer_of_another_shape_is_a_bad_payload(wire: Wire, payload: object) -> None:
    """Whatever is sent, it is that one error, which names the exchange."""
    with pytest.raises(BadPayload, match=f"{wire.name} answered"):
        wire.parse(payload)


@each_wire
@pytest.mark.parametrize("time", NO_TEXT_TIMES, ids=str)
def test_answer_without_any_time_is_a_bad_payload(wire: Wire, time: object) -> None:
    """It is of another shape, and no row that strays."""
    with pytest.raises(BadPayload, match=f"{wire.name} answered"):
        wire.parse([wire.changed(wire.time_column, time)])


@each_wire
@pytest.mark.parametrize("time", NO_TIMES, ids=str)
def test_row_whose_time_cannot_be_read_lies_in_no_window(wire: Wire, time: object) -> None:
    """The row beside it is read; it is found as a stray."""
    candles = wire.parse([wire.changed(wire.time_column, time), wire.row])

    assert candles.time.tolist() == [UNREADABLE_TIME, wire.time_ms]


@each_wire
@pytest.mark.parametrize("row", [[], None, {}, "123456789012", {"0": 1791382920000}], ids=str)
def test_what_is_no_row_lies_in_no_window(wire: Wire, row: object) -> None:
    """The row beside it is read."""
    assert wire.parse([row, wire.row]).time.tolist() == [UNREADABLE_TIME, wire.time_ms]


@each_number
@pytest.mark.parametrize(
    ("value", "mark"),
    [
        *((value, math.isnan) for value in (None, "")),
        *(
            (value, math.isinf)
            for value in ("1_000", "\uff11\uff12", " 1 ", "x", "0x10", "1,5", "1\n", True, [], {})
        ),
        *((value, math.isinf) for value in ("nan", "inf", "-Infinity")),
    ],
)  # fmt: skip
def test_number_that_cannot_be_read_is_marked_in_its_row(
    wire: Wire, key: object, value: object, mark: Callable[[float], bool]
) -> None:
    """Missing is NaN, no decimal is infinite; it costs that row, and no other."""
    whole = wire.read(wire.row)[0]
    right, marked = wire.read(wire.row, wire.changed(key, value))
    at = COLUMNS.index(wire.numbers[key])

    assert str(right) == str(whole)
    assert mark(marked[at])
    assert str((*marked[:at], *marked[at + 1 :])) == str((*whole[:at], *whole[at + 1 :]))


@each_number
@pytest.mark.parametrize("text", ["0", "-0.5", "10000", "1e-7", "1E+3", "0.00000001", ".5", "5."])
def test_number_is_read_however_it_is_written(wire: Wire, key: object, text: str) -> None:
    """The number of decimals varies, and one day an exponent may come."""
    ((*_, read),) = [[getattr(wire.parse([wire.changed(key, text)]), wire.numbers[key])[0].item()]]
    assert read == float(Decimal(text))


@pytest.mark.parametrize(
    ("wire", "key"), [(WIRES[0], 8), (WIRES[2], "n")], ids=["binance", "hyperliquid"]
)
@pytest.mark.parametrize("value", ["4409", 1.5, True, [], {}])
def test_trade_count_that_is_none_is_marked(wire: Wire, key: object, value: object) -> None:
    """Half a trade is none."""
    assert math.isinf(wire.parse([wire.row, wire.changed(key, value)]).trades[1])


@each_wire
@steady
@given(at=st.integers(0, 5), value=SCALARS)
def test_broken_row_costs_no_other(wire: Wire, at: int, value: object) -> None:
    """One value among right ones is something else."""
    key = [wire.time_column, *wire.numbers][at]

    assert str(wire.read(wire.row, wire.changed(key, value))[0]) == str(wire.read(wire.row)[0])


@each_wire
@pytest.mark.parametrize("payload", [None, [], {}, "serverTime", 1620099477465], ids=str)
def test_answer_without_a_time_is_a_bad_payload(wire: Wire, payload: object) -> None:
    """There is nothing to read."""
    with pytest.raises(BadPayload):
        wire.time_of(payload)


@each_wire
@pytest.mark.parametrize(
    "value",
    [
        None,
        True,
        1.5,
        "1620099477465",
        [],
        {},
        10**17,
        -(10**17),
        2**64,
        1e300,
        "nan",
        "2026-09-01T12:30:00",
    ],
    ids=str,
)
def test_time_of_another_shape_is_a_bad_payload(wire: Wire, value: object) -> None:
    """A wrong clock would make forming candles closed ones."""
    with pytest.raises(BadPayload):
        wire.time_of({wire.time_key: value})


@each_wire
@pytest.mark.parametrize(
    "payload",
    [
        None,
        "list",
        5,
        {},
        ["BTC-USD"],
        [{}],
        {"symbols": None},
        {"universe": None},
        {"universe": ["BTC"]},
        {"symbols": [None]},
    ],
    ids=str,
)
def test_list_of_another_shape_is_a_bad_payload(wire: Wire, payload: object) -> None:
    """The symbols that are known stay."""
    with pytest.raises(BadPayload, match=f"{wire.name} answered"):
        wire.symbols_of(payload)
