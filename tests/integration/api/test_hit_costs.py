"""The cost of a hit: round trips, reads and connections, counted on a real server."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Generator
from contextlib import AbstractContextManager, contextmanager
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import psycopg
import pytest
from support.http import connected
from support.sandbox import Sandbox
from support.services import app_of, checked_out, opened_services, token_of
from support.stored_candles import BTC, DAY, FORMATS, PLAIN, bounds_of, fill, times_of
from support.waiting import eventually

from mdp_core.domain.clock import to_ms
from mdp_core.domain.windows import Window
from mdp_core.settings import Settings
from mdp_core.wiring import Services

_UNCOUNTED = 1000


def _round_trip(line: str) -> bool:
    return "\tSync" in line or _is_query(line)


def _statement(line: str) -> bool:
    return "\tExecute\t" in line or _is_query(line)


def _is_query(line: str) -> bool:
    # An empty one is the look at a connection that was idle.
    return "\tQuery\t" in line and '""' not in line


@contextmanager
def _counted(
    services: Services, folder: Path, counts: Callable[[str], bool]
) -> Generator[list[int]]:
    """Count statements on the connections in use; no other connection is needed."""
    pool: Any = services.database._pool  # noqa: SLF001 - there is no other way in
    filler: Any = services.markets["binance", "perp"].filler
    claims = filler._claims._connection._connection  # noqa: SLF001 - there is no other way in
    pooled, counted = [*pool._pool], list[int]()  # noqa: SLF001 - nothing public tells
    connections = [*pooled, *([claims] if claims else [])]
    files = [(folder / str(number)).open("w+") for number in range(len(connections))]
    for connection, file in zip(connections, files, strict=True):
        connection.pgconn.trace(file.fileno())
    yield counted
    for connection, file in zip(connections, files, strict=True):
        connection.pgconn.untrace()
        file.seek(0)
        sent = [line for line in file if "\tF\t" in line or line.startswith("F\t")]
        counted.append(sum(map(counts, sent)))
        file.close()
    if {*pool._pool} != {*pooled}:  # noqa: SLF001 - nothing public tells
        counted.append(_UNCOUNTED)


def _round_trips(services: Services, folder: Path) -> AbstractContextManager[list[int]]:
    return _counted(services, folder, _round_trip)


async def _cheapest(
    services: Services, folder: Path, ask: Callable[[], Awaitable[httpx.Response]]
) -> tuple[int, httpx.Response]:
    """Ask three times, count the round trips of the cheapest: timers use the database."""
    asked: list[tuple[int, httpx.Response]] = []
    for _ in range(3):
        with _round_trips(services, folder) as counted:
            answer = await ask()
            await asyncio.sleep(0.05)  # the pool takes a connection back in the background
        asked.append((sum(counted), answer))
    return min(trips for trips, _ in asked), asked[-1][1]


@pytest.mark.parametrize(
    "params",
    [
        DAY,
        {"start": "2024-05-01", "limit": 1000},
        {"end": "2024-05-02", "limit": 1000},
    ],
    ids=["window", "first rows", "last rows"],
)
async def test_hit_costs_two_round_trips_and_from_memory_one(
    services: Services, client: httpx.AsyncClient, tmp_path: Path, params: dict[str, Any]
) -> None:
    """One for coverage, one for rows; what is in memory needs the first only."""
    await client.get(BTC, params=params)
    fields = iter(("open", "high", "close"))
    stored, hit = await _cheapest(
        services,
        tmp_path,
        lambda: client.get(BTC, params={**params, "fields": next(fields)}),
    )
    kept, again = await _cheapest(
        services, tmp_path, lambda: client.get(BTC, params={**params, "fields": "close"})
    )

    assert hit.headers["X-Cache"] == again.headers["X-Cache"] == "hit"
    assert hit.content == again.content
    assert (stored, kept) == (2, 1)


async def test_cold_page_costs_thirteen_statements_at_most(
    services: Services, client: httpx.AsyncClient, tmp_path: Path
) -> None:
    """With BEGIN, COPY and COMMIT; the release of its claim comes after the answer."""
    counted = dict[str, list[int]](statements=[], round_trips=[])
    await client.get(BTC, params={"end": "2024-05-01", "limit": 499})  # opens what stays open
    for day in range(1, 9):
        name = "statements" if day % 2 else "round_trips"
        counts = _statement if day % 2 else _round_trip
        params = {"start": f"2024-06-{day:02}", "end": f"2024-06-{day:02}T00:05"}
        with _counted(services, tmp_path, counts) as sent:
            answer = await client.get(BTC, params=params)
            await asyncio.sleep(0.05)  # the pool takes a connection back in the background
        assert answer.headers["X-Cache"] == "miss"
        counted[name].append(sum(sent))

    assert min(counted["statements"]) <= 13
    assert min(counted["round_trips"]) <= 12  # that of the release is waited for by none


@pytest.mark.parametrize(
    ("params", "most"),
    [({"limit": 1}, 1), ({"limit": 5}, 2), ({"start": -20, "limit": 10}, 2)],
    ids=["newest", "newest five", "first of a window that reaches the edge"],
)
async def test_hit_with_an_unsettled_tail_costs_as_little(
    services: Services, client: httpx.AsyncClient, tmp_path: Path, params: dict[str, int], most: int
) -> None:
    """At Coinbase the newest minute is unsettled nearly always."""
    path = "/candles/coinbase/spot/BTC-USD/1m"
    if "start" in params:
        params = {**params, "start": int(time.time()) * 1000 + params["start"] * 60_000}
    await client.get(path, params={"limit": 500})
    trips, hit = await _cheapest(services, tmp_path, partial(client.get, path, params=params))

    assert hit.status_code == 200
    assert trips <= most


async def test_window_inside_a_block_in_memory_is_cut_from_it(
    services: Services, client: httpx.AsyncClient, tmp_path: Path
) -> None:
    """Whatever part of it, in whatever format, the rows are not read again."""
    window = await fill(services, 60_000)
    part = Window(window.start + timedelta(days=20), window.start + timedelta(days=21))
    for name in FORMATS:
        await client.get(BTC, params={**bounds_of(window), "format": name}, headers=PLAIN)
        params = {**bounds_of(part), "format": name}
        trips, cut = await _cheapest(services, tmp_path, partial(client.get, BTC, params=params))

        assert trips == 1
        assert times_of(cut.content, name) == list(
            range(to_ms(part.start), to_ms(part.end), 60_000)
        )


async def test_parts_of_a_block_that_are_asked_for_in_turn_grow_together(
    services: Services, client: httpx.AsyncClient, tmp_path: Path
) -> None:
    """Rows between two of them are read with the second, and are in memory then."""
    window = await fill(services, 20_000)
    start = to_ms(window.start)

    async def ask(first: int, stop: int) -> httpx.Response:
        bounds = {"start": start + first * 60_000, "end": start + stop * 60_000}
        return await client.get(BTC, params=bounds, headers=PLAIN)

    await ask(1_000, 2_000)
    await ask(8_000, 9_000)
    trips = list[int]()
    for first, stop in ((7_000, 8_500), (1_500, 3_000), (5_000, 6_000)):
        with _round_trips(services, tmp_path) as counted:
            answer = await ask(first, stop)
            await asyncio.sleep(0.05)
        trips.append(sum(counted))
        times = times_of(answer.content, "json")

        assert times == list(range(start + first * 60_000, start + stop * 60_000, 60_000))
    assert min(trips) == 1  # timers use the database too


async def test_what_is_not_covered_between_two_parts_is_never_taken_for_empty(
    client: httpx.AsyncClient,
) -> None:
    """Two days of one block are stored, a week apart; then the week is asked for."""
    first, last = ({"start": f"2024-04-{day}", "end": f"2024-04-{day + 1}"} for day in (21, 28))
    week = {"start": first["start"], "end": last["end"]}
    for params in (first, last, first):
        part = await client.get(BTC, params=params, headers=PLAIN)
        assert part.json()["count"] == 1440
    whole = await client.get(BTC, params=week, headers=PLAIN)

    assert (whole.headers["X-Cache"], whole.json()["count"]) == ("partial", 8 * 1440)


async def test_clients_that_ask_for_the_same_share_each_reading(
    services: Services, client: httpx.AsyncClient, tmp_path: Path
) -> None:
    """However many come at once, every block is read once."""
    window = bounds_of(await fill(services, 100_000))

    async def ask_together(field: str) -> list[httpx.Response]:
        params = {**window, "fields": field}
        asks = (client.get(BTC, params=params, headers=PLAIN) for _ in range(20))
        return await asyncio.gather(*asks)

    trips = list[int]()
    for field in ("open", "high", "low", "close"):  # the pool grows to what this takes
        with _round_trips(services, tmp_path) as counted:
            answers = await ask_together(field)
            await asyncio.sleep(0.05)
        trips.append(sum(counted))
        assert len({answer.content for answer in answers}) == 1

    # Six blocks at the most, the look that all share, and a timer's now and then.
    assert min(trips) < 15


async def test_long_answers_leave_connections_to_others(
    settings: Settings, sandbox: Sandbox
) -> None:
    """Streams wait for their turn outside the pool, where no request times out."""
    few = settings.model_copy(update={"pool_size": 6, "block_memory_mb": 0})
    async with opened_services(few, sandbox) as services:
        window = bounds_of(await fill(services, 100_000))
        pool: Any = services.database._pool  # noqa: SLF001 - there is no other way in
        waiting = list[int]()
        async with connected(app_of(services), token_of(few)) as client:
            fields = ("open", "high", "low", "close", "volume", "open,high", "open,low")
            streams = [
                asyncio.create_task(
                    client.get(BTC, params={**window, "fields": field}, headers=PLAIN)
                )
                for field in fields
            ]
            while not all(stream.done() for stream in streams):
                waiting.append(pool.get_stats()["requests_waiting"])
                await asyncio.sleep(0.005)

    assert {stream.result().status_code for stream in streams} == {200}
    assert max(waiting) <= 3


async def test_client_that_leaves_takes_no_reading_from_others(
    services: Services, client: httpx.AsyncClient
) -> None:
    """Two wait for the same; one of them goes."""
    window = bounds_of(await fill(services, 100_000))
    ask = partial(client.get, BTC, params={**window, "fields": "low"}, headers=PLAIN)
    leaving, staying = asyncio.create_task(ask()), asyncio.create_task(ask())
    await asyncio.sleep(0.02)
    leaving.cancel()
    answer = await staying

    assert (answer.status_code, answer.json()["count"]) == (200, 100_000)
    await eventually(lambda: checked_out(services) == 0)


async def test_long_answer_from_memory_tells_its_length(
    services: Services, client: httpx.AsyncClient
) -> None:
    """A client sees by it whether it got everything; more blocks than are made ahead."""
    window = bounds_of(await fill(services, 150_000))
    for name in ("json", "ndjson", "csv", "arrow"):
        params = {**window, "format": name}
        first = await client.get(BTC, params=params, headers=PLAIN)
        again = await client.get(BTC, params=params, headers=PLAIN)

        assert "Content-Length" not in first.headers
        assert again.headers["Content-Length"] == str(len(first.content))
        assert again.content == first.content


async def test_window_without_candles_is_read_once(
    services: Services, client: httpx.AsyncClient, database: psycopg.Connection, tmp_path: Path
) -> None:
    """That there is nothing is kept like anything else, and tells a length too."""
    window = bounds_of(await fill(services, 45_000))
    database.execute("DELETE FROM candles WHERE time < '2022-02-01'")
    await client.get(BTC, params=window, headers=PLAIN)
    answer = await client.get(BTC, params=window, headers=PLAIN)
    short = {"start": window["start"], "end": window["start"] + 600 * 60_000}
    trips, empty = await _cheapest(services, tmp_path, partial(client.get, BTC, params=short))

    assert answer.headers["Content-Length"] == str(len(answer.content))
    assert (trips, empty.json()["count"]) == (1, 0)


async def test_every_answer_times_all_four_steps(client: httpx.AsyncClient) -> None:
    """From memory, of nothing, and where the client has it already."""
    answers = [await client.get(BTC, params=DAY) for _ in range(2)]
    tag = {"If-None-Match": answers[0].headers["ETag"]}
    answers.append(await client.get(BTC, params=DAY, headers={**tag, "Accept-Encoding": "gzip"}))
    answers.append(await client.get(BTC, params={"start": "2024-05-01", "end": "2024-05-01"}))
    for answer in answers:
        steps = [step.partition(";")[0] for step in answer.headers["Server-Timing"].split(", ")]

        assert steps == ["plan", "fetch", "read", "encode"]
