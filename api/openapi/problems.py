"""Errors for OpenAPI: every code of a status, each with an example."""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from api.errors import (
    KINDS,
    PROBLEM_TYPE,
    ProblemKind,
    details_of,
    every_kind,
    kind_of,
    problem_body,
)
from api.requests.negotiation import NotAcceptable
from api.tokens import Forbidden, Unauthorized
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
    errors.AmbiguousSymbol("binance", "BTC-USDT", ["BTCUSDT", "BTCUSDT_OLD"]),
    errors.UnsupportedInterval("coinbase", "1w", ["1m", "5m", "15m", "1h", "6h", "1d"]),
    errors.NoCandle(_A_SERIES, f"since {_A_TIME.isoformat()}"),
    errors.NeverTraded(),
    errors.UnknownBackfill(7),
    errors.ExchangeRejected("binance", "refused: Invalid symbol."),
    errors.BadPayload("binance", "answered what is not JSON"),
    errors.BadRows("binance", [_A_TIME], "high below close"),
    errors.ExchangeUnavailable("binance", "answered HTTP 500"),
    errors.ClockSkew("binance", datetime(2024, 5, 1, 5, tzinfo=UTC), _A_TIME),
    errors.RateLimited("binance", 12),
    errors.NoSyncer(),
    errors.QuotaExceeded(
        "bot has 20 open jobs, and 20 is the most", "wait for one to end, or cancel one", 30
    ),
    errors.Overloaded(),
    errors.StoreUnavailable("PoolTimeout"),
    errors.SchemaMissing(),
    errors.SeriesRepaired(_A_SERIES),
    Unauthorized("this needs a token: send the header `Authorization: Bearer <token>`"),
    Forbidden("the token lacks the scope candles:read"),
    NotAcceptable("Accept", ["application/json", "text/csv"]),
)
"""One of each; what they say is what is answered."""

UNKNOWN_SERIES = (
    errors.UnknownExchange,
    errors.UnknownMarketType,
    errors.UnknownSymbol,
    errors.UnsupportedInterval,
)
"""What can be wrong with the words that name a series."""

# Whatever is asked for, it may be too long, or a mistake of ours may come to light.
_EVERYWHERE = (414, 431, 500)

_TEXT = {"type": "string"}
_MS = {"type": "integer", "description": "Epoch ms."}
_NAMES = {"type": "array", "items": _TEXT}
_PARAMETER = {"type": "object", "properties": {"parameter": _TEXT, "problem": _TEXT}}
# What some bodies have beside the members of all.
_DETAILS: dict[str, dict[str, Any]] = {
    "unknown_exchange": {"known": {**_NAMES, "description": "What there is."}},
    "unknown_market_type": {"known": {**_NAMES, "description": "What there is."}},
    "unknown_symbol": {"near": {**_NAMES, "description": "With `unknown_symbol`: nearest first."}},
    "unsupported_interval": {
        "supported": {**_NAMES, "description": "With `unsupported_interval`."}
    },
    "invalid_parameter": {"parameters": {"type": "array", "items": _PARAMETER}},
    "history_unavailable": {
        "earliest": {**_MS, "description": "With `history_unavailable`, epoch ms."}
    },
    "upstream_bad_data": {
        "times": {"type": "array", "items": _MS, "description": "Slots with rejected rows."}
    },
    "clock_skew": {
        "their_time": {**_MS, "description": "The clock of the exchange, or of the database."},
        "our_time": {**_MS, "description": "The clock of this service."},
    },
}
_HEADERS: dict[int, dict[str, Any]] = {
    401: {"WWW-Authenticate": {"required": True, "schema": _TEXT}},
    429: {"Retry-After": {"required": True, "schema": {"type": "integer", "minimum": 1}}},
    503: {"Retry-After": {"required": True, "schema": {"type": "integer", "minimum": 1}}},
}


def problem_responses(*given: int | type[Exception]) -> dict[int | str, dict[str, Any]]:
    """Return the OpenAPI responses of a route's problems, the common ones included.

    Args:
        given: A status stands for every code that it has; an error for its own code alone.
    """
    kinds: dict[int, set[ProblemKind]] = {}
    for item in (*given, *_EVERYWHERE):
        for kind in _of_status(item) if isinstance(item, int) else [KINDS[item]]:
            kinds.setdefault(kind.status, set()).add(kind)
    return {status: _describe(sorted(kinds[status], key=_code)) for status in sorted(kinds)}


def _of_status(status: int) -> list[ProblemKind]:
    return [kind for kind in every_kind() if kind.status == status]


def _describe(kinds: Sequence[ProblemKind]) -> dict[str, Any]:
    content = {"schema": _schema(kinds), "examples": _examples(kinds)}
    return {
        "description": ", ".join(f"`{kind.code}`" for kind in kinds),
        "headers": _HEADERS.get(kinds[0].status, {}),
        "content": {PROBLEM_TYPE: content},
    }


def _schema(kinds: Sequence[ProblemKind]) -> dict[str, Any]:
    codes = [kind.code for kind in kinds]
    details = [_DETAILS.get(code, {}) for code in codes]
    always: dict[str, Any] = {
        "type": {"const": "about:blank"},
        "title": _TEXT,
        "status": {"const": kinds[0].status},
        "code": {"enum": codes},
        "detail": {**_TEXT, "description": "What is wrong and what to do, for people."},
        "request_id": {**_TEXT, "description": "As in the header and the log."},
    }
    return {
        "type": "object",
        "required": [*always],
        "properties": always | {name: it for detail in details for name, it in detail.items()},
        "additionalProperties": False,
    }


def _examples(kinds: Sequence[ProblemKind]) -> dict[str, Any]:
    """Return an example body for every code, also for those that no error has."""
    examples = {kind_of(error): (str(error), details_of(error)) for error in reversed(EXAMPLES)}
    bodies = {
        kind.code: problem_body(kind, detail, "b4d2c1") | details
        for kind in kinds
        for detail, details in [examples.get(kind, (kind.code.replace("_", " "), {}))]
    }
    return {code: {"value": body} for code, body in bodies.items()}


def _code(kind: ProblemKind) -> str:
    return kind.code
