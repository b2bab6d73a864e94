"""Three exchanges, one model: each answer true to its exchange, none made up."""

import csv
import gzip
import json
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
import pytest
from support.places import DATA
from support.sandbox import MINUTE_MS, Sandbox, running_sandbox
from support.services import serving

from mdp_core.domain.clock import Clock, from_ms, to_ms
from mdp_core.settings import Settings
from scripts.sandbox.app import SandboxOptions

# Open time, open, high, low, close, volume.
Row = tuple[int | Decimal, ...]

HOUR_MS = 60 * MINUTE_MS
DAY_MS = 24 * HOUR_MS
STEPS = {"1m": MINUTE_MS, "1h": HOUR_MS, "1d": DAY_MS, "3d": 3 * DAY_MS, "1w": 7 * DAY_MS}
MEMORY = 5000
MARGIN = 2
NOON = datetime(2026, 10, 7, 12, tzinfo=UTC)

HYPERLIQUID = "hyperliquid/perp"
COINBASE = "coinbase/spot"
BINANCE = "binance/perp"

needs_data = pytest.mark.skipif(not DATA.is_dir(), reason=f"{DATA} is not there")


@asynccontextmanager
async def at(
    now: datetime, settings: Settings, data: Path | None = None, **exchange: float
) -> AsyncGenerator[tuple[httpx.AsyncClient, Sandbox]]:
    """Have the exchanges and the services agree on a time that hardly moves.

    The budget is of its own each time: what was asked at another time is not charged for.
    """
    clock = Clock.starting_at(now, speed=1e-6)
    told = settings.model_copy(update={"clock": clock, "egress": str(to_ms(now))})
    with running_sandbox(SandboxOptions(clock=clock, data=data, limits=False)) as sandbox:
        async with serving(told, sandbox, **exchange) as client:
            yield client, sandbox


@pytest.fixture
async def today(settings: Settings) -> AsyncGenerator[tuple[httpx.AsyncClient, Sandbox]]:
    async with at(NOON + timedelta(seconds=30), settings) as opened:
        yield opened


async def candles(client: httpx.AsyncClient, series: str, **params: object) -> dict[str, Any]:
    """Give the body of an answer, with every number as it was written."""
    answer = await client.get(f"/candles/{series}", params={k: str(v) for k, v in params.items()})
    assert answer.status_code == 200, answer.text
    return json.loads(answer.content, parse_float=Decimal)


async def refused(client: httpx.AsyncClient, series: str, **params: int) -> tuple[int, str, Any]:
    answer = await client.get(f"/candles/{series}", params=params)
    body = answer.json()
    return answer.status_code, body["code"], body


def rows_of(body: dict[str, Any]) -> list[Row]:
    return [tuple(row) for row in body["candles"]]


def in_file(name: str) -> list[Row]:
    with gzip.open(DATA / f"{name}.csv.gz", "rt", encoding="ascii", newline="") as text:
        _header, *rows = csv.reader(text)
    return [(int(row[0]), *map(Decimal, row[1:])) for row in rows]


def just_after(rows: Sequence[Row], interval: str) -> datetime:
    """Give a time at which the last row is closed and settled, and nothing else is."""
    return from_ms(int(rows[-1][0]) + STEPS[interval]) + timedelta(seconds=10)


def candle_requests(sandbox: Sandbox, exchange: str) -> list[dict[str, Any]]:
    asked = [entry for entry in sandbox.requests() if entry["exchange"] == exchange]
    words = {"req", "granularity", "startTime"}
    return [entry for entry in asked if words & entry["params"].keys()]


# --- real series --------------------------------------------------------------------------------


@needs_data
async def test_coinbase_file_comes_back_and_its_missing_minutes_stay_missing(
    settings: Settings, replay_sandbox: Sandbox
) -> None:
    """104 minutes without trades are no candles: each page is asked for once.

    Only the first and the last page, which lie partly outside the file, are doubted.
    """
    rows = in_file("coinbase__spot__BTC-USD__1m")
    window = {"start": rows[0][0], "end": int(rows[-1][0]) + MINUTE_MS}
    async with serving(settings, replay_sandbox) as client:
        body = await candles(client, f"{COINBASE}/BTC-USD/1m", **window)
        asked = candle_requests(replay_sandbox, "coinbase")
        replay_sandbox.clear()
        again = await candles(client, f"{COINBASE}/BTC-USD/1m", **window)

    assert rows_of(body) == rows
    assert (int(body["end"]) - int(body["start"])) // MINUTE_MS - body["count"] == 104
    assert (body["complete"], body["next"]) == (True, None)
    assert len(asked) == 16 + 2
    assert again == body
    assert replay_sandbox.requests() == []


@needs_data
@pytest.mark.parametrize(
    ("coin", "interval", "begins"),
    [
        pytest.param("BTC", "1d", "2023-02-26", id="1d"),
        pytest.param("BTC", "3d", "2023-02-25", id="3d"),
        pytest.param("BTC", "1w", "2023-02-23", id="1w"),
    ],
)
async def test_hyperliquid_rows_from_before_trading_are_left_out_and_all_others_come(
    settings: Settings, coin: str, interval: str, begins: str
) -> None:
    """A window over the whole file begins with the first traded candle."""
    rows = in_file(f"hyperliquid__perp__{coin}__{interval}")
    begins_ms = to_ms(datetime.fromisoformat(begins).replace(tzinfo=UTC))
    async with at(just_after(rows, interval), settings, DATA) as (client, _):
        body = await candles(client, f"{HYPERLIQUID}/{coin}/{interval}", start=rows[0][0])

    assert rows_of(body) == [row for row in rows if int(row[0]) >= begins_ms]
    assert body["settled_until"] == body["end"] == int(rows[-1][0]) + STEPS[interval]
    assert (body["complete"], body["next"]) == (True, None)


@needs_data
@pytest.mark.parametrize(("coin", "interval"), [("BTC", "1m"), ("BTC", "1h"), ("PURR", "1m")])
async def test_of_a_long_hyperliquid_series_what_it_remembers_comes_back(
    settings: Settings, coin: str, interval: str
) -> None:
    """The last 5,000 candles less two at the edge of retention; quiet ones are flat."""
    rows = in_file(f"hyperliquid__perp__{coin}__{interval}")
    remembered = rows[MARGIN - MEMORY :]
    earliest = int(remembered[0][0])
    async with at(just_after(rows, interval), settings, DATA) as (client, sandbox):
        body = await candles(client, f"{HYPERLIQUID}/{coin}/{interval}", start=earliest)
        sandbox.clear()
        again = await candles(client, f"{HYPERLIQUID}/{coin}/{interval}", start=earliest)
        asked = candle_requests(sandbox, "hyperliquid")

    assert len(remembered) == 4998
    assert rows_of(body) == remembered
    assert body["complete"] is True
    if coin == "PURR":
        assert sum(row[5] == 0 for row in rows_of(body)) == sum(row[5] == 0 for row in remembered)
        assert any(row[5] == 0 for row in remembered)
    assert again == body
    assert asked == []


# --- what an exchange has forgotten -------------------------------------------------------------


@needs_data
async def test_window_older_than_memory_is_refused_with_the_earliest_time_there_is(
    settings: Settings,
) -> None:
    """422 `history_unavailable`; `partial` gives what there is and names the rest."""
    rows = in_file("hyperliquid__perp__BTC__1h")
    earliest = int(rows[MARGIN - MEMORY][0])
    start, end = earliest - 3 * HOUR_MS, earliest + 4 * HOUR_MS
    path = f"{HYPERLIQUID}/BTC-USDC/1h"
    async with at(just_after(rows, "1h"), settings, DATA) as (client, _):
        refusal = await refused(client, path, start=start, end=end)
        partial = await candles(client, path, start=start, end=end, partial=True)
        whole = await candles(client, path, start=refusal[2]["earliest"], end=end)

    assert refusal[:2] == (422, "history_unavailable")
    assert refusal[2]["earliest"] == earliest
    assert (partial["start"], partial["end"], partial["complete"]) == (start, end, False)
    assert partial["missing"] == [
        {"start": start, "end": earliest, "reason": "history_unavailable"}
    ]
    assert rows_of(partial) == rows_of(whole) == rows[MARGIN - MEMORY : MARGIN - MEMORY + 4]
    assert whole["complete"] is True


@needs_data
async def test_newest_candles_go_back_to_the_end_of_memory_and_say_so(settings: Settings) -> None:
    """Without `start` nothing is refused: the answer's `start` tells how far it goes."""
    rows = in_file("hyperliquid__perp__BTC__1h")
    async with at(just_after(rows, "1h"), settings, DATA) as (client, _):
        body = await candles(client, f"{HYPERLIQUID}/BTC/1h", limit=6000)

    assert rows_of(body) == rows[MARGIN - MEMORY :]
    assert body["start"] == rows[MARGIN - MEMORY][0]


@needs_data
async def test_what_the_store_took_is_served_after_the_exchange_forgot_it(
    settings: Settings,
) -> None:
    """An hour that was fetched in time stays; the hour after it is gone."""
    rows = in_file("hyperliquid__perp__BTC__1m")
    place = 600
    start = int(rows[place][0])
    hour = {"start": start, "end": start + HOUR_MS}
    path = f"{HYPERLIQUID}/BTC/1m"
    async with at(from_ms(start) + timedelta(hours=2), settings, DATA) as (client, _):
        first = await candles(client, path, **hour)
    async with at(just_after(rows, "1m"), settings, DATA) as (client, sandbox):
        sandbox.clear()
        later = await candles(client, path, **hour)
        asked = candle_requests(sandbox, "hyperliquid")
        before = await refused(client, path, start=start - DAY_MS, end=start - DAY_MS + HOUR_MS)
        newest = rows[-10:]
        recent = await candles(client, path, start=newest[0][0])

    assert rows_of(first) == rows_of(later) == rows[place : place + 60]
    assert later["complete"] is True
    assert asked == []
    assert before[:2] == (422, "history_unavailable")
    assert before[2]["earliest"] == rows[MARGIN - MEMORY][0]
    assert rows_of(recent) == newest


# --- grids --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("series", "weekday"),
    [
        pytest.param(f"{BINANCE}/ETH-USDT/1w", 0, id="Binance on Monday"),
        pytest.param(f"{HYPERLIQUID}/ETH-USDC/1w", 3, id="Hyperliquid on Thursday"),
    ],
)
async def test_weeks_open_on_the_exchanges_own_day(
    today: tuple[httpx.AsyncClient, Sandbox], series: str, weekday: int
) -> None:
    """Every week at midnight of that day, none left out."""
    body = await candles(today[0], series, limit=20)
    opens = [from_ms(row[0]) for row in body["candles"]]

    assert {(open_time.weekday(), open_time.hour, open_time.minute) for open_time in opens} == {
        (weekday, 0, 0)
    }
    assert len(opens) == 20
    assert opens[-1] - opens[0] == timedelta(weeks=19)


async def test_months_are_those_of_the_calendar(
    today: tuple[httpx.AsyncClient, Sandbox],
) -> None:
    """Binance's `1M` opens on the first of each month, UTC."""
    body = await candles(today[0], f"{BINANCE}/ETH-USDT/1M", limit=14)
    opens = [from_ms(row[0]) for row in body["candles"]]
    months = [open_time.year * 12 + open_time.month for open_time in opens]

    assert {(open_time.day, open_time.hour) for open_time in opens} == {(1, 0)}
    assert months == list(range(2026 * 12 + 10 - 14, 2026 * 12 + 10))


async def test_three_days_follow_the_phase_of_todays_rows(
    today: tuple[httpx.AsyncClient, Sandbox],
) -> None:
    """Binance's futures open a day after the multiples of 3d: 2024-01-01 is an open."""
    client, sandbox = today
    new_year = to_ms(datetime(2024, 1, 1, tzinfo=UTC))
    body = await candles(client, f"{BINANCE}/ETH-USDT/3d", start=new_year - DAY_MS, limit=5)
    truth = sandbox.candles("ETHUSDT", "3d", new_year, new_year + 15 * DAY_MS)

    assert [row[0] for row in body["candles"]] == [new_year + n * 3 * DAY_MS for n in range(5)]
    assert [[float(number) for number in row] for row in body["candles"]] == truth


@pytest.mark.parametrize("phase", [0, 2])
async def test_three_days_follow_the_phase_of_any_series(
    settings: Settings, tmp_path: Path, phase: int
) -> None:
    """A series with another phase is served on it, whole and from its first row on."""
    first = (19_000 // 3 * 3 + phase) * DAY_MS
    rows: list[Row] = [
        (first + n * 3 * DAY_MS, *map(Decimal, (10 + n, 12 + n, 9 + n, 11 + n, 5)))
        for n in range(30)
    ]
    text = "\n".join(
        ["time_ms,open,high,low,close,volume", *(",".join(map(str, row)) for row in rows)]
    )
    (tmp_path / "binance__perp__TULIPUSDT__3d.csv.gz").write_bytes(gzip.compress(text.encode()))
    async with at(just_after(rows, "3d"), settings, tmp_path) as (client, _):
        listed = (await client.get("/meta/symbols?exchange=binance&q=tulip")).json()["symbols"]
        whole = await candles(client, f"{BINANCE}/{listed[0]['symbol']}/3d", start=0)

    assert rows_of(whole) == rows
    assert (whole["complete"], whole["end"]) == (True, int(rows[-1][0]) + 3 * DAY_MS)


@pytest.mark.parametrize(
    ("series", "supported"),
    [
        pytest.param(f"{HYPERLIQUID}/BTC/1M", 13, id="blocks of 30 days are no month"),
        pytest.param(f"{HYPERLIQUID}/BTC/6h", 13, id="Hyperliquid has no 6h"),
        pytest.param(f"{COINBASE}/BTC-USD/4h", 6, id="Coinbase has no 4h"),
        pytest.param(f"{COINBASE}/BTC-USD/1w", 6, id="Coinbase has no weeks"),
        pytest.param(f"{BINANCE}/BTC-USDT/1s", 15, id="futures have no seconds"),
    ],
)
async def test_interval_that_is_not_published_is_refused_with_those_that_are(
    today: tuple[httpx.AsyncClient, Sandbox], series: str, supported: int
) -> None:
    """404 `unsupported_interval`: nothing is put together from shorter candles."""
    status, code, body = await refused(today[0], series)

    assert (status, code) == (404, "unsupported_interval")
    assert len(body["supported"]) == supported
    assert series.rpartition("/")[2] not in body["supported"]
    assert today[1].requests() == []


async def test_intervals_and_grids_are_visible(
    today: tuple[httpx.AsyncClient, Sandbox],
) -> None:
    """`/meta/intervals` tells each exchange's intervals, and when weeks, months open."""
    rows = (await today[0].get("/meta/intervals")).json()["intervals"]
    grids = {(row["exchange"], row["interval"]): row["grid"] for row in rows}
    of_coinbase = [row["interval"] for row in rows if row["exchange"] == "coinbase"]
    hyperliquid = {row["interval"] for row in rows if row["exchange"] == "hyperliquid"}

    assert of_coinbase == ["1m", "5m", "15m", "1h", "6h", "1d"]
    assert hyperliquid.isdisjoint({"6h", "1M"})
    assert len(hyperliquid) == 13
    assert len([row for row in rows if row["exchange"] == "binance"]) == 15
    assert grids["binance", "1w"] != grids["hyperliquid", "1w"]
    assert grids["binance", "1M"] != grids["binance", "1d"]
    assert grids["binance", "3d"]["phase_varies"] is True
    assert grids["hyperliquid", "3d"]["phase_varies"] is False


# --- where nothing trades ------------------------------------------------------------------------


async def test_window_in_which_nothing_traded_is_asked_for_twice_and_covered_in_doubt(
    settings: Settings,
) -> None:
    """An empty page of Coinbase is asked for again in halves, between two canaries."""
    page_ms = 300 * MINUTE_MS
    async with at(NOON, settings) as (client, sandbox):
        start = _empty_page(sandbox, page_ms)
        window = {"start": start, "end": start + page_ms}
        sandbox.clear()
        body = await candles(client, f"{COINBASE}/WAXL-USD/1m", **window)
        asked = candle_requests(sandbox, "coinbase")
        sandbox.clear()
        again = await candles(client, f"{COINBASE}/WAXL-USD/1m", **window)
        part = await candles(
            client, f"{COINBASE}/WAXL-USD/1m", start=start + HOUR_MS, end=start + 2 * HOUR_MS
        )
        later = sandbox.requests()
    async with at(NOON + timedelta(days=1), settings) as (client, sandbox):
        elsewhere = await candles(client, f"{COINBASE}/WAXL-USD/1m", **window)

    assert body["candles"] == again["candles"] == part["candles"] == elsewhere["candles"] == []
    assert body["complete"] is True
    assert body["unconfirmed"] == [window]
    of_page = [request for request in asked if "/WAXL-USD/" in request["path"]]
    assert len(of_page) == 3
    assert of_page[1]["params"] != of_page[0]["params"] != of_page[2]["params"]
    assert len(asked) == 5
    assert later == []


@pytest.mark.parametrize(
    ("exchange", "market"),
    [
        pytest.param("hyperliquid", "perp/MATIC", id="hyperliquid, within its memory"),
        pytest.param("binance", "perp/OMG-USDT", id="binance"),
    ],
)
async def test_delisted_markets_silence_is_known_by_its_history_end(
    settings: Settings, exchange: str, market: str
) -> None:
    """The newest candle, asked for without a window, tells the history's end."""
    start = (to_ms(NOON) - 30 * DAY_MS) // DAY_MS * DAY_MS
    path, window = f"{exchange}/{market}/1h", {"start": start, "end": start + DAY_MS}
    async with at(NOON, settings) as (client, sandbox):
        await client.get(f"/coverage/{path}")  # so that only pages are asked for
        sandbox.clear()
        body = await candles(client, path, **window)
        asked = candle_requests(sandbox, exchange)
        sandbox.clear()
        again = await candles(client, path, **window)
        later = sandbox.requests()
    async with at(NOON + timedelta(days=1), settings) as (client, sandbox):
        elsewhere = await candles(client, path, **window)
        by_another = candle_requests(sandbox, exchange)

    assert body["candles"] == again["candles"] == elsewhere["candles"] == []
    assert (body["complete"], body["unconfirmed"]) == (True, [])
    assert len(asked) == (2 if exchange == "hyperliquid" else 1)
    assert later == by_another == []


def _empty_page(sandbox: Sandbox, page_ms: int) -> int:
    """Find a page, on the grid that pages lie on, in which the exchange has no candle."""
    newest = (to_ms(NOON) - 2 * DAY_MS) // page_ms
    for page in range(newest, newest - 100, -1):
        bounds = [from_ms(page * page_ms), from_ms((page + 1) * page_ms - MINUTE_MS)]
        start, end = (bound.strftime("%Y-%m-%dT%H:%M:%SZ") for bound in bounds)
        params: dict[str, str] = {"granularity": "60", "start": start, "end": end}
        if sandbox.ask("/coinbase/products/WAXL-USD/candles", params) == []:
            return page * page_ms
    raise AssertionError


# --- symbols ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("market", "means", "names"),
    [
        pytest.param(
            HYPERLIQUID, "BTC-USDC", "BTC-USDC BTC btc BTC-USD BTC-PERP btc-usdc", id="hyperliquid"
        ),
        pytest.param(HYPERLIQUID, "BTC-USDC", "btc-usd btc-perp", id="hyperliquid in lower case"),
        pytest.param(
            HYPERLIQUID, "kPEPE-USDC", "kPEPE KPEPE kpepe kPEPE-USDC kPEPE-PERP", id="thousands"
        ),
        pytest.param(COINBASE, "BTC-USD", "BTC-USD btc-usd", id="coinbase"),
        pytest.param(BINANCE, "BTC-USDT", "BTC-USDT BTCUSDT btcusdt btc-usdt", id="binance"),
    ],
)
async def test_other_names_lead_to_the_market_and_the_answer_shows_its_own(
    today: tuple[httpx.AsyncClient, Sandbox], market: str, means: str, names: str
) -> None:
    """Canonical, native, either in any case, and what other programs call it."""
    answers = [
        await today[0].get(f"/candles/{market}/{name}/1h", params={"limit": 1})
        for name in names.split()
    ]

    assert [answer.json().get("symbol") for answer in answers] == [means] * len(answers)


async def test_what_is_another_market_or_none_of_ours_is_unknown(
    today: tuple[httpx.AsyncClient, Sandbox],
) -> None:
    """Never across quotes; no spot, no dated contracts, no builders' coins: 404."""
    unknown = {
        HYPERLIQUID: "BTC-USDT BTC-USDE xyz:TSLA TSLA @107",
        COINBASE: "BTC BTC-USDT SOL-USDC 1INCH",
        BINANCE: "BTC-USD BTC XAU-USDT XAUUSDT BTCUSDT_261225 ODD-USDT BTCST-USDT",
    }
    series = [
        f"{market}/{quote(name, safe='')}/1h"
        for market, names in unknown.items()
        for name in names.split()
    ]
    codes = {stored: (await refused(today[0], stored))[1] for stored in series}

    assert codes == dict.fromkeys(series, "unknown_symbol")


async def test_delisted_usdc_market_is_not_taken_for_the_dollar_one(
    today: tuple[httpx.AsyncClient, Sandbox],
) -> None:
    """Coinbase's BTC-USDC was a book of its own: it ends in 2019, and is inactive."""
    start = to_ms(datetime(2019, 2, 28, tzinfo=UTC))
    window = {"start": start, "end": start + 5 * DAY_MS}
    body = await candles(today[0], f"{COINBASE}/BTC-USDC/1d", **window)
    listed = (await today[0].get("/meta/symbols?exchange=coinbase&base=BTC")).json()["symbols"]

    assert (body["symbol"], body["count"]) == ("BTC-USDC", 1)
    assert {entry["symbol"]: entry["active"] for entry in listed} == {
        "BTC-EUR": True,
        "BTC-GBP": True,
        "BTC-USD": True,
        "BTC-USDC": False,
    }


async def test_lists_hold_what_they_should_and_nothing_else(
    today: tuple[httpx.AsyncClient, Sandbox],
) -> None:
    """An unknown status never becomes active; other kinds of contract are left out."""
    listed: dict[str, dict[str, bool]] = {}
    for exchange in ("binance", "hyperliquid", "coinbase"):
        answer = await today[0].get("/meta/symbols", params={"exchange": exchange})
        listed[exchange] = {
            entry["native_symbol"]: entry["active"] for entry in answer.json()["symbols"]
        }

    assert listed["binance"]["BTCUSDT"] is True
    assert listed["binance"]["OMGUSDT"] is False
    assert listed["binance"]["NOVELUSDT"] is False
    assert (
        listed["binance"].keys().isdisjoint({"XAUUSDT", "BTCUSDT_261225", "BTCSTUSDT", "ODDUSDT"})
    )
    assert listed["hyperliquid"]["MATIC"] is listed["hyperliquid"]["RNDR"] is False
    assert listed["hyperliquid"]["kPEPE"] is True
    assert not [coin for coin in listed["hyperliquid"] if set(coin) & set("@#/:")]
    assert listed["coinbase"]["NOVEL-USD"] is listed["coinbase"]["MOVE-USD"] is False
    assert listed["coinbase"]["BADGER-USD"] is True
    assert listed["coinbase"]["BTCAUCTION-USD"] is True


async def test_delisted_coins_give_what_there_is(
    today: tuple[httpx.AsyncClient, Sandbox],
) -> None:
    """One kept its history, the other answers nothing: neither is an error."""
    matic = await candles(today[0], f"{HYPERLIQUID}/MATIC/1d", start=0)
    render = await candles(today[0], f"{HYPERLIQUID}/RNDR/1d", start=0)

    assert matic["count"] > 500
    assert from_ms(matic["candles"][-1][0]) == datetime(2024, 10, 1, tzinfo=UTC)
    assert (render["count"], render["complete"]) == (0, True)


async def test_delisted_coin_is_silent_to_the_end_of_memory_and_no_error(
    today: tuple[httpx.AsyncClient, Sandbox],
) -> None:
    """Beyond the retention nothing comes: that is forgotten, not unstable."""
    path = f"{HYPERLIQUID}/MATIC/1h"
    body = await candles(today[0], path, limit=30)
    older = await today[0].get(f"/candles/{path}", params={"start": "2024-01-01", "limit": 30})
    spans = (await today[0].get(f"/coverage/{path}")).json()["windows"]

    assert (body["count"], body["complete"]) == (0, True)
    assert (older.status_code, older.json()["code"]) == (422, "history_unavailable")
    assert [span["state"] for span in spans] == ["beyond_memory", "covered", "not_fetched"]


async def test_coin_without_history_is_not_searched_at_every_request(
    today: tuple[httpx.AsyncClient, Sandbox],
) -> None:
    """The history start is asked for at the first request, and not again."""
    path = f"/latest/{HYPERLIQUID}/RNDR/1d"
    newest = await today[0].get(path)
    today[1].clear()
    again = [await today[0].get(path) for _ in range(2)]

    assert (newest.status_code, newest.json()["code"]) == (404, "not_found")
    assert {answer.status_code for answer in again} == {404}
    assert candle_requests(today[1], "hyperliquid") == []


# --- late edges ---------------------------------------------------------------------------------


async def test_coinbase_candle_that_is_late_comes_when_it_comes_and_then_settles(
    settings: Settings,
) -> None:
    """DASH-USD rows come 45 s after the close: the answer ends at final ones."""
    noon_ms = to_ms(NOON)
    window = {"start": noon_ms - 30 * MINUTE_MS, "end": noon_ms}
    path = f"{COINBASE}/DASH-USD/1m"
    async with at(NOON + timedelta(seconds=30), settings) as (client, _):
        late = await candles(client, path, **window)
        settled = await candles(client, path, **window, settled=True)
    async with at(NOON + timedelta(seconds=59), settings) as (client, _):
        come = await candles(client, path, **window)
    async with at(NOON + timedelta(minutes=7), settings) as (client, _):
        final = await candles(client, path, **window)

    last = noon_ms - MINUTE_MS
    assert final["candles"][-1][0] == last
    assert late["candles"] == [row for row in final["candles"] if row[0] < last]
    assert (late["end"], late["settled_until"], late["complete"]) == (noon_ms, last, True)
    assert (settled["end"], settled["candles"]) == (last, late["candles"])
    assert (come["candles"], come["settled_until"]) == (final["candles"], last)
    assert final["settled_until"] == noon_ms


async def test_hyperliquid_flat_row_that_is_late_stops_finality_until_it_comes(
    settings: Settings,
) -> None:
    """PURR's quiet minutes come two minutes late, as flat rows: never "no candle"."""
    path = f"{HYPERLIQUID}/PURR/1m"
    noon_ms = to_ms(NOON)
    window = {"start": noon_ms - HOUR_MS, "end": noon_ms}
    async with at(NOON + timedelta(hours=1), settings) as (_, sandbox):
        truth = _purr(sandbox, noon_ms - HOUR_MS, noon_ms)
        quiet = max(row[0] for row in truth if row[5] == 0)
    soon = from_ms(int(quiet)) + timedelta(minutes=1, seconds=50)
    window = {"start": noon_ms - HOUR_MS, "end": int(quiet) + MINUTE_MS}
    async with at(soon, settings) as (client, _):
        late = await candles(client, path, **window)
    async with at(soon + timedelta(minutes=20), settings) as (client, _):
        final = await candles(client, path, **window)

    missing = {row[0] for row in truth} - {row[0] for row in late["candles"]}
    assert quiet in missing
    assert late["complete"] is True
    assert late["settled_until"] <= quiet
    assert late["settled_until"] == min(time for time in missing if time <= quiet)
    expected = [row for row in truth if row[0] <= quiet]
    assert [[float(number) for number in row] for row in final["candles"]] == expected
    assert final["settled_until"] == final["end"]


def _purr(sandbox: Sandbox, start_ms: int, end_ms: int) -> list[list[float]]:
    req = {"coin": "PURR", "interval": "1m", "startTime": start_ms, "endTime": end_ms - 1}
    rows = sandbox.post("/hyperliquid/info", {"type": "candleSnapshot", "req": req})
    return [
        [row["t"], *(float(row[key]) for key in "ohlcv")] for row in rows if row["t"] >= start_ms
    ]
