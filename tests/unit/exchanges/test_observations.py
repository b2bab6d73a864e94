"""The judging of a whole answer, before any of its rows is believed."""

import numpy as np
import pytest
from support.strategies import MINUTES, a_row, candles_of, window_of

from mdp_core.domain.candles import Candles
from mdp_core.errors import BadPayload
from mdp_core.exchanges.base import ExchangeFacts
from mdp_core.exchanges.binance import BinanceFuturesAdapter
from mdp_core.exchanges.coinbase import CoinbaseSpotAdapter
from mdp_core.exchanges.hyperliquid import HyperliquidPerpAdapter
from mdp_core.exchanges.validation import Observation, judge

BINANCE, HYPERLIQUID, COINBASE = (
    kind.facts for kind in (BinanceFuturesAdapter, HyperliquidPerpAdapter, CoinbaseSpotAdapter)
)
EVERY_EXCHANGE = pytest.mark.parametrize(
    "facts", [pytest.param(item, id=item.name) for item in (BINANCE, HYPERLIQUID, COINBASE)]
)
RECENT = MINUTES.index(MINUTES.at(0).replace(year=2024))


def minute(number: int) -> int:
    """Give the open time of a minute, counted from the start of the window."""
    return (RECENT + number) * 60_000


def observed(facts: ExchangeFacts, *times_ms: int) -> Observation:
    """Judge an answer with rows of those times to a window of ten minutes."""
    rows = candles_of([a_row(time) for time in times_ms])
    return judge(rows, MINUTES, window_of(MINUTES, RECENT, RECENT + 10), facts)


@EVERY_EXCHANGE
@pytest.mark.parametrize(
    "times_ms",
    [
        pytest.param([minute(-2), minute(-3)], id="before"),
        pytest.param([minute(10), minute(11)], id="after"),
        pytest.param([minute(-1), minute(10)], id="around"),
        pytest.param([np.iinfo(np.int64).min], id="at a time that can't be read"),
    ],
)
def test_answer_with_rows_of_another_window_alone_is_no_observation(
    facts: ExchangeFacts, times_ms: list[int]
) -> None:
    """Nothing in it tells of the window that was asked for."""
    with pytest.raises(BadPayload, match=r"row\(s\), none of them of"):
        observed(facts, *times_ms)


@EVERY_EXCHANGE
@pytest.mark.parametrize(
    ("factor", "unit"), [(1e-3, "seconds"), (1e3, "microseconds"), (1e6, "nanoseconds")]
)
def test_answer_in_another_unit_is_told_as_such(
    facts: ExchangeFacts, factor: float, unit: str
) -> None:
    """The error says in which unit the times would be right."""
    with pytest.raises(BadPayload, match=f"as if it told {unit}"):
        observed(facts, *(int(minute(number) * factor) for number in range(10)))


@EVERY_EXCHANGE
def test_strays_beside_rows_of_the_window_are_dropped_and_told(facts: ExchangeFacts) -> None:
    """The rows inside are facts; what is absent is none."""
    observation = observed(facts, minute(-2), minute(3), minute(10))

    assert observation.candles.time.tolist() == [minute(3)]
    assert observation.has_strays
    assert observation.is_live
    assert not observation.is_witness


@pytest.mark.parametrize(
    ("facts", "is_stray"), [(BINANCE, True), (HYPERLIQUID, False), (COINBASE, False)]
)
def test_slot_before_the_start_is_a_stray_unless_the_exchange_is_known_to_send_it(
    facts: ExchangeFacts, *, is_stray: bool
) -> None:
    """Only the exchange's facts say how far its answers reach back."""
    observation = observed(facts, minute(-1), minute(0))

    assert observation.candles.time.tolist() == [minute(0)]
    assert observation.has_strays == is_stray
    assert observation.is_witness == (not is_stray)


@pytest.mark.parametrize("facts", [HYPERLIQUID, COINBASE])
def test_row_before_the_start_alone_counts_as_an_empty_answer(facts: ExchangeFacts) -> None:
    """It can't show that the exchange looked at the window."""
    observation = observed(facts, minute(-1))

    assert len(observation.candles) == 0
    assert not observation.is_live
    assert not observation.has_strays


@EVERY_EXCHANGE
def test_empty_answer_is_an_observation_that_is_not_live(facts: ExchangeFacts) -> None:
    """A silent exchange sends the same."""
    observation = judge(Candles.empty(), MINUTES, window_of(MINUTES, RECENT, RECENT + 10), facts)

    assert not observation.is_live
    assert not observation.is_witness


@EVERY_EXCHANGE
def test_answer_of_wrong_rows_alone_is_live(facts: ExchangeFacts) -> None:
    """The exchange looked at the window, and what it sent is named."""
    rows = candles_of([a_row(minute(1), low=-1.0)])
    observation = judge(rows, MINUTES, window_of(MINUTES, RECENT, RECENT + 10), facts)

    assert observation.is_live
    assert [row.slot for row in observation.rejected] == [MINUTES.at(RECENT + 1)]
