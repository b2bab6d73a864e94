"""The sandbox's Binance, asked over HTTP, against what is known of the real host."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta

import httpx
import pytest

from mdp_core.domain.clock import Clock, to_ms
from mdp_core.domain.intervals import Interval
from scripts.sandbox.app import SandboxOptions, create_sandbox

MINUTE, HOUR, DAY = 60_000, 3_600_000, 86_400_000
HARDLY_MOVING = 1e-9
NOW = datetime(2026, 10, 7, 12, 0, 30, tzinfo=UTC)
NOW_MS = to_ms(NOW)
BTC_FIRST_MINUTE = 1_567_965_300_000  # 2019-09-08 17:55
XRP_DOWN = 1_718_157_600_000  # 2024-06-12 02:00
OMG_DELISTED = 1_738_314_000_000

LIVE = ("PERPETUAL", "TRADING")

Row = list[int | str]


@pytest.fixture
async def client() -> AsyncIterator[httpx.AsyncClient]:
    """A client of a sandbox whose clock hardly moves."""
    app = create_sandbox(SandboxOptions(clock=Clock.starting_at(NOW, HARDLY_MOVING)))
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://sandbox") as client:
        yield client


async def klines(client: httpx.AsyncClient, **params: object) -> httpx.Response:
    query = {"symbol": "BTCUSDT", "interval": "1m", **params}
    sent = {key: str(value) for key, value in query.items() if value is not None}
    return await client.get("/binance/fapi/v1/klines", params=sent)


async def rows(client: httpx.AsyncClient, **params: object) -> list[Row]:
    response = await klines(client, **params)
    assert response.status_code == 200, response.text
    return response.json()


def opens(answer: list[Row]) -> list[int]:
    return [int(row[0]) for row in answer]


async def test_row_has_twelve_fields_of_the_exchange_s_types(client: httpx.AsyncClient) -> None:
    """Times and trades are integers, prices and volumes strings; closes a ms early."""
    (row,) = await rows(client, startTime=NOW_MS - DAY, limit=1)

    assert [type(field) for field in row] == [int] + [str] * 5 + [int, str, int, str, str, str]
    assert row[6] == int(row[0]) + MINUTE - 1
    assert float(row[9]) <= float(row[5])


async def test_both_bounds_are_inclusive_and_hold_for_the_open_time(
    client: httpx.AsyncClient,
) -> None:
    """A row that opens at either bound is there; unaligned bounds round inwards."""
    start = NOW_MS - NOW_MS % HOUR - DAY

    exact = await rows(client, startTime=start, endTime=start + 5 * MINUTE)
    inside = await rows(client, startTime=start + 1, endTime=start + 5 * MINUTE - 1)
    assert opens(exact) == [start + i * MINUTE for i in range(6)]
    assert opens(inside) == [start + i * MINUTE for i in range(1, 5)]


async def test_window_wider_than_the_limit_gives_its_first_rows(client: httpx.AsyncClient) -> None:
    """Over-wide ranges are cut at the end; without `limit` at 500 rows."""
    start = NOW_MS - NOW_MS % DAY - 10 * DAY

    cut = await rows(client, startTime=start, endTime=NOW_MS, limit=7)
    default = await rows(client, startTime=start)
    assert opens(cut) == [start + i * MINUTE for i in range(7)]
    assert len(default) == 500


async def test_without_start_the_newest_rows_come_back(client: httpx.AsyncClient) -> None:
    """Neither bound: the rows up to the forming one; an end only: the rows up to it."""
    newest = await rows(client, limit=3)
    ended = await rows(client, limit=3, endTime=NOW_MS - DAY)

    forming = NOW_MS - NOW_MS % MINUTE
    assert opens(newest) == [forming - 2 * MINUTE, forming - MINUTE, forming]
    assert opens(ended) == [row - DAY for row in opens(newest)]


async def test_forming_candle_comes_last_and_closes_in_the_future(
    client: httpx.AsyncClient,
) -> None:
    """Only its closing time tells the forming candle; its volume is partial."""
    *_, closed, forming = await rows(client, interval="1d", limit=5)

    assert int(closed[6]) < NOW_MS <= int(forming[6])
    assert int(forming[8]) > 0


async def test_before_listing_the_first_real_row_comes_first(client: httpx.AsyncClient) -> None:
    """Candles begin in the slot of the listing, before BTCUSDT's later `onboardDate`."""
    info = (await client.get("/binance/fapi/v1/exchangeInfo")).json()
    onboard = next(s["onboardDate"] for s in info["symbols"] if s["symbol"] == "BTCUSDT")

    assert opens(await rows(client, startTime=0, limit=1)) == [BTC_FIRST_MINUTE]
    (day,) = await rows(client, startTime=0, limit=1, interval="1d")
    assert day[0] == BTC_FIRST_MINUTE - BTC_FIRST_MINUTE % DAY < onboard
    assert await rows(client, startTime=0, endTime=BTC_FIRST_MINUTE - 1) == []


@pytest.mark.parametrize(
    ("interval", "opening"),
    [
        ("3d", "2024-01-01"),
        ("1w", "2024-06-10"),
        ("1M", "2024-02-01"),
        ("1M", "2024-03-01"),
        ("8h", "2024-02-01"),
    ],
)
async def test_long_candles_open_where_the_exchange_s_do(
    client: httpx.AsyncClient, interval: str, opening: str
) -> None:
    """3d opens a day after the epoch's multiples, weeks on Mondays, months on the 1st."""
    start = to_ms(datetime.fromisoformat(opening).replace(tzinfo=UTC))

    first = await rows(client, interval=interval, startTime=start, limit=2)
    before = await rows(client, interval=interval, endTime=start - 1, limit=1)
    assert first[0][0] == start
    assert before[0][6] == start - 1
    assert first[0][6] == int(first[1][0]) - 1


async def test_all_fifteen_intervals_are_served(client: httpx.AsyncClient) -> None:
    """Minute and month differ by case only."""
    for interval in Interval:
        assert len(await rows(client, interval=interval, limit=2)) == 2


async def test_downtime_is_a_hole_and_quiet_minutes_are_flat(client: httpx.AsyncClient) -> None:
    """Rows are absent for two hours of XRPUSDT; DEFIUSDT has rows without volume."""
    hole = await rows(client, symbol="XRPUSDT", startTime=XRP_DOWN - MINUTE, limit=2)
    quiet = await rows(client, symbol="DEFIUSDT", startTime=NOW_MS - DAY, limit=100)

    assert opens(hole) == [XRP_DOWN - MINUTE, XRP_DOWN + 2 * HOUR]
    flat = [row for row in quiet if float(row[5]) == 0]
    assert 10 < len(flat) < 60
    assert all(row[8] == 0 and len(set(row[1:5])) == 1 for row in flat)


async def test_delisted_symbol_stays_with_its_history(client: httpx.AsyncClient) -> None:
    """OMGUSDT is listed as SETTLING and its candles end before the delivery date."""
    info = (await client.get("/binance/fapi/v1/exchangeInfo")).json()
    omg = next(symbol for symbol in info["symbols"] if symbol["symbol"] == "OMGUSDT")

    assert (omg["status"], omg["deliveryDate"]) == ("SETTLING", OMG_DELISTED)
    assert opens(await rows(client, symbol="OMGUSDT", limit=1)) == [OMG_DELISTED - MINUTE]


async def test_symbols_are_many_and_odd_ones_among_them(client: httpx.AsyncClient) -> None:
    """At least 300 symbols, unique, with the words that a client must cope with."""
    info = (await client.get("/binance/fapi/v1/exchangeInfo")).json()
    symbols = {symbol["symbol"]: symbol for symbol in info["symbols"]}

    live = [s for s in symbols.values() if (s["contractType"], s["status"]) == LIVE]
    assert len(symbols) == len(info["symbols"])
    assert len(live) >= 300
    assert symbols["1INCHUSDT"]["baseAsset"] == "1INCH"
    assert symbols["币安人生USDT"]["status"] == "TRADING"
    odd = {symbols[name]["contractType"] for name in ("XAUUSDT", "BTCUSDT_261225", "BTCSTUSDT")}
    assert odd == {"TRADIFI_PERPETUAL", "CURRENT_QUARTER", ""}
    assert info["serverTime"] == NOW_MS - 37 * HOUR


async def test_lower_case_symbols_are_understood(client: httpx.AsyncClient) -> None:
    """The host takes either case."""
    assert await rows(client, symbol="btcusdt") == await rows(client)


@pytest.mark.parametrize(
    ("params", "code", "text"),
    [
        ({"symbol": "NOPEUSDT"}, -1121, "Invalid symbol."),
        ({"interval": "1s"}, -1120, "Invalid interval."),
        ({"interval": "1D"}, -1120, "Invalid interval."),
        ({"limit": 1501}, -1130, "Data sent for parameter 'limit' is not valid."),
        ({"limit": 0}, -1130, "Data sent for parameter 'limit' is not valid."),
        ({"symbol": None}, -1102, "Mandatory parameter 'symbol' was not sent"),
        ({"interval": None}, -1102, "Mandatory parameter 'interval' was not sent"),
        ({"symbol": ""}, -1105, "Parameter 'symbol' was empty."),
        ({"startTime": "x"}, -1100, "Illegal characters found in parameter 'startTime'"),
        ({"startTime": "-1"}, -1100, "Illegal characters found in parameter 'startTime'"),
        ({"endTime": ""}, -1105, "Parameter 'endTime' was empty."),
        ({"timeZone": "8"}, -1104, "Not all sent parameters were read; read '2'"),
        ({"startTime": 2, "endTime": 1}, -1023, "Start time is greater than end time."),
    ],
)
async def test_bad_parameters_get_the_exchange_s_codes(
    client: httpx.AsyncClient, params: dict[str, object], code: int, text: str
) -> None:
    """Each mistake is answered with 400 and its own code."""
    response = await klines(client, **params)

    assert response.status_code == 400
    assert response.json()["code"] == code
    assert response.json()["msg"].startswith(text)


@pytest.mark.parametrize(
    ("limit", "weight"),
    [(1, 1), (100, 1), (101, 2), (499, 2), (500, 2), (501, 5), (1000, 5), (1001, 10), (1500, 10)],
)
async def test_weight_follows_the_limit(client: httpx.AsyncClient, limit: int, weight: int) -> None:
    """The header tells the weight used; a first request uses its own."""
    response = await klines(client, limit=limit)

    assert response.headers["X-MBX-USED-WEIGHT-1M"] == str(weight)


async def test_every_response_costs_and_tells_the_weight(client: httpx.AsyncClient) -> None:
    """No limit costs 5, a refused limit 10, the other paths 1, unknown ones too."""
    used = []
    for path in ("klines?symbol=BTCUSDT&interval=1m", "klines?limit=1501", "time", "ping", "nope"):
        response = await client.get(f"/binance/fapi/v1/{path}")
        used.append(int(response.headers["X-MBX-USED-WEIGHT-1M"]))

    assert used == [5, 15, 16, 17, 18]


async def test_exceeding_the_limit_is_refused_then_banned(client: httpx.AsyncClient) -> None:
    """Past 2400 in a minute: 429 with -1003 and Retry-After, and 418 on repetition."""
    answers = [await klines(client, limit=1500)]
    while answers[-1].status_code != 418 and len(answers) < 600:  # a minute may end in between
        answers.append(await klines(client, limit=1500))

    codes = [answer.status_code for answer in answers]
    assert codes.index(429) >= 240
    assert codes[-12:] == [200] + [429] * 10 + [418]
    refused, banned = answers[-2], answers[-1]
    assert refused.json()["code"] == -1003
    assert "2400 requests per minute" in refused.json()["msg"]
    assert 1 <= int(refused.headers["Retry-After"]) <= 60
    assert banned.status_code == 418
    assert "IP banned until" in banned.json()["msg"]
    assert int(banned.headers["Retry-After"]) > 60


async def test_time_is_the_clock_s_and_unknown_paths_are_named(client: httpx.AsyncClient) -> None:
    """`time` gives the exchange's time, not the machine's."""
    now = await client.get("/binance/fapi/v1/time")
    missing = await client.get("/binance/fapi/v1/nope")

    assert now.json() == {"serverTime": NOW_MS}
    assert (missing.status_code, missing.json()["code"]) == (404, -5000)


async def test_symbols_listed_later_are_pending_at_an_earlier_time() -> None:
    """A clock set back sees symbols as they stood then."""
    early = Clock.starting_at(NOW - timedelta(days=5 * 365), HARDLY_MOVING)
    app = create_sandbox(SandboxOptions(clock=early))
    async with httpx.AsyncClient(
        transport=httpx.ASGITransport(app), base_url="http://sandbox"
    ) as client:
        info = (await client.get("/binance/fapi/v1/exchangeInfo")).json()
    status = {symbol["symbol"]: symbol["status"] for symbol in info["symbols"]}

    assert (status["OMGUSDT"], status["BTCUSDC"]) == ("TRADING", "PENDING_TRADING")
