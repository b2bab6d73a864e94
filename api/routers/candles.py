"""`GET /candles`: parse, ask the service, say what it is, deliver."""

from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import aclosing
from dataclasses import dataclass
from http import HTTPStatus
from typing import Literal

from fastapi import APIRouter, Request, Response, Security
from fastapi.responses import StreamingResponse
from pydantic import BaseModel, ConfigDict, Field

from api.auth import authorize, principal_of
from api.openapi.candles import CANDLE_RESPONSES
from api.openapi.problems import UNKNOWN_SERIES, problem_responses
from api.requests.negotiation import accepts_plain, best_coding, best_media_type, matches
from api.requests.owners import owner_of
from api.requests.parameters import (
    SERIES,
    SeriesPath,
    described,
    optional_time,
    path_with,
    query_parameters,
    series_path,
)
from api.responses.block_cache import BodyMemory, Data, WholeBody
from api.responses.block_loader import EncodeRequest
from api.responses.cache_headers import cache_headers, version_header
from api.responses.compression import CODINGS
from api.responses.envelope import AnswerMetadata
from api.responses.formats import FORMATS
from api.responses.jobs import answer_accepted
from api.responses.stream import Delivery
from mdp_core.domain.candles import COLUMNS
from mdp_core.domain.clock import to_ms
from mdp_core.domain.queries import Answer, CandleQuery
from mdp_core.errors import InvalidParameter, SeriesRepaired, WindowTooLarge
from mdp_core.logs import note
from mdp_core.service.candles import CandleService

router = APIRouter(
    tags=["candles"],
    responses={
        **CANDLE_RESPONSES,
        **problem_responses(401, 403, *UNKNOWN_SERIES, 406, 422, 429, 502, 503),
    },
)

_DEFAULT_COLUMNS = ("time", "open", "high", "low", "close", "volume")
# Up to here an answer is sent as a whole, with its length.
_WHOLE_SLOTS = 20_000
_BY_MEDIA_TYPE = {entry.media_type: name for name, entry in FORMATS.items()}


class CandleParameters(BaseModel):
    """The query of `GET /candles`."""

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
    format: Literal["json", "ndjson", "csv", "arrow", "parquet"] | None = Field(
        default=None,
        description="Default: what the header `Accept` likes best, JSON where it likes all.",
    )
    fields: str | None = Field(
        default=None,
        description=f"Columns after `time`, comma-separated, of {', '.join(COLUMNS[1:])}.",
        examples=["close,quote_volume"],
    )
    settled: bool = Field(default=False, description="Leave out what may still change.")
    partial: bool = Field(
        default=False, description="Answer with what there is and name what is missing."
    )


@dataclass(frozen=True, slots=True)
class _Form:
    """The format and coding of an answer; `coding` None: not compressed."""

    format: str
    coding: str | None


@router.get(
    f"/candles/{SERIES}",
    dependencies=[Security(authorize, scopes=["candles:read"])],
    summary="Closed candles of a window, complete",
    response_class=Response,
    openapi_extra={
        "parameters": [*described(SeriesPath, "path"), *described(CandleParameters, "query")]
    },
)
async def get_candles(request: Request) -> Response:
    """Return every closed candle of the window, ascending; gaps are fetched first."""
    path, parameters = series_path(request), query_parameters(request, CandleParameters)
    form, columns = _form(request, parameters.format), _columns(parameters.fields)
    query = _query(path, parameters)
    try:
        try:
            return await _answer(request, query, form, columns)
        except SeriesRepaired:  # since its coverage was looked at; nothing is sent yet
            return await _answer(request, query, form, columns)
    except WindowTooLarge:
        return answer_accepted(
            await request.state.services.backfills.request(query, owner_of(request))
        )


async def _answer(
    request: Request, query: CandleQuery, form: _Form, columns: tuple[str, ...]
) -> Response:
    service: CandleService = request.state.services.candles
    context = service.interactive(principal_of(request).subject)
    series = await service.resolve(query, context)
    answer = await service.get(series, query, context)
    provenance = AnswerMetadata(answer, columns, _next_path(request, answer))
    is_long = answer.series.grid.count(answer.window.start, answer.window.end) > _WHOLE_SLOTS
    wanted = EncodeRequest(answer, FORMATS[form.format], columns, is_patient=is_long)
    delivery = Delivery(request.state.blocks, wanted)
    headers = _headers(query, provenance, form)
    if matches(_header(request, "If-None-Match"), headers.get("ETag")):
        headers |= {"Server-Timing": _timing(delivery)}
        return Response(status_code=HTTPStatus.NOT_MODIFIED, headers=headers)
    if form.coding:
        headers |= {"Content-Encoding": form.coding}
    respond = _in_chunks if is_long else _as_a_whole
    return await respond(request, delivery, provenance, form, headers)


def _headers(query: CandleQuery, provenance: AnswerMetadata, form: _Form) -> dict[str, str]:
    return {
        **provenance.headers(),
        **cache_headers(query, provenance, (form.format, form.coding or "")),
        **version_header(provenance.answer),
        "X-Cache": provenance.answer.cache,
        "X-Upstream-Requests": str(provenance.answer.upstream_requests),
    }


def _timing(delivery: Delivery) -> str:
    return ", ".join([f"{step};dur={ms:.1f}" for step, ms in delivery.timings.items()])


async def _as_a_whole(
    request: Request,
    delivery: Delivery,
    provenance: AnswerMetadata,
    form: _Form,
    headers: Mapping[str, str],
) -> Response:
    """Send a short answer with its length; compressed bodies are cached."""
    bodies: BodyMemory = request.state.bodies
    tag, format_ = headers.get("ETag") if form.coding else None, FORMATS[form.format]
    kept = bodies.get(tag) if tag else None
    if kept is None:
        content = await delivery.whole(format_.body(provenance), form.coding)
        kept = WholeBody(content, delivery.rows)
        if tag:
            bodies.keep(tag, kept)
    note(rows=kept.rows)
    headers = {**headers, "Server-Timing": _timing(delivery)}
    return Response(kept.content, media_type=format_.media_type, headers=headers)


async def _in_chunks(
    _: Request,
    delivery: Delivery,
    provenance: AnswerMetadata,
    form: _Form,
    headers: Mapping[str, str],
) -> Response:
    """Stream a long answer; with its length if all of it is in memory."""
    format_ = FORMATS[form.format]
    chunks = delivery.chunks(format_.body(provenance), form.coding)
    first = await anext(chunks)
    headers = {**headers, "Server-Timing": _timing(delivery)}
    if form.coding is None and (length := delivery.length(format_.body(provenance))) is not None:
        headers["Content-Length"] = str(length)
    body = _chain(first, chunks, delivery)
    return StreamingResponse(body, media_type=format_.media_type, headers=headers)


async def _chain(
    first: Data, rest: AsyncGenerator[Data], delivery: Delivery
) -> AsyncIterator[Data]:
    async with aclosing(rest):
        yield first
        async for chunk in rest:
            yield chunk
    note(rows=delivery.rows)


def _query(path: SeriesPath, parameters: CandleParameters) -> CandleQuery:
    return CandleQuery(
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


def _form(request: Request, name: str | None) -> _Form:
    """Choose format and coding by the client's preference; Parquet stays plain."""
    name = name or _BY_MEDIA_TYPE[best_media_type(_header(request, "Accept"), [*_BY_MEDIA_TYPE])]
    codings = _header(request, "Accept-Encoding")
    if FORMATS[name].is_packed and accepts_plain(codings):
        return _Form(name, None)
    return _Form(name, best_coding(codings, [*CODINGS]))


def _header(request: Request, name: str) -> str:
    return ", ".join(request.headers.getlist(name))


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
