"""An exchange's refusal of a whole series, against one of a part of the request."""

from datetime import timedelta

import pytest
from support.strategies import utc

from mdp_core.backfill.bulk import refusal_of
from mdp_core.domain.queries import Missing
from mdp_core.domain.windows import Window
from mdp_core.errors import BadRows, ExchangeRejected

START = utc(2024)
REFUSED = ExchangeRejected("binance", "refused")
WRONG = BadRows("binance", [START], "high below close")


def days(first: int, stop: int) -> Window:
    return Window(START + timedelta(days=first), START + timedelta(days=stop))


@pytest.mark.parametrize(
    ("lost", "refusal"),
    [
        pytest.param([Missing(days(0, 16), REFUSED)], REFUSED, id="all"),
        pytest.param(
            [Missing(days(0, 7), REFUSED), Missing(days(7, 17), REFUSED)], REFUSED, id="every page"
        ),
        pytest.param([Missing(days(3, 4), REFUSED)], None, id="one page"),
        pytest.param([Missing(days(0, 16), WRONG)], None, id="something else"),
        pytest.param([], None, id="nothing"),
    ],
)
def test_series_is_refused_where_all_of_a_chunk_is(
    lost: list[Missing], refusal: ExchangeRejected | None
) -> None:
    """One page that is refused costs that page."""
    assert refusal_of(lost, days(0, 16)) is refusal
