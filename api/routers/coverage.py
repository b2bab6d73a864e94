"""`GET /coverage`: what the store has of a series, and why the rest is not there."""

import asyncio
from typing import Annotated, NotRequired

from fastapi import APIRouter, Query, Request, Security
from pydantic import BaseModel, ConfigDict, Field
from typing_extensions import TypedDict

from api.auth import authorize, principal_of
from api.deadline import TimedRoute
from api.openapi.problems import UNKNOWN_SERIES, problem_responses
from api.requests.parameters import (
    SERIES,
    SeriesPath,
    described,
    optional_time,
    path_with,
    series_path,
)
from mdp_core.domain.clock import to_ms
from mdp_core.domain.queries import CandleQuery
from mdp_core.errors import InvalidParameter, InvalidWindow, LimitTooLarge
from mdp_core.service.candles import CandleService
from mdp_core.service.coverage import Coverage, CoveragePage, SlotState, Span

router = APIRouter(
    tags=["candles"],
    route_class=TimedRoute,
    responses=problem_responses(
        *(401, 403, *UNKNOWN_SERIES, 429, 502, 503),
        *(InvalidParameter, InvalidWindow, LimitTooLarge),
    ),
)

_MOST_WINDOWS = 10_000


class CoverageParameters(BaseModel):
    """Of which window; without bounds from the history start to now."""

    model_config = ConfigDict(extra="forbid")

    start: str | None = Field(default=None, description="As of `/candles`.")
    end: str | None = Field(default=None, description="As of `/candles`.")
    detail: bool = Field(default=False, description="Part covered windows by slots; needs both.")


class SpanBody(TypedDict):
    """A window of slots in one state; `source` says how `before_history` is known."""

    start: int
    end: int
    state: SlotState
    source: NotRequired[str]


class CoverageBody(TypedDict):
    """Ascending and without holes; `next` where there are more."""

    windows: list[SpanBody]
    next: str | None


@router.get(
    f"/coverage/{SERIES}",
    dependencies=[Security(authorize, scopes=["candles:read"])],
    summary="What is stored, and why the rest is not",
    openapi_extra={"parameters": described(SeriesPath, "path")},
)
async def get_coverage(
    request: Request,
    parameters: Annotated[CoverageParameters, Query()],
) -> CoverageBody:
    """Return the windows of a series by state: covered, not fetched, and why not.

    With `detail` (needs both bounds) covered windows are parted into slots with candles and slots
    for which the exchange has none.
    """
    coverage: Coverage = request.state.services.coverage
    path = series_path(request)
    query = CandleQuery(
        path.exchange,
        path.market_type,
        path.symbol,
        path.interval,
        start=optional_time("start", parameters.start),
        end=optional_time("end", parameters.end),
    )
    if parameters.detail and (query.start is None or query.end is None):
        message = "detail=true needs start and end"
        raise InvalidParameter(message)
    tell = coverage.detailed_spans if parameters.detail else coverage.spans
    service: CandleService = request.state.services.candles
    context = service.interactive(principal_of(request).subject)
    told = await tell(query, _MOST_WINDOWS, context)
    return await asyncio.to_thread(_body, request, told)  # there may be thousands


def _body(request: Request, told: CoveragePage) -> CoverageBody:
    windows = [_describe(span) for span in told.spans]
    bounds = {"start": str(to_ms(told.rest.start)), "end": str(to_ms(told.rest.end))}
    return {
        "windows": windows,
        "next": None if told.rest.is_empty else path_with(request, bounds),
    }


def _describe(span: Span) -> SpanBody:
    body = SpanBody(start=to_ms(span.window.start), end=to_ms(span.window.end), state=span.state)
    return body if span.source is None else {**body, "source": span.source}
