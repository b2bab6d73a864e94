"""`GET /meta/*`: exchanges, the symbols they list, the intervals they offer."""

from datetime import datetime
from itertools import islice
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request, Security
from pydantic import BaseModel, ConfigDict, Field
from typing_extensions import TypedDict

from api.auth import authorize, principal_of
from api.openapi.problems import problem_responses
from api.requests.parameters import path_with
from mdp_core.domain.clock import to_ms
from mdp_core.domain.series import Symbol
from mdp_core.errors import (
    ExchangeUnavailable,
    InvalidParameter,
    Overloaded,
    QuotaExceeded,
    RateLimited,
    StoreUnavailable,
    UnknownExchange,
    UnknownMarketType,
)
from mdp_core.exchanges.base import ExchangeAdapter
from mdp_core.series.resolver import SeriesResolver
from mdp_core.service.candles import CandleService
from mdp_core.storage.catalog.catalog import describe_grid

router = APIRouter(
    prefix="/meta",
    tags=["metadata"],
    dependencies=[Security(authorize, scopes=["meta:read"])],
    responses=problem_responses(401, 403, UnknownExchange, UnknownMarketType, InvalidParameter),
)


class MarketFilter(BaseModel):
    """Which markets."""

    model_config = ConfigDict(extra="forbid")

    exchange: str | None = Field(default=None, description="Default: all.")
    market_type: str | None = Field(default=None, description="`perp` or `spot`; default: all.")


class SymbolFilter(MarketFilter):
    """Which symbols; without `active` both those that are traded and those that were."""

    base: str | None = Field(default=None, description="In the exchange's own letter case.")
    quote: str | None = Field(default=None, description="In the exchange's own letter case.")
    active: bool | None = Field(default=None, description="Traded now; default: both.")
    q: str | None = Field(default=None, description="A part of either name, in any case.")
    limit: int = Field(default=1000, ge=1, le=5000, description="Symbols at most.")
    offset: int = Field(default=0, ge=0, description="How many are left out before them.")


class ExchangeBody(TypedDict):
    """An exchange."""

    exchange: str
    name: str
    market_types: list[str]


class ExchangesBody(TypedDict):
    """All in one page."""

    exchanges: list[ExchangeBody]
    next: str | None


class SymbolBody(TypedDict):
    """A symbol; `listed_at` and `delisted_at` are information of the exchange's."""

    exchange: str
    market_type: str
    symbol: str
    native_symbol: str
    ccxt_symbol: str
    base: str
    quote: str
    multiplier: int
    active: bool
    tick_size: float | None
    step_size: float | None
    listed_at: int | None
    delisted_at: int | None


class SymbolsBody(TypedDict):
    """By market and name; `next` where there are more."""

    symbols: list[SymbolBody]
    next: str | None


class IntervalBody(TypedDict):
    """An interval of a market: the exchange's spelling, and the grid of open times."""

    exchange: str
    market_type: str
    interval: str
    native: str
    grid: dict[str, Any]


class IntervalsBody(TypedDict):
    """All in one page."""

    intervals: list[IntervalBody]
    next: str | None


@router.get("/exchanges", summary="Exchanges and their market types")
async def get_exchanges(
    request: Request, markets: Annotated[MarketFilter, Query()]
) -> ExchangesBody:
    """List the exchanges that are installed."""
    resolver: SeriesResolver = request.state.services.resolver
    found: dict[str, ExchangeBody] = {}
    for adapter in resolver.directory.markets(markets.exchange, markets.market_type):
        facts = adapter.facts
        new = ExchangeBody(exchange=facts.name, name=facts.title, market_types=[])
        entry = found.setdefault(facts.name, new)
        entry["market_types"].append(facts.market_type)
    return {"exchanges": list(found.values()), "next": None}


@router.get(
    "/symbols",
    summary="Symbols, active or not",
    responses=problem_responses(
        502, StoreUnavailable, ExchangeUnavailable, RateLimited, Overloaded, QuotaExceeded
    ),
)
async def get_symbols(request: Request, wanted: Annotated[SymbolFilter, Query()]) -> SymbolsBody:
    """List symbols by market and name; a catalog that is empty is filled first."""
    resolver: SeriesResolver = request.state.services.resolver
    symbols: list[Symbol] = []
    service: CandleService = request.state.services.candles
    context = service.interactive(principal_of(request).subject)
    for adapter in resolver.directory.markets(wanted.exchange, wanted.market_type):
        listed = await resolver.directory.symbols(adapter, context)
        symbols += [entry for entry in listed if _matches(entry, wanted)]
    page = islice(symbols, wanted.offset, wanted.offset + wanted.limit)
    end = wanted.offset + wanted.limit
    following = path_with(request, {"offset": str(end)}) if end < len(symbols) else None
    return {"symbols": [_describe(symbol) for symbol in page], "next": following}


@router.get(
    "/intervals",
    summary="Intervals, and where candles open",
)
async def get_intervals(
    request: Request, markets: Annotated[MarketFilter, Query()]
) -> IntervalsBody:
    """List what each market offers, with the exchange's own spelling and the grid."""
    resolver: SeriesResolver = request.state.services.resolver
    found = resolver.directory.markets(markets.exchange, markets.market_type)
    return {"intervals": [row for adapter in found for row in _intervals(adapter)], "next": None}


def _intervals(adapter: ExchangeAdapter) -> list[IntervalBody]:
    facts = adapter.facts
    return [
        {
            "exchange": facts.name,
            "market_type": facts.market_type,
            "interval": interval.value,
            "native": offered.native,
            "grid": describe_grid(offered.grid) | {"phase_varies": offered.phase_varies},
        }
        for interval, offered in facts.intervals.items()
    ]


def _matches(symbol: Symbol, wanted: SymbolFilter) -> bool:
    part = (wanted.q or "").casefold()
    return (
        wanted.base in (None, symbol.base)
        and wanted.quote in (None, symbol.quote)
        and wanted.active in (None, symbol.active)
        and (part in symbol.name.casefold() or part in symbol.native.casefold())
    )


def _describe(symbol: Symbol) -> SymbolBody:
    return {
        "exchange": symbol.exchange,
        "market_type": symbol.market_type,
        "symbol": symbol.name,
        "native_symbol": symbol.native,
        "ccxt_symbol": symbol.ccxt_name,
        "base": symbol.base,
        "quote": symbol.quote,
        "multiplier": symbol.multiplier,
        "active": symbol.active,
        "tick_size": symbol.tick_size,
        "step_size": symbol.step_size,
        "listed_at": _ms(symbol.listed_at),
        "delisted_at": _ms(symbol.delisted_at),
    }


def _ms(time: datetime | None) -> int | None:
    return None if time is None else to_ms(time)
