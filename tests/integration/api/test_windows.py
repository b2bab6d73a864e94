"""Which candles a request means, how it may be written, and what of it is fetched."""

from collections.abc import Iterable
from itertools import pairwise
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx
import psycopg
import pytest
from support.sandbox import MINUTE_MS, Sandbox
from support.stored_candles import bounds_of, fill

from mdp_core.settings import Settings
from mdp_core.wiring import Services

pytestmark = pytest.mark.every_kind_of_database

# 2024-03-01T00:00Z; long closed, so nothing here depends on what time it is.
DAY_MS = 1_709_251_200_000
PAGE_MS = 499 * MINUTE_MS
# Binance was down then: XRPUSDT has no candles from 02:00 to 04:00 UTC.
HOLE_MS = (1_718_157_600_000, 1_718_164_800_000)
# BTCUSDT's first candle opens later than this and earlier than that.
BEFORE_HISTORY_MS, IN_HISTORY_MS = 1_500_000_000_000, 1_600_000_000_000

BTC = "/candles/binance/perp/BTC-USDT/1m"
XRP = "/candles/binance/perp/XRP-USDT/1m"


async def test_window_holds_what_the_exchange_has(
    client: httpx.AsyncClient, sandbox: Sandbox
) -> None:
    """Each candle that opens in `[start, end)`, ascending, with exchange numbers."""
    end = DAY_MS + 1000 * MINUTE_MS
    body = (await client.get(BTC, params={"start": DAY_MS, "end": end})).json()

    assert body["candles"] == sandbox.candles("BTCUSDT", "1m", DAY_MS, end)
    assert len(body["candles"]) == body["count"] == 1000
    assert body["columns"] == ["time", "open", "high", "low", "close", "volume"]
    assert (body["exchange"], body["market_type"]) == ("binance", "perp")
    assert (body["symbol"], body["interval"]) == ("BTC-USDT", "1m")
    assert (body["start"], body["end"], body["settled_until"]) == (DAY_MS, end, end)


async def test_overlapping_window_fetches_only_the_missing_pages(
    client: httpx.AsyncClient, sandbox: Sandbox
) -> None:
    """Of a window half stored only the other half's pages are asked for, once each."""
    first = DAY_MS // PAGE_MS
    half = {"start": first * PAGE_MS + 7 * MINUTE_MS, "end": (first + 4) * PAGE_MS}
    whole = {"start": (first + 2) * PAGE_MS, "end": (first + 7) * PAGE_MS - 9 * MINUTE_MS}
    await client.get(BTC, params=half)
    sandbox.clear()
    answer = await client.get(BTC, params=whole)
    asked = [int(entry["params"]["startTime"]) for entry in sandbox.candle_requests()]

    assert sorted(asked) == [(first + page) * PAGE_MS for page in (4, 5, 6)]
    assert answer.headers["X-Cache"] == "partial"
    assert answer.headers["X-Upstream-Requests"] == "3"
    assert answer.json()["count"] == (whole["end"] - whole["start"]) // MINUTE_MS


async def test_stored_islands_are_not_asked_for_again(
    client: httpx.AsyncClient, sandbox: Sandbox
) -> None:
    """Between and around stored pages only gaps are asked for; the answer is whole."""
    first = DAY_MS // PAGE_MS
    for page in (1, 3):
        start = (first + page) * PAGE_MS
        await client.get(BTC, params={"start": start, "end": start + MINUTE_MS})
    sandbox.clear()
    window = {"start": first * PAGE_MS, "end": (first + 5) * PAGE_MS}
    body = (await client.get(BTC, params=window)).json()
    asked = [int(entry["params"]["startTime"]) for entry in sandbox.candle_requests()]

    assert sorted(asked) == [(first + page) * PAGE_MS for page in (0, 2, 4)]
    assert _times(body) == list(range(window["start"], window["end"], MINUTE_MS))


async def test_absent_candles_are_asked_for_twice_and_then_told_as_unconfirmed(
    client: httpx.AsyncClient, sandbox: Sandbox
) -> None:
    """A hole of the exchange has no candles: none invented, and the answer says so."""
    window = {"start": HOLE_MS[0] - 5 * MINUTE_MS, "end": HOLE_MS[1] + 5 * MINUTE_MS}
    first = await client.get(XRP, params=window)
    asked = sandbox.candle_requests()
    sandbox.clear()
    second = await client.get(XRP, params=window)
    doubts = [e for e in asked if int(e["params"]["startTime"]) == HOLE_MS[0] - MINUTE_MS]

    assert _times(first.json()) == [
        *range(window["start"], HOLE_MS[0], MINUTE_MS),
        *range(HOLE_MS[1], window["end"], MINUTE_MS),
    ]
    assert first.json()["complete"]
    assert first.json()["unconfirmed"] == [{"start": HOLE_MS[0], "end": HOLE_MS[1]}]
    assert len(doubts) == 1
    assert second.content == first.content
    assert (second.headers["X-Cache"], sandbox.requests()) == ("hit", [])


_EMPTY: dict[str, dict[str, str | int]] = {
    "in the future": {"start": "2150-01-01", "end": "2150-01-02"},
    "from the future on": {"start": "2150-01-01"},
    "before history": {"start": BEFORE_HISTORY_MS, "end": BEFORE_HISTORY_MS + MINUTE_MS},
    "the newest before history": {"end": BEFORE_HISTORY_MS},
    "of zero length": {"start": DAY_MS, "end": DAY_MS},
    "between two opens": {"start": DAY_MS + 1, "end": DAY_MS + 59_999},
}


async def test_empty_window_is_answered_with_no_candles(
    client: httpx.AsyncClient, sandbox: Sandbox, subtests: pytest.Subtests
) -> None:
    """A window without any closed candle is complete with none, and costs no page."""
    for name, window in _EMPTY.items():
        with subtests.test(name):
            answer = await client.get(BTC, params=window)
            body = answer.json()

            assert answer.status_code == 200
            assert (body["candles"], body["count"], body["complete"]) == ([], 0, True)
            assert body["next"] is None
            assert body["start"] <= body["end"]
            assert sandbox.candle_requests() == []


async def test_window_that_begins_before_history_starts_with_the_first_candle(
    client: httpx.AsyncClient, sandbox: Sandbox
) -> None:
    """Slots before the exchange's first candle are no gap, and never requested."""
    born = sandbox.candles("BTCUSDT", "1m", 0, IN_HISTORY_MS)[0][0]
    sandbox.clear()
    end = int(born) + 10 * MINUTE_MS
    body = (await client.get(BTC, params={"start": BEFORE_HISTORY_MS, "end": end})).json()

    assert _times(body) == list(range(int(born), end, MINUTE_MS))
    assert (body["start"], body["end"], body["complete"]) == (BEFORE_HISTORY_MS, end, True)
    assert [int(e["params"]["startTime"]) for e in sandbox.candle_requests()] == [born]


async def test_bounds_off_the_grid_round_up(client: httpx.AsyncClient) -> None:
    """A candle belongs if it opens at or after `start` and before `end`."""
    window = {"start": DAY_MS + 1, "end": DAY_MS + 5 * MINUTE_MS + 1}
    body = (await client.get(BTC, params=window)).json()

    assert _times(body) == [DAY_MS + minute * MINUTE_MS for minute in (1, 2, 3, 4, 5)]
    assert (body["start"], body["end"]) == (DAY_MS + MINUTE_MS, DAY_MS + 6 * MINUTE_MS)


async def test_weeks_and_months_open_on_the_exchange_s_grid(client: httpx.AsyncClient) -> None:
    """Weeks open on Monday, months on the first, three days by this series' grid."""
    opens: dict[str, list[int]] = {}
    for interval in ("3d", "1w", "1M"):
        path = f"/candles/binance/perp/BTC-USDT/{interval}"
        window = {"start": "2024-01-01", "end": "2024-02-02"}
        opens[interval] = _times((await client.get(path, params=window)).json())

    days = {
        name: [(t - opens["1M"][0]) // 86_400_000 for t in times] for name, times in opens.items()
    }
    assert days == {"3d": list(range(0, 32, 3)), "1w": [0, 7, 14, 21, 28], "1M": [0, 31]}


_MALFORMED: list[tuple[dict[str, str | int], str, str]] = [
    ({"start": DAY_MS + 1, "end": DAY_MS}, "invalid_window", "start"),
    ({"start": DAY_MS // 1000}, "invalid_parameter", "seconds"),
    ({"start": DAY_MS, "end": DAY_MS // 1000 + 60}, "invalid_parameter", "seconds"),
    ({"start": DAY_MS * 1000}, "invalid_parameter", "microseconds"),
    ({"start": "yesterday"}, "invalid_parameter", "start"),
    ({"start": "2024-13-01"}, "invalid_parameter", "start"),
    ({"start": "1066-10-14"}, "invalid_parameter", "start"),
    ({"start": ""}, "invalid_parameter", "start"),
    ({"start": "9" * 400}, "invalid_parameter", "start"),
    ({"start": "0001-01-01T00:00:00+23:59"}, "invalid_parameter", "start"),
    ({"begin": DAY_MS}, "invalid_parameter", "begin"),
    ({"limit": 1_000_001}, "limit_too_large", "1000000"),
    ({"limit": 0}, "invalid_parameter", "limit"),
    ({"limit": "many"}, "invalid_parameter", "limit"),
    ({"fields": "close,bid"}, "invalid_parameter", "bid"),
    ({"format": "xml"}, "invalid_parameter", "format"),
    ({"settled": "perhaps"}, "invalid_parameter", "settled"),
]


async def test_malformed_request_is_refused_with_the_reason(
    client: httpx.AsyncClient, sandbox: Sandbox, subtests: pytest.Subtests
) -> None:
    """422 with a stable code and a text that names the fault; no exchange is asked."""
    for parameters, code, hint in _MALFORMED:
        with subtests.test(str(parameters)[:60]):
            answer = await client.get(BTC, params=parameters)
            problem = answer.json()

            assert answer.status_code == problem["status"] == 422
            assert answer.headers["Content-Type"] == "application/problem+json"
            assert problem["code"] == code
            assert hint in problem["detail"]
            assert problem["request_id"] == answer.headers["X-Request-Id"]
            assert sandbox.candle_requests() == []


@pytest.mark.parametrize(
    ("path", "hint"),
    [
        ("/latest/binance/perp/BTC-USDT/1m?former=true", "former"),
        ("/latest/binance/perp/BTC-USDT/1m?forming=perhaps", "forming"),
        (
            "/coverage/binance/perp/BTC-USDT/1m?detail=true&start=2024-01-01&end=2024-06-01",
            "slots 218880 is over the maximum of 100000: ask for a shorter window",
        ),
    ],
)
async def test_its_neighbours_refuse_alike(client: httpx.AsyncClient, path: str, hint: str) -> None:
    """A word that is not known may be one that was mistyped."""
    answer = await client.get(path)

    assert answer.status_code == 422
    assert hint in answer.json()["detail"]


_SAME_DAY = [
    f"start={DAY_MS}&end={DAY_MS + 86_400_000}",
    "start=2024-03-01&end=2024-03-02",
    "start=2024-03-01T00:00Z&end=2024-03-02T00:00:00.000Z",
    "start=2024-03-01T00:00:00&end=2024-03-02T00:00:00",
    "start=2024-03-01T02:00:00+02:00&end=2024-03-01T20:00:00-04:00",
    "start=2024-03-01T02:00:00%2B02:00&end=2024-03-02T05:30%2B05:30",
]


async def test_every_way_to_write_a_time_means_the_same(
    client: httpx.AsyncClient, subtests: pytest.Subtests
) -> None:
    """Milliseconds, ISO-8601 with or without a zone, a date, a `+` not escaped."""
    hour = 60 * MINUTE_MS
    for query in _SAME_DAY:
        with subtests.test(query):
            answer = await client.get(f"/candles/binance/perp/BTC-USDT/1h?{query}")

            assert answer.status_code == 200, answer.text
            assert _times(answer.json()) == list(range(DAY_MS, DAY_MS + 24 * hour, hour))


async def test_symbol_is_found_under_each_of_its_names(
    client: httpx.AsyncClient, subtests: pytest.Subtests
) -> None:
    """Canonical or native, in any case; the answer shows the canonical name."""
    window = {"start": DAY_MS, "end": DAY_MS + MINUTE_MS}
    for name in ("BTC-USDT", "BTCUSDT", "btc-usdt", "btcusdt"):
        with subtests.test(name):
            body = (await client.get(f"/candles/binance/perp/{name}/1m", params=window)).json()

            assert (body["symbol"], body["count"]) == ("BTC-USDT", 1)


async def test_without_start_the_newest_candles_before_end_are_meant(
    client: httpx.AsyncClient, sandbox: Sandbox, subtests: pytest.Subtests
) -> None:
    """As many as `limit`, by default 500, ascending up to `end`; only their pages."""
    known: set[int] = set()
    for limit, rows in ((1, 1), (7, 7), (None, 500), (1200, 1200)):
        with subtests.test(limit=limit):
            sandbox.clear()
            parameters = {"end": DAY_MS} | ({"limit": limit} if limit else {})
            body = (await client.get(BTC, params=parameters)).json()
            first = DAY_MS - rows * MINUTE_MS
            asked = {int(e["params"]["startTime"]) // PAGE_MS for e in sandbox.candle_requests()}
            pages = set(range(first // PAGE_MS, (DAY_MS - 1) // PAGE_MS + 1))

            assert _times(body) == list(range(first, DAY_MS, MINUTE_MS))
            assert (body["start"], body["end"]) == (first, DAY_MS)
            assert asked == pages - known
            known |= pages


async def test_newest_candle_is_found_behind_a_hole(
    client: httpx.AsyncClient,
) -> None:
    """Without `start` the rows are counted, not the slots: a hole is passed over."""
    parameters = {"end": HOLE_MS[1] + 2 * MINUTE_MS, "limit": 4}
    body = (await client.get(XRP, params=parameters)).json()
    minutes = (
        HOLE_MS[0] - 2 * MINUTE_MS,
        HOLE_MS[0] - MINUTE_MS,
        HOLE_MS[1],
        HOLE_MS[1] + MINUTE_MS,
    )

    assert _times(body) == list(minutes)
    assert body["start"] == minutes[0]


async def test_following_next_forward_gives_the_whole_once(client: httpx.AsyncClient) -> None:
    """Pages of `limit` candles put together are the whole window: no overlap, no loss."""
    limit = 37
    window = {"start": HOLE_MS[0] - 90 * MINUTE_MS, "end": HOLE_MS[1] + 90 * MINUTE_MS}
    whole = (await client.get(XRP, params=window)).json()
    parts = await _follow(client, XRP, {**window, "limit": limit})

    assert [row for part in parts for row in part["candles"]] == whole["candles"]
    assert all(part["count"] == limit for part in parts[:-1])
    assert [part["start"] for part in parts[1:]] == [part["end"] for part in parts[:-1]]
    assert (parts[0]["start"], parts[-1]["end"]) == (window["start"], window["end"])


async def test_following_next_backward_gives_the_whole_once(
    client: httpx.AsyncClient, sandbox: Sandbox
) -> None:
    """Without `start` the pages lead back to the first candle; there `next` ends."""
    born = int(sandbox.candles("BTCUSDT", "1d", 0, IN_HISTORY_MS)[0][0])
    end = born + 400 * 86_400_000
    path = "/candles/binance/perp/BTC-USDT/1d"
    parts = await _follow(client, path, {"end": end, "limit": 150})
    rows = [row for part in reversed(parts) for row in part["candles"]]

    assert rows == sandbox.candles("BTCUSDT", "1d", born, end)
    assert [part["count"] for part in parts] == [150, 150, 100]


async def test_next_keeps_what_was_asked_and_has_an_absolute_end(
    client: httpx.AsyncClient,
) -> None:
    """`next` and the Link header are one absolute path: same fields, fixed bounds."""
    parameters = {"start": DAY_MS, "limit": 3, "fields": "close"}
    answer = await client.get(BTC, params=parameters)
    path = urlsplit(answer.json()["next"])
    query = parse_qs(path.query)

    assert answer.headers["Link"] == f'<{answer.json()["next"]}>; rel="next"'
    assert path.path == BTC
    assert (query["fields"], query["limit"]) == (["close"], ["3"])
    assert int(query["start"][0]) == DAY_MS + 3 * MINUTE_MS
    assert int(query["end"][0]) > int(query["start"][0])


async def test_limit_fetches_only_the_pages_of_its_rows(
    client: httpx.AsyncClient, sandbox: Sandbox
) -> None:
    """A long window costs no more than the rows that are wanted of it."""
    answer = await client.get(BTC, params={"start": DAY_MS, "end": "2024-09-01", "limit": 10})

    assert answer.json()["count"] == 10
    assert len(sandbox.candle_requests()) == 1


async def test_too_long_a_window_is_refused_before_anything_is_fetched(
    client: httpx.AsyncClient, sandbox: Sandbox, settings: Settings
) -> None:
    """More pages than one request may fetch, and no syncer: never a silent cut."""
    end = DAY_MS + (settings.max_pages + 2) * PAGE_MS
    answer = await client.get(BTC, params={"start": DAY_MS, "end": end})

    assert answer.status_code == 503
    assert answer.json()["code"] == "syncer_unavailable"
    assert sandbox.candle_requests() == []


async def test_fields_choose_columns(client: httpx.AsyncClient) -> None:
    """Time comes first; other columns follow in the order asked, each once."""
    window = {"start": DAY_MS, "end": DAY_MS + 2 * MINUTE_MS}
    whole = (await client.get(BTC, params=window)).json()
    asked = {**window, "fields": "trades,close,quote_volume,close,time"}
    chosen = (await client.get(BTC, params=asked)).json()

    assert chosen["columns"] == ["time", "trades", "close", "quote_volume"]
    assert [(row[0], row[2]) for row in chosen["candles"]] == [
        (row[0], row[4]) for row in whole["candles"]
    ]
    assert all(type(row[1]) is int and row[3] > 0 for row in chosen["candles"])


async def _follow(
    client: httpx.AsyncClient, path: str, parameters: dict[str, int]
) -> list[dict[str, Any]]:
    parts = [(await client.get(path, params=parameters)).json()]
    while following := parts[-1]["next"]:
        parts.append((await client.get(following)).json())
    return parts


def _times(body: dict[str, Any]) -> list[int]:
    rows: Iterable[list[Any]] = body["candles"]
    return [row[0] for row in rows]


async def test_coverage_in_detail_is_told_page_by_page(
    services: Services, client: httpx.AsyncClient, database: psycopg.Connection
) -> None:
    """All pages together are the whole window; no hole, no end amid a slot."""
    window = bounds_of(await fill(services, 25_000))
    database.execute("DELETE FROM candles WHERE extract(minute FROM time)::int % 2 = 0")
    bounds = f"start={window['start']}&end={window['end']}&detail=true"
    path: str | None = f"/coverage{BTC.removeprefix('/candles')}?{bounds}"
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
