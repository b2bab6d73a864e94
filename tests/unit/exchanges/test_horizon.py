"""The exchange's "now" while clocks drift, are set, or can't be read."""

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Self

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mdp_core.domain.clock import Clock
from mdp_core.domain.intervals import Interval, epoch_grid
from mdp_core.domain.series import Series, Symbol
from mdp_core.errors import ExchangeUnavailable
from mdp_core.exchanges.binance import BinanceFuturesAdapter
from mdp_core.exchanges.clock import Delays, ExchangeClock
from mdp_core.ratelimit.context import RequestContext

_DELAYS = Delays(settle=timedelta(seconds=2), absence_grace=timedelta(seconds=60))
_AHEAD = timedelta(minutes=3)
_NOTICEABLE = timedelta(seconds=2)


class _SettableClock(Clock):
    """A machine's clock that somebody sets."""

    set_by = timedelta(0)

    def __call__(self) -> datetime:
        return super().__call__() + type(self).set_by


class _Exchange(BinanceFuturesAdapter):
    """An exchange of which only the clock is asked; it runs three minutes ahead of `right`."""

    def __init__(self, right: Clock | None = None) -> None:
        self.right = right or Clock()
        self.asked = 0
        self.is_down = False

    def bound(self, context: RequestContext) -> Self:
        del context  # there is no wire
        return self

    async def server_time(self) -> datetime:
        self.asked += 1
        if self.is_down:
            raise ExchangeUnavailable(self.facts.name, "is down")
        return self.right() + _AHEAD


@pytest.fixture
def clock() -> _SettableClock:
    """Right, until it is set."""
    now = datetime.now(UTC)
    _SettableClock.set_by = timedelta(0)
    return _SettableClock(now, now, 1.0)


_MOMENTS = st.datetimes(datetime(2024, 1, 1), datetime(2026, 1, 1), timezones=st.just(UTC))  # noqa: DTZ001


@given(st.sampled_from(Interval), _MOMENTS, st.timedeltas(timedelta(0), timedelta(days=3)))
@settings(deadline=None)
def test_no_closed_candle_of_a_window_is_cut_off(
    interval: Interval, now: datetime, ago: timedelta
) -> None:
    """Each slot that opens before the end counts, whether or not the exchange's clock is asked."""
    grid, end = epoch_grid(interval), now - ago
    symbol = Symbol("binance", "perp", "BTC-USDT", "BTCUSDT", "BTC", "USDT", active=True)
    series = Series(1, symbol, interval, grid, datetime(2020, 1, 1, tzinfo=UTC))
    clock = Clock.starting_at(now)
    watermarks = asyncio.run(
        ExchangeClock(_Exchange(clock), clock, _DELAYS).watermarks(series, end)
    )

    assert watermarks.closed_until >= min(grid.ceil(end), grid.floor(now))


async def test_clock_is_read_once_and_believed(clock: _SettableClock) -> None:
    """Ours tells how time goes on, the exchange's by how much ours is off."""
    exchange = _Exchange()
    exchange_clock = ExchangeClock(exchange, clock, _DELAYS)
    shown = [await exchange_clock.now() for _ in range(20)]

    assert exchange.asked == 1
    assert all(abs(each - datetime.now(UTC) - _AHEAD) < _NOTICEABLE for each in shown)


@pytest.mark.parametrize("hours", [-5, 5])
async def test_clock_that_is_set_is_not_taken_for_the_exchanges(
    clock: _SettableClock, hours: int
) -> None:
    """After a resume or a correction the exchange is asked again before anything is concluded."""
    exchange = _Exchange()
    exchange_clock = ExchangeClock(exchange, clock, _DELAYS)
    await exchange_clock.now()
    _SettableClock.set_by = timedelta(hours=hours)
    shown = await exchange_clock.now()

    assert exchange.asked == 2
    assert abs(shown - datetime.now(UTC) - _AHEAD) < _NOTICEABLE


async def test_clock_that_is_set_while_the_exchange_is_down_is_an_error(
    clock: _SettableClock,
) -> None:
    """Nothing is known then; what was known before is of another clock."""
    exchange = _Exchange()
    exchange_clock = ExchangeClock(exchange, clock, _DELAYS)
    await exchange_clock.now()
    exchange.is_down = True
    assert await exchange_clock.now()
    _SettableClock.set_by = timedelta(hours=1)
    with pytest.raises(ExchangeUnavailable):
        await exchange_clock.now()
