"""Answers of `GET /candles` for OpenAPI; the encoders do not use these models."""

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, WithJsonSchema

from api.openapi.examples import CANDLES
from api.responses.formats import FORMATS
from api.responses.job_bodies import AcceptedBody

_ROW = {
    "type": "array",
    "minItems": 1,
    "prefixItems": [{"type": "integer", "description": "Open time, epoch ms."}],
    "items": {"type": ["number", "null"]},
}


class UnconfirmedBody(BaseModel):
    """A window of slots without a candle that will be asked for again."""

    model_config = ConfigDict(extra="forbid")

    start: int
    end: int


class MissingBody(BaseModel):
    """A window that the answer lacks, and the code of the error that says why."""

    model_config = ConfigDict(extra="forbid")

    start: int
    end: int
    reason: str


class CandlesBody(BaseModel):
    """Candles of one series, ascending, complete for `[start, end)`; times in ms."""

    model_config = ConfigDict(extra="forbid")

    exchange: str
    market_type: str
    symbol: str = Field(description="The canonical name, however it was asked for.")
    interval: str
    start: int
    end: int
    settled_until: int = Field(description="Candles from here on may still change.")
    unconfirmed: list[UnconfirmedBody] = Field(
        description="Slots without a candle that will be asked for again: nearly always none."
    )
    columns: list[str] = Field(description="What a row holds, in order; `time` is the first.")
    candles: list[Annotated[list[float | None], WithJsonSchema(_ROW)]]
    count: int
    complete: bool = Field(description="False with `partial=true` alone: see `missing`.")
    next: str | None = Field(description="Path and query of the rest, if there is more.")
    missing: list[MissingBody] = Field(default=[], description="There if not complete.")


_ROWS = [dict(zip(CANDLES["columns"], row, strict=True)) for row in CANDLES["candles"]]
_TEXT = {"type": "string"}
_BYTES = {"type": "string", "format": "binary"}
_MS = {"required": True, "schema": {"type": "integer"}}
_CONTENT: dict[str, dict[str, Any]] = {
    "json": {},
    "ndjson": {"schema": _TEXT, "example": "".join(f"{row}\n" for row in _ROWS).replace("'", '"')},
    "csv": {
        "schema": _TEXT,
        "example": "".join(
            f"{','.join(map(str, row))}\n" for row in (CANDLES["columns"], *CANDLES["candles"])
        ),
    },
    "arrow": {"schema": _BYTES},
    "parquet": {"schema": _BYTES},
}
_CACHE_HEADERS: dict[str, Any] = {
    "ETag": {"description": "Where no candle can change and none is unconfirmed.", "schema": _TEXT},
    "Cache-Control": {"required": True, "schema": _TEXT},
    "Vary": {"required": True, "schema": _TEXT},
}
_ANSWER_HEADERS: dict[str, Any] = {
    "X-Window-Start": {**_MS, "description": "As `start` in JSON, epoch ms."},
    "X-Window-End": {**_MS, "description": "As `end`."},
    "X-Settled-Until": {**_MS, "description": "As `settled_until`."},
    "X-Complete": {"required": True, "schema": {"enum": ["true", "false"]}},
    "X-Unconfirmed": {
        "required": True,
        "description": "Number of slots in `unconfirmed`.",
        "schema": {"type": "integer", "minimum": 0},
    },
    "Link": {"description": '`<path>; rel="next"` where there is more.', "schema": _TEXT},
    "X-Cache": {
        "required": True,
        "description": "Whether the store had it all, some or nothing.",
        "schema": {"enum": ["hit", "partial", "miss"]},
    },
    "X-Version": {
        "required": True,
        "description": "`{store}.{series}.{version}.{epoch}`: as long as the first three are the "
        "same, so are the settled candles of the window.",
        "schema": {"type": "string", "pattern": r"^\d+\.\d+\.\d+\.-?\d+$"},
    },
    "X-Upstream-Requests": {
        "required": True,
        "description": "How often the exchange was asked for this answer.",
        "schema": {"type": "integer", "minimum": 0},
    },
}

CANDLE_RESPONSES: dict[int | str, dict[str, Any]] = {
    200: {
        "model": CandlesBody,
        "description": "Every closed candle of the window, in the format that was chosen.",
        "headers": {
            **_ANSWER_HEADERS,
            **_CACHE_HEADERS,
            "Server-Timing": {
                "required": True,
                "description": "Milliseconds of each step.",
                "schema": _TEXT,
            },
        },
        "content": {form.media_type: _CONTENT[name] for name, form in FORMATS.items()},
    },
    202: {
        "model": AcceptedBody,
        "description": "Too much must be fetched first: a job does it. Ask again when it is done.",
        "headers": {
            "Location": {"required": True, "schema": _TEXT},
            "Retry-After": {"required": True, "schema": {"type": "integer", "minimum": 1}},
        },
    },
    304: {
        "description": "`If-None-Match` names what the client has, and that is still right.",
        "headers": {**_ANSWER_HEADERS, **_CACHE_HEADERS},
    },
}
