"""`/dialect/{token}/{exchange}/…`: an exchange's base URL for programs of others."""

import asyncio
import math
from dataclasses import dataclass
from urllib.parse import unquote

from fastapi import FastAPI, Request, Response
from starlette.exceptions import HTTPException

from api.auth import principal_of, verify_url_token
from api.dialects.binance import BinanceDialect
from api.dialects.coinbase import CoinbaseDialect
from api.dialects.dialect import Call, Dialect
from api.dialects.hyperliquid import HyperliquidDialect
from api.dialects.passing import Passing, headers_of
from api.dialects.series_rows import SeriesRows
from api.errors import kind_of
from api.tokens import Unauthorized
from mdp_core.errors import MdpError
from mdp_core.exchanges.relay import Question
from mdp_core.logs import note
from mdp_core.ratelimit.context import RequestContext
from mdp_core.wiring import Services

DIALECT_PATH = "/dialect/{token}/{exchange}/{rest:path}"

# ccxt and python-binance wait ten seconds.
ANSWER_SECONDS = 9.0
_METHODS = ["GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"]
_DIALECTS: dict[str, Dialect] = {
    kind.exchange: kind() for kind in (BinanceDialect, HyperliquidDialect, CoinbaseDialect)
}
_WAIT_STATUSES = frozenset({429, 503})


@dataclass(frozen=True, slots=True)
class Dialects:
    """The parts that answer dialects."""

    services: Services
    rows: SeriesRows
    passing: Passing


def add_dialects(app: FastAPI) -> None:
    """Add the dialects; they don't stand in the description of the interface."""
    app.add_route(DIALECT_PATH, _answer, _METHODS, include_in_schema=False)


async def _answer(request: Request) -> Response:
    try:
        verify_url_token(request, request.path_params["token"])
        problem = None
    except Unauthorized as error:
        problem = error
    dialect = _DIALECTS.get(request.path_params["exchange"])
    if dialect is None:
        raise problem or HTTPException(404, f"there are the dialects {', '.join(_DIALECTS)}")
    if problem:
        return dialect.refusal(401, f"{problem}: `mdp token --scope dialect:read` makes one")
    call = await _call(request)
    return _refused(dialect, call) or await _answer_in_time(request, dialect, call)


async def _call(request: Request) -> Call:
    """Read a call; its path is what stands behind the exchange, encoded as it came."""
    raw: bytes = request.scope.get("raw_path") or request.scope["path"].encode()
    path = raw.partition(b"?")[0].split(b"/", 4)[4].decode("latin-1")
    query = request.scope["query_string"].decode("latin-1")
    return Call(request.method, f"/{path}", query, dict(request.headers), await request.body())


def _refused(dialect: Dialect, call: Call) -> Response | None:
    """Refuse what must not reach the exchange."""
    if call.is_signed:
        text = "no keys and no signatures here: private endpoints keep the exchange's own URL"
        return dialect.refusal(401, text)
    if call.method not in dialect.methods:
        return dialect.refusal(405, f"{call.method} is not passed on: only what is public is")
    if call.leaves_its_place:
        return dialect.refusal(400, "the path has empty, dotted or encoded parts")
    return None


async def _answer_in_time(request: Request, dialect: Dialect, call: Call) -> Response:
    try:
        async with asyncio.timeout(ANSWER_SECONDS):
            return await _answered(request, dialect, call)
    except TimeoutError:
        note(code="overloaded")
        return _wait(dialect, "this takes longer than a program waits: ask again", 1)
    except MdpError as error:
        kind = kind_of(error)
        note(code=kind.code)
        if kind.status in _WAIT_STATUSES:
            return _wait(dialect, str(error), getattr(error, "retry_after_seconds", 1))
        return dialect.refusal(kind.status, str(error))


async def _answered(request: Request, dialect: Dialect, call: Call) -> Response:
    dialects: Dialects = request.state.dialects
    context = RequestContext.within(ANSWER_SECONDS, principal_of(request).subject)
    found = await dialect.answer(call, dialects.rows, context)
    answer = found or await _passed(dialects, dialect, call)
    market = dialects.services.markets[dialect.exchange, dialect.market_type]
    answer.headers.update(dialect.headers(market.budget.spent))
    return answer


async def _passed(dialects: Dialects, dialect: Dialect, call: Call) -> Response:
    services = dialects.services
    if not services.settings.dialect_passing:
        return dialect.refusal(400, "this is not answered here, and not passed on either")
    note(passed=unquote(call.path))
    question = Question(
        call.method,
        call.target,
        call.body,
        call.headers.get("content-type", "") if call.body else "",
        weight=dialect.weigh(call),
        charged=lambda body: dialect.charged(call, body),
    )
    adapter = services.markets[dialect.exchange, dialect.market_type].adapter
    answer = await dialects.passing.ask(adapter, question, kept_seconds=dialect.kept_seconds(call))
    return Response(answer.body, answer.status, headers_of(answer))


def _wait(dialect: Dialect, text: str, seconds: float) -> Response:
    answer = dialect.refusal(429, text)
    answer.headers["Retry-After"] = str(max(1, math.ceil(seconds)))
    return answer
