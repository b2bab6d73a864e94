"""Answers on their way: in each form, from each cache, before and after a repair."""

import asyncio
import logging
from datetime import UTC, datetime

import httpx
import psycopg
import pytest
from support.http import connected
from support.sandbox import Sandbox
from support.services import app_of, opened_services, token_of
from support.stored_candles import BTC, DAY, FORMATS, PLAIN, RAISE_EPOCH, bounds_of, fill, times_of
from support.waiting import eventually

from mdp_core.domain.queries import CandleQuery
from mdp_core.service.mending import RepairReport
from mdp_core.settings import Settings
from mdp_core.wiring import Services

_LATEST = "/latest/binance/perp/BTC-USDT/1d"
_QUERY = CandleQuery(
    *("binance", "perp", "BTC-USDT", "1m"),
    start=datetime(2024, 5, 1, tzinfo=UTC),
    end=datetime(2024, 5, 2, tzinfo=UTC),
)
_WAITING_FOR_LOCK = """
SELECT FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()
"""
_REPLACE_CLOSE = "UPDATE candles SET close = high WHERE time = '2024-05-01 12:00Z'"


@pytest.mark.parametrize("name", FORMATS)
async def test_every_format_says_what_json_says(client: httpx.AsyncClient, name: str) -> None:
    """The same candles, and in the headers what JSON has in its body."""
    expected = (await client.get(BTC, params={**DAY, "limit": 700})).json()
    answer = await client.get(BTC, params={**DAY, "limit": 700, "format": name})

    assert times_of(answer.content, name) == [row[0] for row in expected["candles"]]
    assert answer.headers["X-Window-Start"] == str(expected["start"])
    assert answer.headers["X-Window-End"] == str(expected["end"])
    assert answer.headers["X-Settled-Until"] == str(expected["settled_until"])
    assert answer.headers["X-Complete"] == "true"
    assert answer.links["next"]["url"].replace(f"&format={name}", "") == expected["next"]


async def test_header_chooses_the_format_and_the_parameter_overrules_it(
    client: httpx.AsyncClient,
) -> None:
    """An unknown column is refused, naming the known ones."""
    csv = await client.get(BTC, params=DAY, headers={"Accept": "text/csv, */*;q=0.1"})
    json = await client.get(BTC, params={**DAY, "format": "json"}, headers={"Accept": "text/csv"})
    refused = await client.get(BTC, params=DAY, headers={"Accept": "image/png"})
    unknown = await client.get(BTC, params={**DAY, "format": "xlsx"})

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
    window = await fill(services, count)
    plain = await client.get(BTC, params=bounds_of(window), headers=PLAIN)
    coded = await client.get(BTC, params=bounds_of(window), headers={"Accept-Encoding": coding})

    assert "Content-Encoding" not in plain.headers
    assert coded.headers["Content-Encoding"] == coding
    assert coded.content == plain.content
    assert coded.headers["ETag"] != plain.headers["ETag"]


async def test_compressed_body_is_made_once_and_logged_as_any_other(
    client: httpx.AsyncClient, caplog: pytest.LogCaptureFixture
) -> None:
    """The same request in the same coding gets what was made before."""
    headers = {"Accept-Encoding": "gzip"}
    with caplog.at_level(logging.INFO, "mdp.requests"):
        answers = [await client.get(BTC, params=DAY, headers=headers) for _ in range(2)]
    steps = [answer.headers["Server-Timing"].split(", ") for answer in answers]

    assert answers[0].content == answers[1].content
    assert [vars(record)["rows"] for record in caplog.records] == [1440, 1440]
    assert steps[1][2:] == ["read;dur=0.0", "encode;dur=0.0"]


async def test_any_of_several_lines_of_tags_is_matched(client: httpx.AsyncClient) -> None:
    """Lines of one header are one list."""
    tag = (await client.get(BTC, params=DAY)).headers["ETag"]
    headers = [("If-None-Match", '"another"'), ("If-None-Match", tag)]
    again = await client.get(BTC, params=DAY, headers=headers)

    assert again.status_code == 304


async def test_parquet_is_coded_only_for_those_who_take_nothing_else(
    client: httpx.AsyncClient,
) -> None:
    """It is compressed in itself; refusing would help no client."""
    params = {**DAY, "format": "parquet"}
    usual = await client.get(BTC, params=params, headers={"Accept-Encoding": "gzip"})
    odd = await client.get(BTC, params=params, headers={"Accept-Encoding": "gzip, identity;q=0"})

    assert "Content-Encoding" not in usual.headers
    assert odd.headers["Content-Encoding"] == "gzip"
    assert odd.content == usual.content


async def test_settled_answer_is_kept_and_found_unchanged(client: httpx.AsyncClient) -> None:
    """Each format, coding, window and choice of columns has a tag of its own."""
    forms = [
        ({**DAY, "format": name}, {"Accept-Encoding": coding})
        for name in FORMATS
        for coding in ("identity", "gzip", "zstd")
    ]
    forms += [({**DAY, "limit": 5}, PLAIN), ({**DAY, "fields": "close"}, PLAIN)]
    tags = set[str]()
    for params, headers in forms:
        answer = await client.get(BTC, params=params, headers=headers)
        tags.add(tag := answer.headers["ETag"])
        again = await client.get(BTC, params=params, headers={**headers, "If-None-Match": tag})
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
    newest = await client.get(BTC, params={"limit": 5, "settled": True})
    open_ended = await client.get(BTC, params={"start": "2024-05-01", "limit": 5})
    partial = await client.get(BTC, params={**DAY, "partial": True})

    assert newest.headers["Cache-Control"] == "private, no-cache"
    assert open_ended.headers["Cache-Control"] == "private, no-cache"
    assert partial.headers["Cache-Control"] == "no-store"
    assert "ETag" not in partial.headers


async def test_repair_elsewhere_shows_in_the_next_answer_from_every_cache(
    settings: Settings, sandbox: Sandbox, database: psycopg.Connection
) -> None:
    """One process caches wrong numbers, its client a tag; another process repairs."""
    async with (
        opened_services(settings, sandbox) as one,
        opened_services(settings, sandbox) as other,
        connected(app_of(one), token_of(settings)) as client,
    ):
        right = (await client.get(BTC, params=DAY)).json()
        database.execute(_REPLACE_CLOSE)
        database.execute(RAISE_EPOCH)
        wrong = {name: await client.get(BTC, params={**DAY, "format": name}) for name in FORMATS}
        kept = await client.get(BTC, params=DAY)
        report = await other.repair.repair(_QUERY)
        mended = await client.get(BTC, params=DAY, headers={"If-None-Match": kept.headers["ETag"]})
        after = {
            name: await client.get(
                BTC,
                params={**DAY, "format": name},
                headers={"If-None-Match": wrong[name].headers["ETag"]},
            )
            for name in FORMATS
        }

    assert report.replaced == 1
    assert kept.json()["candles"] != right["candles"]
    assert mended.status_code == 200
    assert mended.json()["candles"] == right["candles"]
    for name in FORMATS:
        assert after[name].status_code == 200
        assert after[name].content != wrong[name].content


async def test_repair_of_the_newest_candle_shows_in_latest(
    services: Services, client: httpx.AsyncClient, sandbox: Sandbox, database: psycopg.Connection
) -> None:
    """While cached the exchange isn't asked; repaired rows are cached no more."""
    first = (await client.get(_LATEST)).json()
    sandbox.clear()
    again = (await client.get(_LATEST)).json()
    asked = sandbox.requests()
    wrong = "UPDATE candles SET close = high + 1, high = high + 1"
    database.execute(wrong)
    database.execute(RAISE_EPOCH)
    spoiled = (await client.get(_LATEST)).json()
    await services.repair.repair(CandleQuery("binance", "perp", "BTC-USDT", "1d"))
    mended = (await client.get(_LATEST)).json()

    assert asked == []
    assert first["candle"] == again["candle"] == mended["candle"] != spoiled["candle"]


async def test_repair_replaces_nothing_where_the_exchange_says_the_same(
    services: Services, client: httpx.AsyncClient
) -> None:
    """The caches stay good."""
    before = await client.get(BTC, params=DAY)
    report = await services.repair.repair(_QUERY)
    after = await client.get(BTC, params=DAY, headers={"If-None-Match": before.headers["ETag"]})

    assert (report, after.status_code) == (RepairReport(), 304)


async def test_repair_between_look_and_rows_costs_no_error(
    client: httpx.AsyncClient, database: psycopg.Connection
) -> None:
    """The rows wait for a lock while the epoch rises: one more read finds new ones."""
    await client.get(BTC, params=DAY)
    with database.transaction():
        database.execute("LOCK TABLE candles IN ACCESS EXCLUSIVE MODE")
        asking = asyncio.create_task(client.get(BTC, params={**DAY, "fields": "trades,low"}))
        await eventually(lambda: database.execute(_WAITING_FOR_LOCK).fetchone() is not None)
        database.execute(RAISE_EPOCH)
        database.execute(_REPLACE_CLOSE)
    answer = await asking

    assert (answer.status_code, answer.json()["count"]) == (200, 1440)


@pytest.mark.parametrize("path", [BTC, _LATEST, "/health", "/meta/exchanges", "/nowhere"])
async def test_head_tells_what_get_would(client: httpx.AsyncClient, path: str) -> None:
    """Also where the answer is long; without a body."""
    params = DAY if path == BTC else {}
    got = await client.get(path, params=params)
    head = await client.head(path, params=params)
    differ = {"x-request-id", "server-timing", "x-cache", "x-upstream-requests"}
    if path in {"/health", _LATEST}:
        differ.add("content-length")  # what they tell changes

    assert (head.status_code, head.content) == (got.status_code, b"")
    assert {n: v for n, v in head.headers.items() if n not in differ} == {
        n: v for n, v in got.headers.items() if n not in differ
    }
