"""Answers on their way: in every form, from every cache, to clients of every kind."""

import asyncio
import io
import logging
import socket
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator
from contextlib import asynccontextmanager, contextmanager, suppress
from datetime import UTC, datetime, timedelta
from functools import partial
from itertools import pairwise, product
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import psycopg
import pytest
import uvicorn
from conftest import (
    HOST,
    Sandbox,
    app_of,
    checked_out,
    connected,
    eventually,
    opened_services,
    token_of,
)
from pyarrow import ipc, parquet

from mdp_core.answer import CandleQuery
from mdp_core.clock import to_ms
from mdp_core.logs import log_config
from mdp_core.model import Candles, Window
from mdp_core.settings import LogSettings, Settings
from mdp_core.wiring import Services

_BTC = "/candles/binance/perp/BTC-USDT/1m"
_LATEST = "/latest/binance/perp/BTC-USDT/1d"
_DAY = {"start": "2024-05-01", "end": "2024-05-02"}
_QUERY = CandleQuery(
    *("binance", "perp", "BTC-USDT", "1m"),
    start=datetime(2024, 5, 1, tzinfo=UTC),
    end=datetime(2024, 5, 2, tzinfo=UTC),
)
_START = datetime(2022, 1, 1, tzinfo=UTC)
_MANY = 300_000
_LONGEST_SECONDS = 0.02
_FORMATS = ("json", "ndjson", "csv", "arrow", "parquet")
_PLAIN = {"Accept-Encoding": "identity"}
_WAITING_FOR_LOCK = """
SELECT FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()
"""
_REPLACE_CLOSE = "UPDATE candles SET close = high WHERE time = '2024-05-01 12:00Z'"


def _times(body: bytes, name: str) -> list[int]:
    match name:
        case "json":
            return [row[0] for row in httpx.Response(200, content=body).json()["candles"]]
        case "ndjson":
            return [int(line.split(b",")[0].rpartition(b":")[2]) for line in body.splitlines()]
        case "csv":
            return [int(line.split(b",")[0]) for line in body.splitlines()[1:]]
        case "arrow":
            return ipc.open_stream(body).read_all()["time"].cast("int64").to_pylist()
        case _:
            return parquet.read_table(io.BytesIO(body))["time"].cast("int64").to_pylist()


async def _fill(services: Services, count: int) -> Window:
    """Store candles without asking an exchange for them; give their window."""
    query = CandleQuery("binance", "perp", "BTC-USDT", "1m", limit=1)
    series = (await services.candles.get(query)).series
    window = Window(_START, _START + timedelta(minutes=count))
    times = series.grid.times(series.grid.index(window.start), series.grid.index(window.end))
    prices = np.random.default_rng(1).uniform(1, 60_000, count)
    await services.store.save(series.id, [window], Candles(times, *(prices,) * 7))
    return window


def _bounds(window: Window) -> dict[str, int]:
    return {"start": to_ms(window.start), "end": to_ms(window.end)}


@pytest.mark.parametrize("name", _FORMATS)
async def test_every_format_says_what_json_says(client: httpx.AsyncClient, name: str) -> None:
    """The same candles, and in the headers what JSON has in its body."""
    expected = (await client.get(_BTC, params={**_DAY, "limit": 700})).json()
    answer = await client.get(_BTC, params={**_DAY, "limit": 700, "format": name})

    assert _times(answer.content, name) == [row[0] for row in expected["candles"]]
    assert answer.headers["X-Window-Start"] == str(expected["start"])
    assert answer.headers["X-Window-End"] == str(expected["end"])
    assert answer.headers["X-Settled-Until"] == str(expected["settled_until"])
    assert answer.headers["X-Complete"] == "true"
    assert answer.links["next"]["url"].replace(f"&format={name}", "") == expected["next"]


async def test_header_chooses_the_format_and_the_parameter_overrules_it(
    client: httpx.AsyncClient,
) -> None:
    """What can't be had is refused, with what there is."""
    csv = await client.get(_BTC, params=_DAY, headers={"Accept": "text/csv, */*;q=0.1"})
    json = await client.get(_BTC, params={**_DAY, "format": "json"}, headers={"Accept": "text/csv"})
    refused = await client.get(_BTC, params=_DAY, headers={"Accept": "image/png"})
    unknown = await client.get(_BTC, params={**_DAY, "format": "xlsx"})

    assert csv.headers["Content-Type"] == "text/csv; charset=utf-8"
    assert json.headers["Content-Type"] == "application/json"
    assert (refused.status_code, refused.json()["code"]) == (406, "not_acceptable")
    assert (unknown.status_code, unknown.json()["code"]) == (422, "invalid_parameter")


@pytest.mark.parametrize("coding", ["gzip", "zstd"])
@pytest.mark.parametrize("count", [500, 45_000])
async def test_compressed_body_is_the_same_body(
    services: Services, client: httpx.AsyncClient, coding: str, count: int
) -> None:
    """As a whole and in chunks; each coding is another entity."""
    window = await _fill(services, count)
    plain = await client.get(_BTC, params=_bounds(window), headers=_PLAIN)
    coded = await client.get(_BTC, params=_bounds(window), headers={"Accept-Encoding": coding})

    assert "Content-Encoding" not in plain.headers
    assert coded.headers["Content-Encoding"] == coding
    assert coded.content == plain.content
    assert coded.headers["ETag"] != plain.headers["ETag"]


async def test_compressed_body_is_made_once_and_logged_as_any_other(
    client: httpx.AsyncClient, caplog: pytest.LogCaptureFixture
) -> None:
    """Whoever asks for the same in the same coding gets what was made before."""
    headers = {"Accept-Encoding": "gzip"}
    with caplog.at_level(logging.INFO, "mdp.requests"):
        answers = [await client.get(_BTC, params=_DAY, headers=headers) for _ in range(2)]
    steps = [answer.headers["Server-Timing"].split(", ") for answer in answers]

    assert answers[0].content == answers[1].content
    assert [vars(record)["rows"] for record in caplog.records] == [1440, 1440]
    assert steps[1][2:] == ["read;dur=0.0", "encode;dur=0.0"]


async def test_any_of_several_lines_of_tags_is_matched(client: httpx.AsyncClient) -> None:
    """Lines of one header are one list."""
    tag = (await client.get(_BTC, params=_DAY)).headers["ETag"]
    headers = [("If-None-Match", '"another"'), ("If-None-Match", tag)]
    again = await client.get(_BTC, params=_DAY, headers=headers)

    assert again.status_code == 304


async def test_parquet_is_coded_only_for_those_who_take_nothing_else(
    client: httpx.AsyncClient,
) -> None:
    """It is compressed in itself; but to refuse would help nobody."""
    params = {**_DAY, "format": "parquet"}
    usual = await client.get(_BTC, params=params, headers={"Accept-Encoding": "gzip"})
    odd = await client.get(_BTC, params=params, headers={"Accept-Encoding": "gzip, identity;q=0"})

    assert "Content-Encoding" not in usual.headers
    assert odd.headers["Content-Encoding"] == "gzip"
    assert odd.content == usual.content


async def test_settled_answer_is_kept_and_found_unchanged(client: httpx.AsyncClient) -> None:
    """Each format, coding, window and choice of columns has a tag of its own."""
    forms = [
        ({**_DAY, "format": name}, {"Accept-Encoding": coding})
        for name in _FORMATS
        for coding in ("identity", "gzip", "zstd")
    ]
    forms += [({**_DAY, "limit": 5}, _PLAIN), ({**_DAY, "fields": "close"}, _PLAIN)]
    tags = set[str]()
    for params, headers in forms:
        answer = await client.get(_BTC, params=params, headers=headers)
        tags.add(tag := answer.headers["ETag"])
        again = await client.get(_BTC, params=params, headers={**headers, "If-None-Match": tag})
        assert answer.headers["Cache-Control"] == "private, max-age=3600"
        assert answer.headers["Vary"] == "Accept, Accept-Encoding, Authorization"
        assert (again.status_code, again.content) == (304, b"")
        assert "Content-Encoding" not in again.headers
        assert {name: again.headers[name] for name in ("ETag", "Vary", "Cache-Control")} == {
            name: answer.headers[name] for name in ("ETag", "Vary", "Cache-Control")
        }

    assert len(tags) == len(forms) - 2  # Parquet is compressed in itself: one entity, not three


async def test_answer_at_the_live_edge_must_be_asked_for_again(client: httpx.AsyncClient) -> None:
    """Another candle closes soon: a client that believed its copy would miss it."""
    newest = await client.get(_BTC, params={"limit": 5, "settled": True})
    open_ended = await client.get(_BTC, params={"start": "2024-05-01", "limit": 5})
    partial = await client.get(_BTC, params={**_DAY, "partial": True})

    assert newest.headers["Cache-Control"] == "private, no-cache"
    assert open_ended.headers["Cache-Control"] == "private, no-cache"
    assert partial.headers["Cache-Control"] == "no-store"
    assert "ETag" not in partial.headers


async def test_repair_elsewhere_shows_in_the_next_answer_from_every_cache(
    settings: Settings, sandbox: Sandbox, database: psycopg.Connection
) -> None:
    """One process has wrong numbers in its memory and its client a tag; another one repairs."""
    async with (
        opened_services(settings, sandbox) as one,
        opened_services(settings, sandbox) as other,
        connected(app_of(one), token_of(settings)) as client,
    ):
        right = (await client.get(_BTC, params=_DAY)).json()
        database.execute(_REPLACE_CLOSE)
        database.execute("UPDATE series SET epoch = epoch + 1")
        wrong = {name: await client.get(_BTC, params={**_DAY, "format": name}) for name in _FORMATS}
        kept = await client.get(_BTC, params=_DAY)
        changed = await other.repair.repair(_QUERY)
        mended = await client.get(
            _BTC, params=_DAY, headers={"If-None-Match": kept.headers["ETag"]}
        )
        after = {
            name: await client.get(
                _BTC,
                params={**_DAY, "format": name},
                headers={"If-None-Match": wrong[name].headers["ETag"]},
            )
            for name in _FORMATS
        }

    assert changed == 1
    assert kept.json()["candles"] != right["candles"]
    assert mended.status_code == 200
    assert mended.json()["candles"] == right["candles"]
    for name in _FORMATS:
        assert after[name].status_code == 200
        assert after[name].content != wrong[name].content


async def test_repair_of_the_newest_candle_shows_in_latest(
    services: Services, client: httpx.AsyncClient, sandbox: Sandbox, database: psycopg.Connection
) -> None:
    """While it is in hand the exchange isn't asked; what was repaired is not in hand any more."""
    first = (await client.get(_LATEST)).json()
    sandbox.clear()
    again = (await client.get(_LATEST)).json()
    asked = sandbox.requests()
    wrong = "UPDATE candles SET close = high + 1, high = high + 1"
    database.execute(wrong)
    database.execute("UPDATE series SET epoch = epoch + 1")
    spoiled = (await client.get(_LATEST)).json()
    await services.repair.repair(CandleQuery("binance", "perp", "BTC-USDT", "1d"))
    mended = (await client.get(_LATEST)).json()

    assert asked == []
    assert first["candle"] == again["candle"] == mended["candle"] != spoiled["candle"]


async def test_repair_replaces_nothing_where_the_exchange_says_the_same(
    services: Services, client: httpx.AsyncClient
) -> None:
    """The caches stay good."""
    before = await client.get(_BTC, params=_DAY)
    changed = await services.repair.repair(_QUERY)
    after = await client.get(_BTC, params=_DAY, headers={"If-None-Match": before.headers["ETag"]})

    assert (changed, after.status_code) == (0, 304)


async def test_repair_between_look_and_rows_costs_no_error(
    client: httpx.AsyncClient, database: psycopg.Connection
) -> None:
    """The rows wait for a lock while the epoch rises: one more look finds what is there now."""
    await client.get(_BTC, params=_DAY)
    with database.transaction():
        database.execute("LOCK TABLE candles IN ACCESS EXCLUSIVE MODE")
        asking = asyncio.create_task(client.get(_BTC, params={**_DAY, "fields": "trades,low"}))
        await eventually(lambda: database.execute(_WAITING_FOR_LOCK).fetchone() is not None)
        database.execute("UPDATE series SET epoch = epoch + 1")
        database.execute(_REPLACE_CLOSE)
    answer = await asking

    assert (answer.status_code, answer.json()["count"]) == (200, 1440)


# --- what a hit costs ---------------------------------------------------------------------------


_UNCOUNTED = 1000


@contextmanager
def _round_trips(services: Services, folder: Path) -> Generator[list[int]]:
    """Count what goes to Postgres on the connections that there are; with others, nothing fits."""
    pool: Any = services.database._pool  # noqa: SLF001 - there is no other way in
    connections, counted = [*pool._pool], list[int]()  # noqa: SLF001 - nothing public tells
    files = [(folder / str(number)).open("w+") for number in range(len(connections))]
    for connection, file in zip(connections, files, strict=True):
        connection.pgconn.trace(file.fileno())
    yield counted
    for connection, file in zip(connections, files, strict=True):
        connection.pgconn.untrace()
        file.seek(0)
        sent = [line for line in file if "\tF\t" in line or line.startswith("F\t")]
        # An empty query is the look at a connection that was idle.
        asked = [line for line in sent if "\tSync" in line or "\tQuery\t" in line]
        counted.append(sum('""' not in line for line in asked))
        file.close()
    if {*pool._pool} != {*connections}:  # noqa: SLF001 - nothing public tells
        counted.append(_UNCOUNTED)


async def _cheapest(
    services: Services, folder: Path, ask: Callable[[], Awaitable[httpx.Response]]
) -> tuple[int, httpx.Response]:
    """Ask three times and count the round trips of the cheapest: timers use the database too."""
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
        _DAY,
        {"start": "2024-05-01", "limit": 1000},
        {"end": "2024-05-02", "limit": 1000},
    ],
    ids=["window", "first rows", "last rows"],
)
async def test_hit_costs_two_round_trips_and_from_memory_one(
    services: Services, client: httpx.AsyncClient, tmp_path: Path, params: dict[str, Any]
) -> None:
    """One for coverage, one for rows; what is in memory needs the first only."""
    await client.get(_BTC, params=params)
    fields = iter(("open", "high", "close"))
    stored, hit = await _cheapest(
        services,
        tmp_path,
        lambda: client.get(_BTC, params={**params, "fields": next(fields)}),
    )
    kept, again = await _cheapest(
        services, tmp_path, lambda: client.get(_BTC, params={**params, "fields": "close"})
    )

    assert hit.headers["X-Cache"] == again.headers["X-Cache"] == "hit"
    assert hit.content == again.content
    assert (stored, kept) == (2, 1)


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
    window = await _fill(services, 60_000)
    part = Window(window.start + timedelta(days=20), window.start + timedelta(days=21))
    for name in _FORMATS:
        await client.get(_BTC, params={**_bounds(window), "format": name}, headers=_PLAIN)
        params = {**_bounds(part), "format": name}
        trips, cut = await _cheapest(services, tmp_path, partial(client.get, _BTC, params=params))

        assert trips == 1
        assert _times(cut.content, name) == list(range(to_ms(part.start), to_ms(part.end), 60_000))


async def test_parts_of_a_block_that_are_asked_for_in_turn_grow_together(
    services: Services, client: httpx.AsyncClient, tmp_path: Path
) -> None:
    """What lies between two of them is read with the second, and is in memory then."""
    window = await _fill(services, 20_000)
    start = to_ms(window.start)

    async def ask(first: int, stop: int) -> httpx.Response:
        bounds = {"start": start + first * 60_000, "end": start + stop * 60_000}
        return await client.get(_BTC, params=bounds, headers=_PLAIN)

    await ask(1_000, 2_000)
    await ask(8_000, 9_000)
    trips = list[int]()
    for first, stop in ((7_000, 8_500), (1_500, 3_000), (5_000, 6_000)):
        with _round_trips(services, tmp_path) as counted:
            answer = await ask(first, stop)
            await asyncio.sleep(0.05)
        trips.append(sum(counted))
        times = _times(answer.content, "json")

        assert times == list(range(start + first * 60_000, start + stop * 60_000, 60_000))
    assert min(trips) == 1  # timers use the database too


async def test_what_is_not_covered_between_two_parts_is_never_taken_for_empty(
    client: httpx.AsyncClient,
) -> None:
    """Two days of one block are stored, a week apart; then the week is asked for."""
    first, last = ({"start": f"2024-04-{day}", "end": f"2024-04-{day + 1}"} for day in (21, 28))
    week = {"start": first["start"], "end": last["end"]}
    for params in (first, last, first):
        part = await client.get(_BTC, params=params, headers=_PLAIN)
        assert part.json()["count"] == 1440
    whole = await client.get(_BTC, params=week, headers=_PLAIN)

    assert (whole.headers["X-Cache"], whole.json()["count"]) == ("partial", 8 * 1440)


async def test_clients_that_ask_for_the_same_share_each_reading(
    services: Services, client: httpx.AsyncClient, tmp_path: Path
) -> None:
    """However many come at once, every block is read once."""
    window = _bounds(await _fill(services, 100_000))

    async def ask_together(field: str) -> list[httpx.Response]:
        params = {**window, "fields": field}
        asks = (client.get(_BTC, params=params, headers=_PLAIN) for _ in range(20))
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
    """Streams wait for their turn outside the pool, where nobody is told to come back."""
    few = settings.model_copy(update={"pool_size": 6, "block_memory_mb": 0})
    async with opened_services(few, sandbox) as services:
        window = _bounds(await _fill(services, 100_000))
        pool: Any = services.database._pool  # noqa: SLF001 - there is no other way in
        waiting = list[int]()
        async with connected(app_of(services), token_of(few)) as client:
            fields = ("open", "high", "low", "close", "volume", "open,high", "open,low")
            streams = [
                asyncio.create_task(
                    client.get(_BTC, params={**window, "fields": each}, headers=_PLAIN)
                )
                for each in fields
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
    window = _bounds(await _fill(services, 100_000))
    ask = partial(client.get, _BTC, params={**window, "fields": "low"}, headers=_PLAIN)
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
    window = _bounds(await _fill(services, 150_000))
    for name in ("json", "ndjson", "csv", "arrow"):
        params = {**window, "format": name}
        first = await client.get(_BTC, params=params, headers=_PLAIN)
        again = await client.get(_BTC, params=params, headers=_PLAIN)

        assert "Content-Length" not in first.headers
        assert again.headers["Content-Length"] == str(len(first.content))
        assert again.content == first.content


async def test_window_without_candles_is_read_once(
    services: Services, client: httpx.AsyncClient, database: psycopg.Connection, tmp_path: Path
) -> None:
    """That there is nothing is kept like anything else, and tells a length too."""
    window = _bounds(await _fill(services, 45_000))
    database.execute("DELETE FROM candles WHERE time < '2022-02-01'")
    await client.get(_BTC, params=window, headers=_PLAIN)
    answer = await client.get(_BTC, params=window, headers=_PLAIN)
    short = {"start": window["start"], "end": window["start"] + 600 * 60_000}
    trips, empty = await _cheapest(services, tmp_path, partial(client.get, _BTC, params=short))

    assert answer.headers["Content-Length"] == str(len(answer.content))
    assert (trips, empty.json()["count"]) == (1, 0)


async def test_every_answer_times_all_four_steps(client: httpx.AsyncClient) -> None:
    """From memory, of nothing, and where the client has it already."""
    answers = [await client.get(_BTC, params=_DAY) for _ in range(2)]
    tag = {"If-None-Match": answers[0].headers["ETag"]}
    answers.append(await client.get(_BTC, params=_DAY, headers={**tag, "Accept-Encoding": "gzip"}))
    answers.append(await client.get(_BTC, params={"start": "2024-05-01", "end": "2024-05-01"}))
    for answer in answers:
        steps = [step.partition(";")[0] for step in answer.headers["Server-Timing"].split(", ")]

        assert steps == ["plan", "fetch", "read", "encode"]


@pytest.mark.parametrize("path", [_BTC, _LATEST, "/health", "/meta/exchanges", "/nowhere"])
async def test_head_tells_what_get_would(client: httpx.AsyncClient, path: str) -> None:
    """Also where the answer is long; without a body."""
    params = _DAY if path == _BTC else {}
    got = await client.get(path, params=params)
    head = await client.head(path, params=params)
    differ = {"x-request-id", "server-timing", "x-cache", "x-upstream-requests"}
    if path in {"/health", _LATEST}:
        differ.add("content-length")  # what they tell changes

    assert (head.status_code, head.content) == (got.status_code, b"")
    assert {n: v for n, v in head.headers.items() if n not in differ} == {
        n: v for n, v in got.headers.items() if n not in differ
    }


async def test_head_of_a_long_answer_is_not_written(services: Services, settings: Settings) -> None:
    """The headers come, the connection is good for more, and few pieces were read."""
    params = _bounds(await _fill(services, _MANY))
    before = _reads(services)
    authorization = {"Authorization": f"Bearer {token_of(settings)}"}
    async with (
        _served(services) as port,
        httpx.AsyncClient(base_url=f"http://{HOST}:{port}", headers=authorization) as client,
    ):
        head = await client.head(_BTC, params=params)
        again = await client.head(_BTC, params=params)
        await eventually(lambda: checked_out(services) == 0)

    assert (head.status_code, again.status_code) == (200, 200)
    assert head.headers["ETag"] == again.headers["ETag"]
    assert _reads(services) - before < 12


# --- clients of every kind ----------------------------------------------------------------------


@asynccontextmanager
async def _served(services: Services) -> AsyncGenerator[int]:
    """Serve over TCP, on this loop; give the port."""
    config = uvicorn.Config(
        app_of(services), log_config=None, ws="none", timeout_graceful_shutdown=1
    )
    server = uvicorn.Server(config)
    with socket.create_server((HOST, 0)) as listener:
        serving = asyncio.create_task(server.serve([listener]))
        try:
            yield listener.getsockname()[1]
        finally:
            server.should_exit = True
            await serving


@asynccontextmanager
async def _asked(
    port: int, settings: Settings, params: dict[str, Any]
) -> AsyncGenerator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """Send a request; nothing of the answer is read but what the caller reads."""
    reader, writer = await asyncio.open_connection(HOST, port, limit=1)
    query = "&".join(f"{name}={value}" for name, value in params.items())
    token = f"Authorization: Bearer {token_of(settings)}"
    writer.write("\r\n".join([f"GET {_BTC}?{query} HTTP/1.1", "Host: mdp", token, "", ""]).encode())
    try:
        yield reader, writer
    finally:
        writer.transport.abort()
        with suppress(ConnectionError):
            await writer.wait_closed()


def _reads(services: Services) -> int:
    return services.database._pool.get_stats()["requests_num"]  # noqa: SLF001 - nothing public tells


@pytest.mark.parametrize("behaviour", ["stops reading", "reads a byte now and then", "leaves"])
async def test_slow_client_holds_nothing(
    settings: Settings, services: Services, behaviour: str
) -> None:
    """No connection, and no more than a few pieces of what it does not take."""
    params = _bounds(await _fill(services, _MANY))
    before = _reads(services)
    async with _served(services) as port, _asked(port, settings, params) as (reader, writer):
        assert await reader.readexactly(12) == b"HTTP/1.1 200"
        if behaviour == "leaves":
            writer.transport.abort()
        for _ in range(10):
            if behaviour == "reads a byte now and then":
                await reader.readexactly(1)
            await asyncio.sleep(0.1)
        await eventually(lambda: checked_out(services) == 0)

        # The answer has 16 pieces; those that the kernel's buffers took count too.
        assert _reads(services) - before < 14


async def test_leaving_clients_cost_no_connection(
    settings: Settings, services: Services, caplog: pytest.LogCaptureFixture
) -> None:
    """Queries that nobody waits for any more are cancelled, and the pool keeps what it has."""
    window = await _fill(services, _MANY)
    columns = ("open", "high", "low", "close", "volume", "trades")
    with caplog.at_level(logging.WARNING, "psycopg"):
        async with _served(services) as port:
            for name, delay in product(columns, (0.0, 0.02, 0.05)):
                params = {**_bounds(window), "format": "arrow", "fields": name}
                async with _asked(port, settings, params) as (reader, writer):
                    assert await reader.readexactly(12) == b"HTTP/1.1 200"
                    await asyncio.sleep(delay)
                    writer.transport.abort()
            await eventually(lambda: checked_out(services) == 0)

    assert [record.getMessage() for record in caplog.records if "psycopg" in record.name] == []


async def test_answer_that_fails_on_its_way_does_not_end_cleanly(
    settings: Settings,
    services: Services,
    database: psycopg.Connection,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Half of it is sent when the rest is replaced: no client must take that for the whole.

    It happens as it should: the log warns of it, in one line, and speaks of no mistake.
    """
    params = _bounds(await _fill(services, _MANY))
    unknown = log_config(LogSettings(), is_terminal=False)["filters"]["unknown"]["()"]()
    logging.getLogger("uvicorn.error").addFilter(unknown)
    async with _served(services) as port, _asked(port, settings, params) as (reader, _):
        assert await reader.readexactly(12) == b"HTTP/1.1 200"
        await eventually(lambda: checked_out(services) == 0)
        database.execute("UPDATE series SET epoch = epoch + 1")
        rest = b""
        with suppress(ConnectionError):
            rest = await asyncio.wait_for(reader.read(-1), 60)

        assert not rest.endswith(b"\r\n0\r\n\r\n")
        assert rest.count(b"[") < _MANY
    logging.getLogger("uvicorn.error").removeFilter(unknown)
    worse = [each.getMessage() for each in caplog.records if each.levelno > logging.INFO]

    assert len(worse) == 1
    assert "was repaired" in worse[0]
    assert all(each.levelno <= logging.WARNING for each in caplog.records)


@contextmanager
def _watchdog() -> Generator[list[tuple[float, str]]]:
    """List the CPU seconds of every callback of the event loop that took much, and which it was.

    CPU time, since on a busy machine any callback may be kept waiting.
    """
    long = list[tuple[float, str]]()
    run = asyncio.Handle._run  # noqa: SLF001 - the loop offers no other way to see them

    def watched(handle: asyncio.Handle) -> None:
        begun = time.thread_time()
        run(handle)
        spent = time.thread_time() - begun
        if spent >= _LONGEST_SECONDS:
            long.append((spent, repr(handle)))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(asyncio.Handle, "_run", watched)
        yield long


async def _is_blocked(ask: Callable[[], httpx.Response]) -> list[list[tuple[float, str]]]:
    """Ask twice; give what blocked both times, if anything did.

    What blocks does so every time; a pause that comes once is the collector's or the machine's.
    """
    blocked: list[list[tuple[float, str]]] = []
    for _ in range(2):
        with _watchdog() as long:
            answer = await asyncio.to_thread(ask)
        assert answer.status_code == 200, answer.text
        blocked.append(long)
    return blocked if all(blocked) else []


async def test_nothing_blocks_the_event_loop(settings: Settings, services: Services) -> None:
    """No callback takes 20 ms, from Postgres or from memory, in any format or coding."""
    window = _bounds(await _fill(services, 100_000))
    async with _served(services) as port:
        url = f"http://{HOST}:{port}{_BTC}"
        authorization = f"Bearer {token_of(settings)}"
        for name, coding in product(_FORMATS, ("identity", "identity", "gzip", "zstd")):
            headers = {"Authorization": authorization, "Accept-Encoding": coding}
            params = {**window, "format": name}
            assert not await _is_blocked(partial(httpx.get, url, params=params, headers=headers))


async def test_nothing_else_blocks_the_event_loop(
    settings: Settings, services: Services, database: psycopg.Connection
) -> None:
    """Coverage whose every slot is another window than the next, long lists, a plan for all."""
    window = _bounds(await _fill(services, 100_000))
    database.execute("DELETE FROM candles WHERE extract(minute FROM time)::int % 2 = 0")
    every = {"exchange": "binance", "market_type": "perp", "symbols": ["*"], "intervals": ["1h"]}
    headers = {"Authorization": f"Bearer {token_of(settings)}"}
    async with _served(services) as port:
        client = httpx.Client(base_url=f"http://{HOST}:{port}", headers=headers, timeout=60)
        coverage = f"/coverage{_BTC.removeprefix('/candles')}"
        asks: list[Callable[[], httpx.Response]] = [
            partial(client.get, coverage, params={**window, "detail": True}),
            partial(client.get, "/meta/symbols", params={"limit": 5000}),
            partial(client.post, "/backfills", json={**every, "dry_run": True}),
        ]
        with client:
            for ask in asks:
                assert not await _is_blocked(ask)


async def test_coverage_in_detail_is_told_page_by_page(
    services: Services, client: httpx.AsyncClient, database: psycopg.Connection
) -> None:
    """All pages together are the whole window, without holes and without an end amid a slot."""
    window = _bounds(await _fill(services, 25_000))
    database.execute("DELETE FROM candles WHERE extract(minute FROM time)::int % 2 = 0")
    bounds = f"start={window['start']}&end={window['end']}&detail=true"
    path: str | None = f"/coverage{_BTC.removeprefix('/candles')}?{bounds}"
    windows, pages = list[dict[str, Any]](), 0
    while path:
        body = (await client.get(path)).json()
        windows, path, pages = windows + body["windows"], body["next"], pages + 1

    assert pages == 3
    assert len(windows) == 25_000
    assert windows[0]["start"] == window["start"]
    assert windows[-1]["end"] == window["end"]
    assert all(one["end"] == other["start"] for one, other in pairwise(windows))
    assert {(w["start"] // 60_000 % 2, w["state"]) for w in windows} == {
        (0, "no_candles"),
        (1, "candles"),
    }
