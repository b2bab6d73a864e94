"""`fetch_ohlcv` of a ccxt exchange, answered by the store.

Candles that the store does not have (mark and index prices, other markets, other timeframes) are
the exchange's own method's.

Example:
    >>> import ccxt
    >>> from mdp_client.ccxt import with_store
    >>> exchange = with_store(ccxt.binanceusdm())
    >>> rows = exchange.fetch_ohlcv("BTC/USDT:USDT", "1h", since=1704067200000, limit=2)
    >>> [row[0] for row in rows]
    [1704067200000, 1704070800000]
"""

# ccxt's exchanges are loosely typed.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownParameterType=false, reportUnknownArgumentType=false

import time
from collections.abc import Mapping, Sequence
from inspect import iscoroutinefunction
from typing import Any, TypeVar

import ccxt

from mdp_client import errors
from mdp_client.async_client import AsyncClient
from mdp_client.client import Client
from mdp_client.core.reading import read_symbols
from mdp_client.ohlcv import MARKETS, CcxtMarket, OhlcvRequest, Rows, fetch_rows
from mdp_client.records import Symbol

E = TypeVar("E")

_REFRESH_SECONDS = 60.0
_NO_PARAMS: Mapping[str, Any] = {}

_OF_ERRORS: Mapping[type[errors.MdpError], type[ccxt.BaseError]] = {
    errors.UnknownSymbol: ccxt.BadSymbol,
    errors.UnsupportedInterval: ccxt.NotSupported,
    errors.InvalidParameter: ccxt.BadRequest,
    errors.Unauthorized: ccxt.AuthenticationError,
    errors.Forbidden: ccxt.PermissionDenied,
    errors.RateLimited: ccxt.RateLimitExceeded,
    errors.TooManyRequests: ccxt.RateLimitExceeded,
    errors.ServiceUnavailable: ccxt.ExchangeNotAvailable,
    errors.TimedOut: ccxt.RequestTimeout,
    errors.ConnectionFailed: ccxt.NetworkError,
    errors.MdpError: ccxt.ExchangeError,
}


def with_store(exchange: E, client: Client | AsyncClient | None = None) -> E:
    """Have an exchange's `fetch_ohlcv` answered by the store; returns the exchange.

    Args:
        exchange: A `binanceusdm`, `hyperliquid` or `coinbaseexchange` of ccxt, synchronous or
            asynchronous.
        client: Of the same kind; default: one of the environment.

    Raises:
        NotSupported: The store does not know that exchange.
        TypeError: The client is of the other kind.
    """
    loose: Any = exchange
    if loose.id not in MARKETS:
        message = f"the store has no {loose.id}: there are {', '.join(MARKETS)}"
        raise ccxt.NotSupported(message)
    is_async = iscoroutinefunction(loose.fetch_ohlcv)
    client = client or (AsyncClient() if is_async else Client())
    if isinstance(client, AsyncClient) is not is_async:
        message = (
            f"{type(client).__name__} does not fit: an asynchronous exchange needs AsyncClient"
        )
        raise TypeError(message)
    symbols = _Symbols(MARKETS[loose.id])
    kind = _AsyncStore if isinstance(client, AsyncClient) else _Store
    answered: Any = kind(loose.fetch_ohlcv, client, symbols).fetch_ohlcv  # pyright: ignore[reportArgumentType]
    loose.fetch_ohlcv = loose.fetchOHLCV = answered
    return exchange


class _Symbols:
    """The store's names of ccxt's symbols; reread once a minute for an unknown one."""

    def __init__(self, market: CcxtMarket) -> None:
        self.market = market
        self._names: dict[str, str] = {}
        self._is_due_at = 0.0

    def filters(self) -> dict[str, object]:
        """Return the filters with which they are read."""
        return {"exchange": self.market.exchange, "market_type": self.market.market_type}

    def are_due(self, symbol: str) -> bool:
        """Tell whether the list is to be read to find a symbol."""
        return symbol not in self._names and time.monotonic() >= self._is_due_at

    def keep(self, symbols: Sequence[Symbol]) -> None:
        """Keep a list; where a name stands twice it is the traded symbol's."""
        self._is_due_at = time.monotonic() + _REFRESH_SECONDS
        for entry in sorted(symbols, key=lambda symbol: symbol.active):
            self._names |= {entry.native_symbol: entry.symbol, entry.ccxt_symbol: entry.symbol}

    def request(
        self,
        names: tuple[str, str],
        bounds: tuple[int | None, int | None],
        params: Mapping[str, Any],
    ) -> OhlcvRequest | None:
        """Read the arguments of a call; None where the store can't answer it."""
        symbol, timeframe = names
        if symbol not in self._names:
            return None
        return OhlcvRequest.read(self.market, (self._names[symbol], timeframe), bounds, params)


class _Store:
    """Answers the calls of a synchronous exchange."""

    def __init__(self, own: Any, client: Client, symbols: _Symbols) -> None:
        self._own = own
        self._client = client
        self._symbols = symbols

    def fetch_ohlcv(
        self,
        symbol: str,
        timeframe: str = "1m",
        since: int | None = None,
        limit: int | None = None,
        params: Mapping[str, Any] = _NO_PARAMS,
    ) -> Rows:
        """Return the rows that the exchange's own method would return, without its cap."""
        try:
            if self._symbols.are_due(symbol):
                filters = self._symbols.filters()
                self._symbols.keep(self._client.run(lambda call: read_symbols(call, filters)))
            request = self._symbols.request((symbol, timeframe), (since, limit), params)
            if request is not None:
                market = self._symbols.market
                return self._client.run(lambda call: fetch_rows(call, market, request))
        except errors.MdpError as error:
            raise _translated(error) from error
        return self._own(symbol, timeframe, since, limit, dict(params))


class _AsyncStore:
    """Answers the calls of an asynchronous exchange."""

    def __init__(self, own: Any, client: AsyncClient, symbols: _Symbols) -> None:
        self._own = own
        self._client = client
        self._symbols = symbols

    async def fetch_ohlcv(
        self,
        symbol: str,
        timeframe: str = "1m",
        since: int | None = None,
        limit: int | None = None,
        params: Mapping[str, Any] = _NO_PARAMS,
    ) -> Rows:
        """Return the rows that the exchange's own method would return, without its cap."""
        try:
            if self._symbols.are_due(symbol):
                filters = self._symbols.filters()
                self._symbols.keep(await self._client.run(lambda call: read_symbols(call, filters)))
            request = self._symbols.request((symbol, timeframe), (since, limit), params)
            if request is not None:
                market = self._symbols.market
                return await self._client.run(lambda call: fetch_rows(call, market, request))
        except errors.MdpError as error:
            raise _translated(error) from error
        return await self._own(symbol, timeframe, since, limit, dict(params))


def _translated(error: errors.MdpError) -> ccxt.BaseError:
    """Build ccxt's error of the nearest class."""
    kind = next(_OF_ERRORS[entry] for entry in type(error).__mro__ if entry in _OF_ERRORS)
    return kind(str(error))
