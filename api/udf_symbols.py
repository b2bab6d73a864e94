"""Symbols as TradingView's charts describe them."""

from decimal import Decimal

from mdp_core.domain.intervals import Interval
from mdp_core.domain.series import Symbol
from mdp_core.exchanges.base import ExchangeAdapter

RESOLUTIONS = {
    "1": Interval.ONE_MINUTE,
    "3": Interval.THREE_MINUTES,
    "5": Interval.FIVE_MINUTES,
    "15": Interval.FIFTEEN_MINUTES,
    "30": Interval.THIRTY_MINUTES,
    "60": Interval.ONE_HOUR,
    "120": Interval.TWO_HOURS,
    "240": Interval.FOUR_HOURS,
    "360": Interval.SIX_HOURS,
    "480": Interval.EIGHT_HOURS,
    "720": Interval.TWELVE_HOURS,
    "1D": Interval.ONE_DAY,
    "1W": Interval.ONE_WEEK,
    "1M": Interval.ONE_MONTH,
}
"""Intervals by UDF's name; three days are none of its."""

# Its weeks open on Mondays and its months are the calendar's, as charts draw them.
_NATIVE_WEEKS = "binance"
_DIGITS = 8
_PRICE_DIGITS = 6  # of a Hyperliquid perpetual, less the digits of its size


def describe(adapter: ExchangeAdapter, symbol: Symbol) -> dict[str, object]:
    """Return a symbol's description."""
    exchange = symbol.exchange.upper()
    offered = [
        name for name, resolution in RESOLUTIONS.items() if resolution in adapter.facts.intervals
    ]
    has_weeks = symbol.exchange == _NATIVE_WEEKS
    resolutions = [name for name in offered if has_weeks or name not in {"1W", "1M"}]
    scale, minimum = price_scale(symbol)
    return {
        "name": symbol.name,
        "ticker": f"{exchange}:{symbol.name}",
        "description": _description(adapter, symbol),
        "type": "crypto",
        "session": "24x7",
        "timezone": "Etc/UTC",
        "exchange": exchange,
        "listed_exchange": exchange,
        "minmov": minimum,
        "pricescale": scale,
        "has_intraday": True,
        "intraday_multipliers": [name for name in resolutions if name.isdecimal()],
        "has_daily": True,
        "has_weekly_and_monthly": has_weeks,
        "visible_plots_set": "ohlcv",
        # The library builds weeks and months from days where there are none.
        "supported_resolutions": resolutions if has_weeks else [*resolutions, "1W", "1M"],
        "volume_precision": _digits(symbol.step_size),
        "data_status": "streaming",
        "format": "price",
    }


def hit(adapter: ExchangeAdapter, symbol: Symbol) -> dict[str, str]:
    """Return a symbol as a search finds it."""
    exchange = symbol.exchange.upper()
    return {
        "symbol": symbol.name,
        "full_name": f"{exchange}:{symbol.name}",
        "description": _description(adapter, symbol),
        "exchange": exchange,
        "ticker": f"{exchange}:{symbol.name}",
        "type": symbol.market_type,
    }


def price_scale(symbol: Symbol) -> tuple[int, int]:
    """Return `pricescale` and `minmov`: a tick is the one by the other."""
    if symbol.tick_size is None:
        digits = _PRICE_DIGITS - _digits(symbol.step_size) if symbol.step_size else _DIGITS
        return 10 ** max(digits, 0), 1
    tick = Decimal(repr(symbol.tick_size)).normalize()
    digits = max(-int(tick.as_tuple().exponent), 0)
    return 10**digits, int(tick * 10**digits)


def _digits(size: float | None) -> int:
    if size is None:
        return _DIGITS
    return max(-int(Decimal(repr(size)).normalize().as_tuple().exponent), 0)


def _description(adapter: ExchangeAdapter, symbol: Symbol) -> str:
    return f"{symbol.base}/{symbol.quote} on {adapter.facts.title}"
