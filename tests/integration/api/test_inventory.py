"""`GET /coverage`: the stored series, a page at a time, from coverage alone."""

from collections.abc import Callable, Sequence

import httpx
import psycopg
import pytest

from mdp_core.wiring import Services

_COVER = "UPDATE series SET coverage = %(ranges)s::tstzmultirange WHERE id = %(id)s"
_USE = """
INSERT INTO series_usage (series_id, last_requested, requests) VALUES (%s, '2024-06-01Z', 1)
"""
_DOUBT = """
INSERT INTO absences (series_id, slots, next_due_at)
VALUES (%s, '[2024-01-02Z, 2024-01-02 03:00Z)', now())
"""
_DAYS = "{[2024-01-01Z, 2024-01-03Z), [2024-01-05Z, 2024-01-06Z)}"
_STORED = [
    ("binance", "perp", "1000PEPE-USDT", "1m"),
    ("binance", "perp", "BTC-USDT", "1m"),
    ("binance", "perp", "BTC-USDT", "1h"),
    ("binance", "perp", "ETH-USDT", "1M"),
    ("coinbase", "spot", "BTC-USD", "1m"),
]


@pytest.fixture
async def stored(services: Services, database: psycopg.Connection) -> Sequence[int]:
    """Cover three days of some series, and nothing of another one; give the ids."""
    await services.resolver.series("binance", "perp", "SOL-USDT", "1m")
    found: list[int] = []
    for name in _STORED:
        series = await services.resolver.series(*name)
        ranges = "{[2023-11-01Z, 2024-02-01Z)}" if name[3] == "1M" else _DAYS
        database.execute(_COVER, {"id": series.id, "ranges": ranges})
        found.append(series.id)
    return found


def _names(answer: httpx.Response) -> list[tuple[str, ...]]:
    keys = ("exchange", "market_type", "symbol", "interval")
    return [tuple(entry[key] for key in keys) for entry in answer.json()["series"]]


async def test_series_are_told_with_their_slots(
    client: httpx.AsyncClient, database: psycopg.Connection, stored: Sequence[int]
) -> None:
    """Holes are not counted, months have their own length, and unused is null."""
    database.execute(_USE, [stored[1]])
    body = (await client.get("/coverage")).json()
    slots = {
        (entry["symbol"], entry["interval"]): entry["covered_slots"] for entry in body["series"]
    }

    assert slots == {
        ("1000PEPE-USDT", "1m"): 3 * 1440,
        ("BTC-USDT", "1m"): 3 * 1440,
        ("BTC-USDT", "1h"): 3 * 24,
        ("ETH-USDT", "1M"): 3,
        ("BTC-USD", "1m"): 3 * 1440,
    }
    assert body["next"] is None
    assert body["series"][1] == {
        "exchange": "binance",
        "market_type": "perp",
        "symbol": "BTC-USDT",
        "interval": "1m",
        "start": 1704067200000,
        "end": 1704499200000,
        "covered_slots": 3 * 1440,
        "unconfirmed_slots": 0,
        "last_requested": 1717200000000,
    }
    assert [entry["last_requested"] for entry in body["series"]].count(None) == 4


async def test_unconfirmed_slots_are_counted_apart(
    client: httpx.AsyncClient, database: psycopg.Connection, stored: Sequence[int]
) -> None:
    """They are covered too, in as many slots as the interval has there."""
    for series_id in stored[1:3]:
        database.execute(_DOUBT, [series_id])
    body = (await client.get("/coverage", params={"symbol": "BTC-USDT"})).json()

    slots = [(entry["covered_slots"], entry["unconfirmed_slots"]) for entry in body["series"]]
    assert slots == [(3 * 1440, 180), (3 * 24, 3)]


@pytest.mark.usefixtures("stored")
async def test_pages_hold_each_series_once(client: httpx.AsyncClient) -> None:
    """`next` is an absolute path, keeps the filters, and ends with the last page."""
    path, found = "/coverage?limit=2&interval=1m,1h", list[tuple[str, ...]]()
    lengths: list[int] = []
    while path:
        assert path.startswith("/coverage?")
        answer = await client.get(path)
        lengths.append(len(answer.json()["series"]))
        found += _names(answer)
        path = answer.json()["next"]

    assert lengths == [2, 2]
    assert found == [name for name in _STORED if name[3] != "1M"]


@pytest.mark.usefixtures("stored")
@pytest.mark.parametrize(
    ("filters", "expected"),
    [
        ({"exchange": "coinbase"}, _STORED[4:]),
        ({"exchange": "[!c]*"}, _STORED[:4]),
        ({"market_type": "sp?t"}, _STORED[4:]),
        ({"symbol": "btc-*"}, [*_STORED[1:3], _STORED[4]]),
        ({"symbol": "BTCUSDT,ethusdt"}, _STORED[1:4]),
        ({"symbol": "BTC"}, []),
        ({"symbol": "[0-9]*"}, _STORED[:1]),
        ({"symbol": "[z-a]*"}, []),
        ({"symbol": ".*"}, []),
        ({"symbol": "a|b(["}, []),
        ({"interval": "1M"}, _STORED[3:4]),
        ({"interval": "1m"}, [*_STORED[:2], _STORED[4]]),
        ({"exchange": "kraken"}, []),
    ],
)
async def test_filters_are_names_or_globs(
    client: httpx.AsyncClient, filters: dict[str, str], expected: list[tuple[str, ...]]
) -> None:
    """Symbols in any case and by either name; odd characters stand for themselves."""
    answer = await client.get("/coverage", params=filters)

    assert answer.status_code == 200
    assert _names(answer) == expected


@pytest.mark.parametrize(
    "parameters",
    [{"limit": 0}, {"limit": 5001}, {"offset": -1}, {"symbol": "\0"}, {"symbols": "*"}],
)
async def test_filter_that_can_not_be_read_is_named(
    client: httpx.AsyncClient, parameters: dict[str, str | int]
) -> None:
    """422, and which parameter it was."""
    answer = await client.get("/coverage", params=parameters)

    assert answer.status_code == 422
    assert next(iter(parameters)) in answer.json()["detail"]


async def test_inventory_needs_the_scope_of_metadata(
    client: httpx.AsyncClient, token: Callable[..., str]
) -> None:
    """A token that may read candles alone is told which scope it lacks."""
    headers = {"Authorization": f"Bearer {token('candles:read')}"}
    answer = await client.get("/coverage", headers=headers)

    assert answer.status_code == 403
    assert "meta:read" in answer.json()["detail"]


async def test_series_asked_for_is_told_as_the_store_knows_it(client: httpx.AsyncClient) -> None:
    """A fetched series is listed with the bounds of its own `/coverage`."""
    path = "binance/perp/BTC-USDT/1h"
    window = {"start": "2024-05-01", "end": "2024-05-02"}
    await client.get(f"/candles/{path}", params=window)
    parts = (await client.get(f"/coverage/{path}")).json()["windows"]
    covered = [part for part in parts if part["state"] == "covered"]
    (series,) = (await client.get("/coverage")).json()["series"]

    assert (series["start"], series["end"]) == (covered[0]["start"], covered[-1]["end"])
    hours = sum(part["end"] - part["start"] for part in covered) // 3_600_000
    assert series["covered_slots"] == hours
