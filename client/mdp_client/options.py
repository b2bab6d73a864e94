"""The optional arguments of the clients' methods, once for both of them."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypedDict

from mdp_client.core.query import CandlesRequest
from mdp_client.core.receiving import Wanted
from mdp_client.times import Time, read_time
from mdp_client.transport.progress import Progress


class WindowOptions(TypedDict, total=False):
    """A half-open window; see `Time` for everything that is a time."""

    start: Time | None
    end: Time | None


class CandleOptions(WindowOptions, total=False):
    """Which candles of a series."""

    limit: int | None
    fields: Sequence[str] | str | None
    settled: bool
    partial: bool
    wait: bool
    progress: Progress


class CoverageOptions(WindowOptions, total=False):
    """Which window, and whether covered windows are split by slots."""

    detail: bool


class SymbolOptions(TypedDict, total=False):
    """Which symbols; without `active` both those that are traded and those that were."""

    exchange: str | None
    market_type: str | None
    base: str | None
    quote: str | None
    active: bool | None
    q: str | None


class MarketOptions(TypedDict, total=False):
    """Which markets."""

    exchange: str | None
    market_type: str | None


class InventoryOptions(MarketOptions, total=False):
    """Which series; names may be globs."""

    symbol: str | None
    interval: str | None


def wanted_candles(series: Sequence[str], options: Mapping[str, Any], *, uniform: bool) -> Wanted:
    """Read what a caller wants of a series, named by its four words.

    Raises:
        InvalidParameter: A time can't be read.
        TypeError: There is no such option.
    """
    check_options(options, CandleOptions)
    exchange, market_type, symbol, interval = series
    query = CandlesRequest(
        exchange,
        market_type,
        symbol,
        interval,
        **window_of(options),
        limit=options.get("limit"),
        fields=_fields(options.get("fields")),
        settled=options.get("settled", False),
        partial=options.get("partial", False),
    )
    return Wanted(query, wait=options.get("wait", True), uniform=uniform)


def window_of(options: Mapping[str, Any]) -> dict[str, int | None]:
    """Return the bounds of a window in epoch ms."""
    return {name: _time(name, options.get(name)) for name in ("start", "end")}


def check_options(options: Iterable[str], known: type) -> None:
    """Check that a method has every option that it is given.

    Raises:
        TypeError: It has not, as of any other function.
    """
    if unknown := [name for name in options if name not in known.__annotations__]:
        message = f"unexpected keyword argument {unknown[0]!r}"
        raise TypeError(message)


def _time(name: str, value: Time | None) -> int | None:
    return None if value is None else read_time(name, value)


def _fields(fields: Sequence[str] | str | None) -> tuple[str, ...] | None:
    if fields is None:
        return None
    names = fields.split(",") if isinstance(fields, str) else fields
    return tuple(name.strip() for name in names)


def selection_of(
    exchange: str,
    market_type: str | None,
    symbols: str | Sequence[str],
    intervals: str | Sequence[str],
) -> dict[str, Any]:
    """Return the series a backfill is to fill; a single name stands for a list of one."""
    return {
        "exchange": exchange,
        "market_type": market_type,
        "symbols": [symbols] if isinstance(symbols, str) else [*symbols],
        "intervals": [intervals] if isinstance(intervals, str) else [*intervals],
    }
