"""Errors as OpenAPI describes them: every code of a status, and what each looks like."""

from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any

from api.auth import Forbidden, Unauthorized
from api.errors import PROBLEM_TYPE, Kind, details_of, every_kind, kind_of, problem_body
from api.negotiation import NotAcceptable
from mdp_core import errors

_A_TIME = datetime(2024, 5, 1, tzinfo=UTC)
_A_SERIES = "binance perp BTC-USDT 1m"

EXAMPLES: tuple[Exception, ...] = (
    errors.InvalidParameter(
        "start=1714521600 looks like seconds: write epoch milliseconds or ISO-8601 with dashes"
    ),
    errors.InvalidWindow(datetime(2024, 5, 2, tzinfo=UTC), _A_TIME),
    errors.NothingClosed(_A_TIME, datetime(2024, 5, 2, tzinfo=UTC)),
    errors.LimitTooLarge(2_000_000, 1_000_000),
    errors.WindowTooLarge(240, 100),
    errors.HistoryUnavailable("hyperliquid", _A_TIME),
    errors.UnknownExchange("kraken", ["binance", "coinbase", "hyperliquid"]),
    errors.UnknownMarketType("binance", "spot", ["perp"]),
    errors.UnknownSymbol("binance", "BTC-USD", ["BTC-USDT", "BTC-USDC"]),
    errors.UnsupportedInterval("coinbase", "1w", ["1m", "5m", "15m", "1h", "6h", "1d"]),
    errors.NoCandle(_A_SERIES, f"since {_A_TIME.isoformat()}"),
    errors.UnknownBackfill(7),
    errors.ExchangeRejected("binance", "refused: Invalid symbol."),
    errors.BadPayload("binance", "answered what is not JSON"),
    errors.BadRows("binance", [_A_TIME], "high below close"),
    errors.ExchangeUnavailable("binance", "answered HTTP 500"),
    errors.RateLimited("binance", 12),
    errors.NoSyncer(),
    errors.Overloaded("too many requests wait for binance"),
    errors.StoreUnavailable("PoolTimeout"),
    errors.SchemaMissing(),
    errors.SeriesRepaired(_A_SERIES),
    Unauthorized("this needs a token: send the header `Authorization: Bearer <token>`"),
    Forbidden("the token lacks the scope candles:read"),
    NotAcceptable("Accept", ["application/json", "text/csv"]),
)
"""One of each; what they say is what is answered."""

# Whatever is asked for, it may be too long, or a mistake of ours may come to light.
_EVERYWHERE = (414, 431, 500)

_TEXT = {"type": "string"}
_MS = {"type": "integer", "description": "Epoch ms."}
_NAMES = {"type": "array", "items": _TEXT}
_PARAMETER = {"type": "object", "properties": {"parameter": _TEXT, "problem": _TEXT}}
# What some bodies have beside the members of all.
_DETAILS: dict[int, dict[str, Any]] = {
    404: {
        "known": {**_NAMES, "description": "With `unknown_exchange` and `unknown_market_type`."},
        "near": {**_NAMES, "description": "With `unknown_symbol`: the nearest first."},
        "supported": {**_NAMES, "description": "With `unsupported_interval`."},
    },
    422: {
        "parameters": {"type": "array", "items": _PARAMETER},
        "earliest": {**_MS, "description": "With `history_unavailable`, epoch ms."},
    },
    502: {"times": {"type": "array", "items": _MS, "description": "Slots with rejected rows."}},
}
_REQUEST_ID = {"X-Request-Id": {"required": True, "schema": _TEXT}}
_HEADERS: dict[int, dict[str, Any]] = {
    401: {"WWW-Authenticate": {"required": True, "schema": _TEXT}},
    503: {"Retry-After": {"required": True, "schema": {"type": "integer", "minimum": 1}}},
}


def problem_responses(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Describe the problem bodies of a route for OpenAPI, those of every route among them."""
    return {status: _describe(status) for status in sorted({*statuses, *_EVERYWHERE})}


def _describe(status: int) -> dict[str, Any]:
    kinds = sorted((each for each in every_kind() if each.status == status), key=_code)
    content = {"schema": _schema(kinds), "examples": _examples(kinds)}
    return {
        "description": ", ".join(f"`{kind.code}`" for kind in kinds),
        "headers": _REQUEST_ID | _HEADERS.get(status, {}),
        "content": {PROBLEM_TYPE: content},
    }


def _schema(kinds: Iterable[Kind]) -> dict[str, Any]:
    codes = [kind.code for kind in kinds]
    (status,) = {kind.status for kind in kinds}
    always: dict[str, Any] = {
        "type": {"const": "about:blank"},
        "title": _TEXT,
        "status": {"const": status},
        "code": {"enum": codes},
        "detail": {**_TEXT, "description": "What is wrong and what to do, for people."},
        "request_id": {**_TEXT, "description": "As in the header and the log."},
    }
    return {
        "type": "object",
        "required": [*always],
        "properties": always | _DETAILS.get(status, {}),
        "additionalProperties": False,
    }


def _examples(kinds: Iterable[Kind]) -> dict[str, Any]:
    """Give a body for every code; what no error stands for is said by the server itself."""
    said = {kind_of(error): (str(error), details_of(error)) for error in reversed(EXAMPLES)}
    bodies = {
        kind.code: problem_body(kind, detail, "b4d2c1") | details
        for kind in kinds
        for detail, details in [said.get(kind, (kind.code.replace("_", " "), {}))]
    }
    return {code: {"value": body} for code, body in bodies.items()}


def _code(kind: Kind) -> str:
    return kind.code
