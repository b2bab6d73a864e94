"""`/udf/{token}/…`: TradingView's UDF, for charts that read candles from here."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from datetime import UTC, datetime
from typing import TypeAlias

import orjson
from fastapi import FastAPI, Request, Response

from api.auth import principal_of, verify_url_token
from api.dialects.routes import ANSWER_SECONDS, Dialects
from api.errors import kind_of
from api.tokens import Unauthorized
from api.udf_bars import bars_of
from api.udf_symbols import RESOLUTIONS, describe, hit
from mdp_core.domain.series import Symbol
from mdp_core.errors import InvalidParameter, MdpError, UnknownSymbol
from mdp_core.exchanges.base import ExchangeAdapter
from mdp_core.logs import note
from mdp_core.ratelimit.context import RequestContext
from mdp_core.series.symbol_directory import SymbolDirectory

UDF_PATH = "/udf/{token}/{call}"

_MOST_HITS = 100
_TYPES = [
    {"name": "All", "value": ""},
    {"name": "Perpetual", "value": "perp"},
    {"name": "Spot", "value": "spot"},
]
_YEARS = (0, 4_102_444_800)

Named: TypeAlias = tuple[ExchangeAdapter, Symbol]


def add_udf(app: FastAPI) -> None:
    """Add the routes; they don't stand in the description of the interface."""
    app.add_route(UDF_PATH, _answer, ["GET"], include_in_schema=False)


async def _answer(request: Request) -> Response:
    """Answer any call; the adapter reads no status, so that errors are bodies of UDF."""
    try:
        verify_url_token(request, request.path_params["token"])
        if (call := _CALLS.get(request.path_params["call"])) is None:
            return _error(404, f"there are {', '.join(_CALLS)}")
        async with asyncio.timeout(ANSWER_SECONDS):
            return await call(request)
    except TimeoutError:
        return _error(503, "this takes longer than expected: ask again")
    except (MdpError, Unauthorized) as error:
        kind = kind_of(error)
        note(code=kind.code)
        is_unknown = isinstance(error, UnknownSymbol)
        return _error(kind.status, "unknown_symbol" if is_unknown else str(error))


def _error(status: int, text: str) -> Response:
    return _json({"s": "error", "errmsg": text}, status)


def _json(body: object, status: int = 200) -> Response:
    return Response(orjson.dumps(body), status, media_type="application/json")


async def _config(request: Request) -> Response:
    markets = _directory_of(request).markets(None, None)
    exchanges = [
        {"value": adapter.facts.name, "name": adapter.facts.title, "desc": adapter.facts.title}
        for adapter in markets
    ]
    body = {
        "supported_resolutions": list(RESOLUTIONS),
        "supports_search": True,
        "supports_group_request": False,
        "supports_marks": False,
        "supports_timescale_marks": False,
        "supports_time": True,
        "exchanges": [{"value": "", "name": "All", "desc": ""}, *exchanges],
        "symbols_types": _TYPES,
    }
    return _json(body)


async def _time(request: Request) -> Response:
    now = _dialects(request).services.settings.clock()
    return Response(str(int(now.timestamp())), media_type="text/plain")


async def _symbols(request: Request) -> Response:
    adapter, symbol = await _named(
        request, RequestContext.within(ANSWER_SECONDS, principal_of(request).subject)
    )
    return _json(describe(adapter, symbol))


async def _search(request: Request) -> Response:
    """Find symbols whose name holds the query, which comes in upper case."""
    params = request.query_params
    query, kind = params.get("query", "").upper(), params.get("type", "")
    exchange, limit = params.get("exchange", ""), _whole(params, "limit", 30)
    context = RequestContext.within(ANSWER_SECONDS, principal_of(request).subject)
    directory, found = _directory_of(request), list[Named]()
    for adapter in directory.markets(None, None):
        facts = adapter.facts
        if kind in ("", facts.market_type) and exchange.lower() in ("", facts.name):
            symbols = await directory.symbols(adapter, context)
            found += [
                (adapter, symbol) for symbol in symbols if symbol.active and _matches(query, symbol)
            ]
    found.sort(key=lambda named: (not named[1].name.upper().startswith(query), named[1].name))
    return _json([hit(*named) for named in found[: min(limit, _MOST_HITS)]])


async def _history(request: Request) -> Response:
    context = RequestContext.within(ANSWER_SECONDS, principal_of(request).subject)
    params = request.query_params
    _, symbol = await _named(request, context)
    resolution = params.get("resolution", "")
    if resolution not in RESOLUTIONS:
        message = f"resolution={resolution}: one of {', '.join(RESOLUTIONS)}"
        raise InvalidParameter(message)
    words = (symbol.exchange, symbol.market_type, symbol.native, RESOLUTIONS[resolution].value)
    series = await _dialects(request).services.resolver.series(*words, context)
    start, end = _moment(params, "from"), _moment(params, "to")
    bars = await bars_of(request, series, (start, end), _whole(params, "countback", 0), context)
    return _json(bars)


async def _named(request: Request, context: RequestContext) -> Named:
    """Return the symbol of `EXCHANGE:SYMBOL`, in any case, or of a bare name.

    Raises:
        UnknownSymbol: There is none.
    """
    text = request.query_params.get("symbol", "")
    exchange, colon, name = text.partition(":")
    directory = _directory_of(request)
    for adapter in directory.markets(None, None):
        if not colon or exchange.lower() == adapter.facts.name:
            try:
                return adapter, await directory.symbol(adapter, name if colon else text, context)
            except UnknownSymbol:
                continue
    raise UnknownSymbol(exchange if colon else "any exchange", name or text, ())


def _matches(query: str, symbol: Symbol) -> bool:
    return query in symbol.name.upper() or query in symbol.native.upper()


def _whole(params: Mapping[str, str], name: str, default: int) -> int:
    text = params.get(name) or str(default)
    if not text.isdecimal() or len(text) > 6:  # noqa: PLR2004 - digits
        message = f"{name}={text} is no number of that size"
        raise InvalidParameter(message)
    return int(text)


def _moment(params: Mapping[str, str], name: str) -> datetime:
    """Read a time in seconds."""
    text = params.get(name, "")
    first, last = _YEARS
    try:
        return datetime.fromtimestamp(min(max(int(text), first), last), UTC)
    except ValueError as error:
        message = f"{name}={text} is no time: write epoch seconds"
        raise InvalidParameter(message) from error


def _dialects(request: Request) -> Dialects:
    dialects: Dialects = request.state.dialects
    return dialects


def _directory_of(request: Request) -> SymbolDirectory:
    return _dialects(request).services.resolver.directory


_CALLS: Mapping[str, Callable[[Request], Awaitable[Response]]] = {
    "config": _config,
    "symbols": _symbols,
    "search": _search,
    "history": _history,
    "time": _time,
}
