"""Parameters that several endpoints share: series, times, and `next` paths.

FastAPI evaluates every annotation again for every request, which costs more than a lookup in
memory: the busiest endpoints read their parameters with these functions, and describe them here.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Any, Literal, TypeVar
from urllib.parse import quote, urlencode

from fastapi import Request
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, Field, TypeAdapter, ValidationError

from api.requests.times import parse_time

# A symbol of an exchange may have a slash in it; however it is escaped, it is part of the symbol.
SERIES = "{exchange}/{market_type}/{symbol:path}/{interval}"


_Parameters = TypeVar("_Parameters", bound=BaseModel)


@dataclass(frozen=True, slots=True)
class SeriesPath:
    """The four words that name a series."""

    exchange: Annotated[str, Field(description="Lower case.", examples=["binance"])]
    market_type: Annotated[str, Field(description="`perp` or `spot`.", examples=["perp"])]
    symbol: Annotated[
        str, Field(description="`BASE-QUOTE`, or the exchange's own name.", examples=["BTC-USDT"])
    ]
    interval: Annotated[str, Field(description="E.g. `1m`, `1h`, `1d`.", examples=["1h"])]


def series_path(request: Request) -> SeriesPath:
    """Read the series from the path of a route that ends in `SERIES`."""
    return SeriesPath(**request.path_params)


def query_parameters(request: Request, model: type[_Parameters]) -> _Parameters:
    """Read the query as FastAPI would.

    Raises:
        RequestValidationError: It is not what the model says.
    """
    try:
        return model.model_validate(dict(request.query_params))
    except ValidationError as error:
        problems = [{**entry, "loc": ("query", *entry["loc"])} for entry in error.errors()]
        raise RequestValidationError(problems) from error


def described(model: type, place: Literal["path", "query"]) -> list[dict[str, Any]]:
    """Describe the fields of a model as OpenAPI does parameters."""
    schema = TypeAdapter[object](model).json_schema()
    return [
        {
            "name": name,
            "in": place,
            "required": name in schema.get("required", ()),
            "schema": property_body,
            **{key: property_body[key] for key in ("description",) if key in property_body},
        }
        for name, property_body in schema["properties"].items()
    ]


def optional_time(name: str, text: str | None) -> datetime | None:
    """Read a time that need not be given.

    Raises:
        InvalidParameter: It is given and is no time.
    """
    return None if text is None else parse_time(name, text)


def path_with(request: Request, changes: Mapping[str, str]) -> str:
    """Give the request's own path and query with some parameters changed."""
    parameters = {**request.query_params, **changes}
    return f"{quote(request.url.path)}?{urlencode(parameters)}"
