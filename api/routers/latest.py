"""`GET /latest`: the newest closed candle, or the one that is forming."""

import orjson
from fastapi import APIRouter, Request, Response, Security
from pydantic import BaseModel, ConfigDict, Field
from typing_extensions import TypedDict

from api.auth import authorize, principal_of
from api.openapi.problems import problem_responses
from api.requests.parameters import SERIES, SeriesPath, described, query_parameters, series_path
from api.responses.job_bodies import BoundsBody
from mdp_core.domain.clock import to_ms
from mdp_core.domain.queries import CandleQuery, Latest
from mdp_core.service.latest import LatestCandles

router = APIRouter(tags=["candles"], responses=problem_responses(401, 403, 404, 422, 429, 502, 503))


class CandleBody(TypedDict):
    """One candle; what the exchange does not give is null."""

    time: int
    open: float
    high: float
    low: float
    close: float
    volume: float
    quote_volume: float | None
    trades: int | None
    taker_buy_volume: float | None
    taker_buy_quote_volume: float | None


class LatestBody(TypedDict):
    """The newest candle and what is known of it at `as_of`.

    `unconfirmed` holds closed slots after it without a candle that will be asked for again.
    """

    candle: CandleBody
    closed: bool
    settled: bool
    as_of: int
    unconfirmed: list[BoundsBody]


class LatestParameters(BaseModel):
    """The query of `GET /latest`."""

    model_config = ConfigDict(extra="forbid")

    forming: bool = Field(default=False, description="The candle that is not closed yet.")


@router.get(
    f"/latest/{SERIES}",
    dependencies=[Security(authorize, scopes=["candles:read"])],
    summary="The newest candle",
    response_model=LatestBody,
    openapi_extra={
        "parameters": [*described(SeriesPath, "path"), *described(LatestParameters, "query")]
    },
)
async def get_latest(request: Request) -> Response:
    """Return the newest closed candle and whether it is final, or the forming one."""
    edge: LatestCandles = request.state.services.edge
    path, parameters = series_path(request), query_parameters(request, LatestParameters)
    query = CandleQuery(path.exchange, path.market_type, path.symbol, path.interval)
    find = edge.forming if parameters.forming else edge.closed
    latest = await find(query, principal_of(request).subject)
    return Response(orjson.dumps(_body(latest)), media_type="application/json")


def _body(latest: Latest) -> LatestBody:
    candle = latest.candle
    return {
        "candle": {
            "time": to_ms(candle.time),
            "open": candle.open,
            "high": candle.high,
            "low": candle.low,
            "close": candle.close,
            "volume": candle.volume,
            "quote_volume": candle.quote_volume,
            "trades": candle.trades,
            "taker_buy_volume": candle.taker_buy_volume,
            "taker_buy_quote_volume": candle.taker_buy_quote_volume,
        },
        "closed": latest.closed,
        "settled": latest.settled,
        "as_of": to_ms(latest.as_of),
        "unconfirmed": [
            {"start": to_ms(window.start), "end": to_ms(window.end)}
            for window in latest.unconfirmed
        ],
    }
