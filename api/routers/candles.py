"""`GET /candles`: parse, ask the service, encode."""

from collections.abc import AsyncIterator
from typing import Annotated, Literal

from fastapi import APIRouter, Depends, Query, Request, Response, Security
from fastapi.responses import StreamingResponse
from pydantic import BaseModel, ConfigDict, Field

from api.auth import authorize
from api.encoding import json_chunks
from api.errors import problem_responses
from api.jobs import answer_accepted
from api.parameters import SERIES, SeriesPath, optional_time, path_with
from mdp_core.answer import Answer, CandleQuery
from mdp_core.clock import to_ms
from mdp_core.errors import InvalidParameter, WindowTooLarge
from mdp_core.model import COLUMNS
from mdp_core.service import CandleService

router = APIRouter(tags=["candles"], responses=problem_responses(401, 403, 404, 422, 502, 503))

_DEFAULT_COLUMNS = ("time", "open", "high", "low", "close", "volume")
_JSON = "application/json"
# Up to here an answer is sent as a whole, with its length.
_WHOLE_SLOTS = 20_000


class CandleParameters(BaseModel):
    """Which candles, and in which form."""

    model_config = ConfigDict(extra="forbid")

    start: str | None = Field(
        default=None,
        description="First open time, inclusive: ISO-8601 (UTC if no zone) or epoch ms. "
        "Without it: the newest candles before `end`.",
        examples=["2025-05-04", "1746372780000"],
    )
    end: str | None = Field(
        default=None,
        description="Open times before this one; default now.",
        examples=["2025-06-03T15:32Z"],
    )
    limit: int | None = Field(
        default=None,
        ge=1,
        description="Candles at most; default: the maximum with `start`, 500 without.",
    )
    format: Literal["json"] = "json"
    fields: str | None = Field(
        default=None,
        description=f"Columns after `time`, comma-separated, of {', '.join(COLUMNS[1:])}.",
        examples=["close,quote_volume"],
    )
    settled: bool = Field(default=False, description="Leave out what may still change.")
    partial: bool = Field(
        default=False, description="Answer with what there is and name what is missing."
    )


@router.get(
    f"/candles/{SERIES}",
    dependencies=[Security(authorize, scopes=["candles:read"])],
    summary="Closed candles of a window, complete",
    responses={202: {"description": "Too much must be fetched first: a job, and an estimate."}},
)
async def get_candles(
    request: Request,
    path: Annotated[SeriesPath, Depends()],
    parameters: Annotated[CandleParameters, Query()],
) -> Response:
    """Every closed candle of the window, ascending; what the store lacks is fetched first."""
    columns = _columns(parameters.fields)
    query = CandleQuery(
        path.exchange,
        path.market_type,
        path.symbol,
        path.interval,
        start=optional_time("start", parameters.start),
        end=optional_time("end", parameters.end),
        limit=parameters.limit,
        settled=parameters.settled,
        partial=parameters.partial,
    )
    service: CandleService = request.state.services.candles
    try:
        answer = await service.get(query)
    except WindowTooLarge:
        return answer_accepted(await request.state.services.backfills.request(query))
    timings = dict(answer.timings)
    following = _next_path(request, answer)
    chunks = json_chunks(answer, service.blocks(answer, columns), columns, following, timings)
    return await _respond(answer, chunks, following, timings)


async def _respond(
    answer: Answer, chunks: AsyncIterator[bytes], following: str | None, timings: dict[str, float]
) -> Response:
    """Send a short answer as a whole, a long one in chunks, after the first of them is ready."""
    first = await anext(chunks)
    grid, window = answer.series.grid, answer.window
    if grid.count(window.start, window.end) > _WHOLE_SLOTS:
        return StreamingResponse(
            _chain(first, chunks), media_type=_JSON, headers=_headers(answer, following, timings)
        )
    body = b"".join([first, *[chunk async for chunk in chunks]])
    return Response(body, media_type=_JSON, headers=_headers(answer, following, timings))


async def _chain(first: bytes, rest: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    yield first
    async for chunk in rest:
        yield chunk


def _headers(answer: Answer, following: str | None, timings: dict[str, float]) -> dict[str, str]:
    headers = {
        "X-Cache": answer.cache,
        "X-Upstream-Requests": str(answer.upstream_requests),
        "Server-Timing": ", ".join(f"{step};dur={ms:.1f}" for step, ms in timings.items()),
        "Cache-Control": "no-store" if answer.missing else "private, no-cache",
    }
    if following:
        headers["Link"] = f'<{following}>; rel="next"'
    return headers


def _next_path(request: Request, answer: Answer) -> str | None:
    if answer.next is None:
        return None
    bounds = {"end": answer.next.end}
    if answer.next.start is not None:
        bounds["start"] = answer.next.start
    return path_with(request, {name: str(to_ms(time)) for name, time in bounds.items()})


def _columns(fields: str | None) -> tuple[str, ...]:
    if fields is None:
        return _DEFAULT_COLUMNS
    names = [name.strip() for name in fields.split(",")]
    if unknown := [name for name in names if name not in COLUMNS]:
        message = f"fields={fields}: no column {unknown[0]!r}; there are {', '.join(COLUMNS)}"
        raise InvalidParameter(message)
    return tuple(dict.fromkeys(("time", *names)))
