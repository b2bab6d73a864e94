"""Probes for first candles: an answer to another question begins no series."""

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, cast

import numpy as np
import pytest

from mdp_core.domain.candles import Candles
from mdp_core.domain.clock import to_ms
from mdp_core.domain.intervals import Interval
from mdp_core.errors import BadPayload
from mdp_core.exchanges.base import ExchangeAdapter
from mdp_core.exchanges.hyperliquid import HyperliquidPerpAdapter
from mdp_core.ratelimit.context import DEFAULT_CONTEXT
from mdp_core.series.history_probes import HistoryProbes

DAY = datetime(2025, 7, 21, tzinfo=UTC)
FIRST = DAY + timedelta(hours=9, minutes=24)
OTHER_DAY = DAY + timedelta(days=2)
SYMBOL = HyperliquidPerpAdapter.facts.reference_symbol


@dataclass
class Telling:
    """An exchange that answers its two questions for a first candle like this."""

    narrow: datetime
    wide: datetime
    facts: Any = HyperliquidPerpAdapter.facts
    asked: list[str] = field(default_factory=list)

    def bound(self, _: object) -> "Telling":
        """Return itself."""
        return self

    async def fetch_first(self, *_: object) -> Candles:
        """Answer the narrow question."""
        self.asked.append("narrow")
        return _candle(self.narrow)

    async def fetch_first_again(self, *_: object) -> Candles:
        """Answer the wide question."""
        self.asked.append("wide")
        return _candle(self.wide)


async def test_first_minute_outside_the_first_day_is_asked_for_again() -> None:
    """The newest rows came, whatever was asked for: they hide no minute before them."""
    telling = Telling(narrow=OTHER_DAY, wide=FIRST)
    assert (await _first(telling)).time.tolist() == [to_ms(FIRST)]
    assert telling.asked == ["narrow", "wide"]


async def test_first_minute_outside_the_first_day_is_never_believed() -> None:
    """However often it is told."""
    with pytest.raises(BadPayload, match="no first candle"):
        await _first(Telling(narrow=OTHER_DAY, wide=OTHER_DAY))


async def test_first_minute_inside_the_first_day_is_asked_for_once() -> None:
    """A healthy exchange costs no second request."""
    telling = Telling(narrow=FIRST, wide=FIRST)
    assert (await _first(telling)).time.tolist() == [to_ms(FIRST)]
    assert telling.asked == ["narrow"]


async def _first(telling: Telling) -> Candles:
    assert SYMBOL
    adapter = cast("ExchangeAdapter", telling)
    return await HistoryProbes(0.0).first(
        adapter, SYMBOL, Interval.ONE_MINUTE, DAY, DEFAULT_CONTEXT
    )


def _candle(opens: datetime) -> Candles:
    prices = np.ones(1)
    return Candles(np.array([to_ms(opens)], np.int64), *(prices,) * 7)
