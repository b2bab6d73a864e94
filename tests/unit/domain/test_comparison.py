"""The comparison of candles: every slot is in one place, and nulls say nothing."""

from dataclasses import replace

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from mdp_core.domain.candles import Candles
from mdp_core.domain.comparison import compare, complete

_PRICES = st.dictionaries(st.integers(0, 40), st.sampled_from([1.0, 2.0]))


def _candles(closes: dict[int, float], quote_volume: float = 1.0) -> Candles:
    times = np.array(sorted(closes), np.int64)
    close = np.array([closes[int(time)] for time in times])
    quote_volumes = np.full(len(times), quote_volume)
    return Candles(times, close, close, close, close, close, quote_volumes, close)


@given(_PRICES, _PRICES)
def test_comparison_equals_that_of_dictionaries(
    stored: dict[int, float], answered: dict[int, float]
) -> None:
    """Each time counts once, as what it is."""
    found = compare(_candles(stored), _candles(answered))
    both = stored.keys() & answered.keys()

    assert list(found.missing) == sorted(answered.keys() - stored.keys())
    assert list(found.extra) == sorted(stored.keys() - answered.keys())
    assert list(found.differing) == sorted(t for t in both if stored[t] != answered[t])
    assert found.equal == sum(stored[time] == answered[time] for time in both)
    assert found.compared == len(stored.keys() | answered.keys())
    assert found.is_equal == (stored == answered)


def test_null_is_equal_to_any_number() -> None:
    """A null that the exchange fills is no difference, but can be taken."""
    number, null = _candles({1: 1.0}), _candles({1: 1.0}, np.nan)
    filled, emptied = compare(null, number), compare(number, null)

    assert (filled.equal, emptied.equal) == (1, 1)
    assert list(filled.unequal) == list(emptied.unequal) == []
    assert list(filled.changeable) == [1]
    assert list(emptied.changeable) == []


def test_known_numbers_are_not_replaced_by_nulls() -> None:
    """A row that is replaced for its price keeps the quote volume that is known."""
    stored = _candles({1: 1.0, 2: 1.0}, 7.0)
    answered = replace(_candles({2: 3.0, 3: 3.0}, np.nan))
    taken = complete(answered, stored)

    assert list(taken.close) == [3.0, 3.0]
    assert taken.quote_volume[0] == 7.0
    assert np.isnan(taken.quote_volume[1])
