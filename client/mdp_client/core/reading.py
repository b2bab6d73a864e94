"""Read one JSON document: newest candle, coverage, metadata or inventory."""

from collections.abc import Mapping
from typing import Any
from urllib.parse import urlencode

from mdp_client.core.actions import Flow
from mdp_client.core.asking import Call, Question, ask_json
from mdp_client.core.listing import ask_pages, ask_records, series_path
from mdp_client.records import (
    Coverage,
    Exchange,
    Interval,
    Latest,
    StoredSeries,
    Symbol,
)


def read_latest(call: Call, series: tuple[str, str, str, str], *, forming: bool) -> Flow[Latest]:
    """Read the newest closed candle, or the one that is forming."""
    path = f"/latest/{series_path(*series)}" + ("?forming=true" if forming else "")
    return Latest.of((yield from ask_json(call, Question("GET", path))))


def read_coverage(
    call: Call, series: tuple[str, str, str, str], options: Mapping[str, Any]
) -> Flow[Coverage]:
    """Read the windows of a series with their states, to the end of the list."""
    given = {name: value for name, value in options.items() if value is not None}
    query = urlencode({name: str(value).lower() for name, value in given.items()})
    path = f"/coverage/{series_path(*series)}" + (f"?{query}" if query else "")
    return Coverage.of({"windows": (yield from ask_pages(call, path, "windows"))})


def read_exchanges(call: Call) -> Flow[list[Exchange]]:
    """Read the exchanges of the service."""
    return list((yield from ask_records(call, "/meta/exchanges", "exchanges", Exchange, {})))


def read_symbols(call: Call, filters: dict[str, object]) -> Flow[list[Symbol]]:
    """Read symbols, by market and name."""
    return list((yield from ask_records(call, "/meta/symbols", "symbols", Symbol, filters)))


def read_intervals(call: Call, filters: dict[str, object]) -> Flow[list[Interval]]:
    """Read the intervals of each market."""
    return list((yield from ask_records(call, "/meta/intervals", "intervals", Interval, filters)))


def read_inventory(call: Call, filters: dict[str, object]) -> Flow[list[StoredSeries]]:
    """Read which series the store holds, and how much of them."""
    return list((yield from ask_records(call, "/coverage", "series", StoredSeries, filters)))
