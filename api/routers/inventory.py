"""`GET /coverage`: which series the store has, and how much of each."""

from datetime import datetime
from typing import Annotated

from fastapi import APIRouter, Query, Request, Security
from pydantic import BaseModel, ConfigDict, Field
from typing_extensions import TypedDict

from api.auth import authorize
from api.deadline import TimedRoute
from api.openapi.problems import problem_responses
from api.requests.parameters import path_with
from mdp_core.domain.clock import to_ms
from mdp_core.domain.patterns import split_names
from mdp_core.errors import InvalidParameter, StoreUnavailable
from mdp_core.storage.catalog.inventory import Holding, HoldingFilter, read_holdings

router = APIRouter(
    tags=["candles"],
    route_class=TimedRoute,
    responses=problem_responses(401, 403, InvalidParameter, StoreUnavailable),
)

_LARGEST_OFFSET = 2**31 - 1
_Pattern = Annotated[str, Field(pattern=r"^[^\x00]*$", max_length=500)]


class InventoryFilter(BaseModel):
    """Which series; without filters all that have anything stored."""

    model_config = ConfigDict(extra="forbid")

    exchange: _Pattern | None = Field(default=None, description="A name or a glob.")
    market_type: _Pattern | None = Field(default=None, description="A name or a glob.")
    symbol: _Pattern | None = Field(
        default=None, description="Comma-separated names or globs, ours or native, in any case."
    )
    interval: _Pattern | None = Field(default=None, description="Comma-separated names or globs.")
    limit: int = Field(default=1000, ge=1, le=5000, description="Series at most.")
    offset: int = Field(
        default=0, ge=0, le=_LARGEST_OFFSET, description="How many are left out before them."
    )


class StoredSeriesBody(TypedDict):
    """A series: covered slots between `start` and `end`; times in epoch ms."""

    exchange: str
    market_type: str
    symbol: str
    interval: str
    start: int
    end: int
    covered_slots: int
    unconfirmed_slots: int
    last_requested: int | None


class InventoryBody(TypedDict):
    """By exchange, market type, symbol and interval; `next` where there are more."""

    series: list[StoredSeriesBody]
    next: str | None


@router.get(
    "/coverage",
    dependencies=[Security(authorize, scopes=["meta:read"])],
    summary="Which series are stored, and how much of each",
)
async def get_inventory(
    request: Request, wanted: Annotated[InventoryFilter, Query()]
) -> InventoryBody:
    """List the stored series, from coverage alone: no candle is read."""
    holdings = await read_holdings(
        request.state.services.database,
        _holding_filter(wanted),
        limit=wanted.limit + 1,
        offset=wanted.offset,
    )
    following = {"offset": str(wanted.offset + wanted.limit)}
    return {
        "series": [_describe(holding) for holding in holdings[: wanted.limit]],
        "next": path_with(request, following) if len(holdings) > wanted.limit else None,
    }


def _holding_filter(wanted: InventoryFilter) -> HoldingFilter:
    return HoldingFilter(
        wanted.exchange,
        wanted.market_type,
        split_names(wanted.symbol or ""),
        split_names(wanted.interval or ""),
    )


def _describe(holding: Holding) -> StoredSeriesBody:
    return {
        "exchange": holding.exchange,
        "market_type": holding.market_type,
        "symbol": holding.symbol,
        "interval": holding.interval,
        "start": to_ms(holding.start),
        "end": to_ms(holding.end),
        "covered_slots": holding.slots,
        "unconfirmed_slots": holding.unconfirmed_slots,
        "last_requested": _ms(holding.last_requested),
    }


def _ms(time: datetime | None) -> int | None:
    return None if time is None else to_ms(time)
