"""What several endpoints take: the words that name a series, times, and where the rest is found."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated
from urllib.parse import quote, urlencode

from fastapi import Path, Request

from api.times import parse_time

# A symbol of an exchange may have a slash in it; however it is escaped, it is part of the symbol.
SERIES = "{exchange}/{market_type}/{symbol:path}/{interval}"


@dataclass(frozen=True, slots=True)
class SeriesPath:
    """The four words that name a series."""

    exchange: str
    market_type: str
    symbol: str
    interval: str


async def series_path(
    exchange: Annotated[str, Path(description="Lower case.", examples=["binance"])],
    market_type: Annotated[str, Path(description="`perp` or `spot`.", examples=["perp"])],
    symbol: Annotated[
        str,
        Path(description="`BASE-QUOTE`, or the exchange's own name.", examples=["BTC-USDT"]),
    ],
    interval: Annotated[str, Path(description="E.g. `1m`, `1h`, `1d`.", examples=["1h"])],
) -> SeriesPath:
    """Take the words from the path, on the event loop: a plain function would go to a thread."""
    return SeriesPath(exchange, market_type, symbol, interval)


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
