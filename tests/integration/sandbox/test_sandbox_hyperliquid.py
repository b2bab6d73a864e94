"""The sandbox's Hyperliquid, by HTTP, against known facts of the real one."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta

import httpx
import pytest

from mdp_core.domain.clock import Clock, to_ms
from scripts.sandbox.app import SandboxOptions, create_sandbox

MINUTE, HOUR, DAY = 60_000, 3_600_000, 86_400_000
HARDLY_MOVING = 1e-9
NOW = datetime(2026, 10, 7, 12, 0, 30, tzinfo=UTC)
NOW_MS = to_ms(NOW)
BTC_FIRST_DAY = 1_597_795_200_000  # 2020-08-19
INTERVALS = ["1m", "3m", "5m", "15m", "30m", "1h", "2h", "4h", "8h", "12h", "1d", "3d", "1w", "1M"]

Row = dict[str, int | str]


async def open_client(now: datetime) -> httpx.AsyncClient:
    app = create_sandbox(SandboxOptions(clock=Clock.starting_at(now, HARDLY_MOVING), limits=False))
    return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://sandbox")


@pytest.fixture
async def client() -> AsyncIterator[httpx.AsyncClient]:
    """A client of a sandbox whose clock hardly moves."""
    async with await open_client(NOW) as client:
        yield client


async def info(client: httpx.AsyncClient, **body: object) -> httpx.Response:
    return await client.post("/hyperliquid/info", json=body)


async def snapshot(client: httpx.AsyncClient, **req: object) -> httpx.Response:
    known = {"coin": "ETH", "interval": "1h", "startTime": 0, "endTime": NOW_MS, **req}
    return await info(client, type="candleSnapshot", req=known)


async def rows(client: httpx.AsyncClient, **req: object) -> list[Row]:
    response = await snapshot(client, **req)
    assert response.status_code == 200, response.text
    return response.json()


def opens(answer: list[Row]) -> list[int]:
    return [int(row["t"]) for row in answer]


async def test_row_is_an_object_of_the_exchange_s_types(client: httpx.AsyncClient) -> None:
    """Times and trades are integers, prices and volumes strings; coin and interval."""
    row = (await rows(client, startTime=NOW_MS - 2 * HOUR))[0]

    assert {key: type(value) for key, value in row.items()} == {
        **dict.fromkeys("tTn", int),
        **dict.fromkeys("siochlv", str),
    }
    assert (row["s"], row["i"], row["T"]) == ("ETH", "1h", int(row["t"]) + HOUR - 1)


async def test_window_holds_every_candle_that_overlaps_it(client: httpx.AsyncClient) -> None:
    """The candle in which the window starts opens before it; the end is inclusive."""
    base = NOW_MS - NOW_MS % HOUR - 10 * HOUR

    unaligned = await rows(client, startTime=base + 1, endTime=base + 2 * HOUR - 1)
    aligned = await rows(client, startTime=base, endTime=base + 2 * HOUR)
    assert opens(unaligned) == [base, base + HOUR]
    assert opens(aligned) == [base, base + HOUR, base + 2 * HOUR]


async def test_end_may_be_left_out(client: httpx.AsyncClient) -> None:
    """Without an end, or with null, the window reaches to the forming candle."""
    body = {"coin": "ETH", "interval": "1h", "startTime": NOW_MS - HOUR}

    without = await info(client, type="candleSnapshot", req=body)
    assert without.json() == await rows(client, startTime=NOW_MS - HOUR, endTime=None)
    assert without.json()[-1]["T"] >= NOW_MS


async def test_only_the_newest_5000_candles_exist(client: httpx.AsyncClient) -> None:
    """A wide window gives the latest 5000; older ones are forgotten, without an error."""
    answer = await rows(client, interval="1m")

    edge = int(answer[0]["t"])
    assert len(answer) == 5000
    assert answer[-1]["t"] == NOW_MS - NOW_MS % MINUTE
    assert await rows(client, interval="1m", startTime=edge - DAY, endTime=edge - 1) == []
    across = await rows(client, interval="1m", startTime=edge - DAY, endTime=edge + MINUTE)
    assert opens(across) == [edge, edge + MINUTE]


async def test_rows_from_before_trading_have_no_volume(client: httpx.AsyncClient) -> None:
    """BTC's daily rows begin in 2020; the first with trades are those of reality."""
    daily = await rows(client, coin="BTC", interval="1d")
    traded = {}
    for interval in ("4h", "8h", "12h", "1d", "3d", "1w"):
        answer = await rows(client, coin="BTC", interval=interval)
        first = next(row for row in answer if row["n"])
        traded[interval] = datetime.fromtimestamp(int(first["t"]) / 1000, UTC).isoformat()[:13]

    assert daily[0]["t"] == BTC_FIRST_DAY
    assert (daily[0]["v"], daily[0]["n"]) == ("0.0", 0)
    assert len({row["c"] for row in daily[:900]}) > 400
    del traded["4h"]  # its 5000 newest rows begin after that
    assert traded == {
        "8h": "2023-02-26T16",
        "12h": "2023-02-26T12",
        "1d": "2023-02-26T00",
        "3d": "2023-02-25T00",
        "1w": "2023-02-23T00",
    }


async def test_quiet_minute_is_missing_first_and_flat_later(client: httpx.AsyncClient) -> None:
    """PURR's minutes without trades appear as flat rows two minutes after their close."""
    start = NOW_MS - NOW_MS % DAY
    settled = await rows(client, coin="PURR", interval="1m", startTime=start)
    flat = [row for row in settled if row["n"] == 0]
    opened = datetime.fromtimestamp(int(flat[-1]["t"]) / 1000, UTC)

    assert len(flat) > 100
    assert all(row["v"] == "0.0" and len({row[key] for key in "ohlc"}) == 1 for row in flat)
    seen = []
    for minutes in (1, 2, 3):
        async with await open_client(opened + timedelta(minutes=minutes, seconds=1)) as later:
            answer = await rows(later, coin="PURR", interval="1m", startTime=start)
            seen.append(int(flat[-1]["t"]) in opens(answer))
    assert seen == [False, False, True]


async def test_delisted_coins_are_flagged_and_answer_either_way(
    client: httpx.AsyncClient,
) -> None:
    """MATIC keeps its history, RNDR answers with nothing; both stay in the universe."""
    universe = (await info(client, type="meta")).json()["universe"]
    delisted = {coin["name"] for coin in universe if coin.get("isDelisted")}

    assert {"MATIC", "RNDR", "kDOGS"} <= delisted
    assert "BTC" not in delisted
    assert len(await rows(client, coin="MATIC", interval="1d")) > 300
    assert await rows(client, coin="RNDR", interval="1d") == []


@pytest.mark.parametrize("interval", INTERVALS)
async def test_every_interval_is_a_multiple_from_the_epoch(
    client: httpx.AsyncClient, interval: str
) -> None:
    """Weeks open on Thursdays, and a month is a block of thirty days."""
    length = (
        int(interval[:-1])
        * {"m": MINUTE, "h": HOUR, "d": DAY, "w": 7 * DAY, "M": 30 * DAY}[interval[-1]]
    )
    answer = await rows(client, interval=interval)

    assert all(opened % length == 0 for opened in opens(answer))
    assert all(int(row["T"]) == int(row["t"]) + length - 1 for row in answer)


@pytest.mark.parametrize(
    "req",
    [
        {"startTime": -1},
        {"startTime": "0"},
        {"endTime": 1.5},
        {"startTime": None},
        {"startTime": True},
        {"interval": "6h"},
        {"interval": "1H"},
        {"interval": None},
        {"coin": 7},
    ],
)
async def test_malformed_requests_get_422_and_plain_text(
    client: httpx.AsyncClient, req: dict[str, object]
) -> None:
    """Negative and text times, unknown intervals and wrong types aren't deserialized."""
    response = await snapshot(client, **req)

    assert response.status_code == 422
    assert response.headers["content-type"].startswith("text/plain")
    assert response.text == "Failed to deserialize the JSON body into the target type"


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b'{"type":"nope"}', b'{"type":["meta"]}'])
async def test_unknown_bodies_get_422(client: httpx.AsyncClient, body: bytes) -> None:
    """A body that is no JSON object of a known type is refused, never a crash."""
    response = await client.post("/hyperliquid/info", content=body)

    assert response.status_code == 422


async def test_unknown_coin_gets_500_and_null(client: httpx.AsyncClient) -> None:
    """Names are case sensitive; an unknown one is answered with `null`."""
    for coin in ("NOPE", "btc", "KPEPE", "TSLA"):
        response = await snapshot(client, coin=coin)
        assert (response.status_code, response.json()) == (500, None)
    assert len(await rows(client, coin="kPEPE")) > 0


async def test_metadata_fits_together(client: httpx.AsyncClient) -> None:
    """Contexts are in the universe's order; builders' coins are in their own dex only."""
    meta = (await info(client, type="meta")).json()
    both, contexts = (await info(client, type="metaAndAssetCtxs")).json()
    builder = (await info(client, type="meta", dex="xyz")).json()
    dexes = (await info(client, type="perpDexs")).json()

    assert both == meta
    assert len(contexts) == len(meta["universe"])
    assert not any(":" in coin["name"] for coin in meta["universe"])
    assert all(coin["name"].startswith("xyz:") for coin in builder["universe"])
    assert dexes[0] is None
    assert dexes[1]["name"] == "xyz"
    assert (await info(client, type="allPerpMetas")).json() == [meta, builder]
    assert len(await rows(client, coin="xyz:TSLA", interval="1d")) > 0
    assert len(await rows(client, coin="@107", interval="1d")) > 0
    assert (await info(client, type="meta", dex="nope")).json() is None


async def test_exchange_status_tells_the_time(client: httpx.AsyncClient) -> None:
    """The exchange's time is the clock's."""
    assert (await info(client, type="exchangeStatus")).json()["time"] == NOW_MS


async def test_rows_are_charged_and_the_limit_holds(client: httpx.AsyncClient) -> None:
    """1200 a minute: 5000 rows cost 103, so at most a dozen such requests go through."""
    await client.post("/_sandbox/settings", json={"limits": "on"})
    codes = [(await snapshot(client, interval="1m")).status_code]
    while codes[-1] == 200 and len(codes) < 40:  # a minute may end in between
        codes.append((await snapshot(client, interval="1m")).status_code)

    assert codes[-1] == 429
    assert codes.count(200) in range(11, 23)
