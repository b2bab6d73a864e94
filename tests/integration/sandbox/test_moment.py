"""Public endpoints beside candles: books, tickers, funding, trades, lists."""

from collections.abc import AsyncIterator
from itertools import pairwise
from typing import Any

import httpx
import pytest
from support.sandbox_exchanges import DAY, HOUR, MINUTE, NOW_MS, opened, order

START = NOW_MS - NOW_MS % DAY - 10 * DAY
FUNDED = 8 * HOUR


@pytest.fixture
async def client() -> AsyncIterator[httpx.AsyncClient]:
    async with opened() as client:
        yield client


async def binance(client: httpx.AsyncClient, path: str, **params: object) -> Any:  # noqa: ANN401
    answer = await client.get(
        f"/binance/fapi/v1/{path}", params={k: str(params[k]) for k in params}
    )
    assert answer.status_code == 200, answer.text
    return answer.json()


async def info(client: httpx.AsyncClient, kind: str, **params: object) -> Any:  # noqa: ANN401
    answer = await client.post("/hyperliquid/info", json={"type": kind, **params})
    assert answer.status_code == 200, answer.text
    return answer.json()


async def last_close(client: httpx.AsyncClient, symbol: str) -> float:
    """Give the price that the forming candle of a Binance symbol shows."""
    (row,) = await binance(client, "klines", symbol=symbol, interval="1m", limit=1)
    return float(row[4])


# --- Binance ------------------------------------------------------------------------------------


@pytest.mark.parametrize("depth", [5, 20, 1000])
async def test_depth_surrounds_the_last_price(client: httpx.AsyncClient, depth: int) -> None:
    """Bids fall from the price, asks rise above it, as many of each as asked for."""
    book = await binance(client, "depth", symbol="BTCUSDT", limit=depth)
    bids, asks = ([float(price) for price, _ in book[side]] for side in ("bids", "asks"))

    assert len(bids) == len(asks) == depth
    assert bids == sorted(bids, reverse=True)
    assert asks == sorted(asks)
    assert bids[0] == await last_close(client, "BTCUSDT") < asks[0]
    assert book.keys() == {"lastUpdateId", "E", "T", "bids", "asks"}
    assert {type(text) for level in book["bids"] for text in level} == {str}


async def test_tickers_agree_with_the_candles(client: httpx.AsyncClient) -> None:
    """Price, best offers, mark price and the last day's range are those of the series."""
    price = await last_close(client, "ETHUSDT")
    hours = await binance(client, "klines", symbol="ETHUSDT", interval="1h", limit=24)
    ticker = await binance(client, "ticker/price", symbol="ethusdt")
    best = await binance(client, "ticker/bookTicker", symbol="ETHUSDT")
    premium = await binance(client, "premiumIndex", symbol="ETHUSDT")
    day = await binance(client, "ticker/24hr", symbol="ETHUSDT")

    assert ticker == {"symbol": "ETHUSDT", "price": f"{price:.2f}", "time": NOW_MS}
    assert float(best["bidPrice"]) == float(premium["markPrice"]) == price
    assert float(best["askPrice"]) == round(price + 0.01, 2)
    assert (float(day["openPrice"]), float(day["lastPrice"])) == (float(hours[0][1]), price)
    assert float(day["highPrice"]) == max(float(row[2]) for row in hours)
    assert float(day["lowPrice"]) == min(float(row[3]) for row in hours)
    assert abs(float(day["volume"]) - sum(float(row[5]) for row in hours)) < 0.01
    assert premium["nextFundingTime"] % FUNDED == 0 < premium["nextFundingTime"] - NOW_MS <= FUNDED


@pytest.mark.parametrize(
    "path", ["ticker/price", "ticker/24hr", "ticker/bookTicker", "premiumIndex"]
)
async def test_without_a_symbol_all_that_trade_are_listed(
    client: httpx.AsyncClient, path: str
) -> None:
    """A delisted and a pending symbol have no quote; a Chinese one has."""
    listed = {entry["symbol"] for entry in await binance(client, path)}

    assert {"BTCUSDT", "币安人生USDT", "BTCUSDT_261225"} <= listed
    assert not listed & {"OMGUSDT", "BTCSTUSDT"}
    assert len(listed) >= 250


async def test_funding_rates_come_every_eight_hours(client: httpx.AsyncClient) -> None:
    """From `startTime` the first, otherwise the newest; both bounds are inclusive."""
    asked = {"symbol": "BTCUSDT", "startTime": START}
    first = await binance(client, "fundingRate", **asked, limit=5)
    bounded = await binance(client, "fundingRate", **asked, endTime=START + FUNDED)
    newest = await binance(client, "fundingRate", symbol="BTCUSDT")

    assert [entry["fundingTime"] for entry in first] == [START + i * FUNDED for i in range(5)]
    assert bounded == first[:2]
    assert len(newest) == 100
    assert newest[-1]["fundingTime"] == NOW_MS - NOW_MS % FUNDED
    assert first[0].keys() == {"symbol", "fundingTime", "fundingRate", "markPrice"}
    assert len({entry["fundingRate"] for entry in newest}) > 50
    assert all(abs(float(entry["fundingRate"])) < 0.001 for entry in newest)


async def test_funding_rates_of_all_symbols_are_the_newest(client: httpx.AsyncClient) -> None:
    """Without a symbol each has its last one, at most as many as the limit."""
    everything = await binance(client, "fundingRate", limit=1000)
    some = await binance(client, "fundingRate", limit=7)

    assert len({entry["symbol"] for entry in everything}) == len(everything) >= 300
    assert len(some) == 7


async def test_mark_prices_are_candles_without_volume(client: httpx.AsyncClient) -> None:
    """Same slots and prices; a fault of the candles leaves them alone."""
    asked = {"symbol": "BTCUSDT", "interval": "8h", "startTime": START, "limit": 5}
    candles = await binance(client, "klines", **asked)
    await order(client, "binance", "server_error")
    marks = await binance(client, "markPriceKlines", **asked)

    assert [row[:5] for row in marks] == [row[:5] for row in candles]
    assert [row[6] for row in marks] == [row[6] for row in candles]
    assert {float(row[place]) for row in marks for place in (5, 7, 9, 10)} == {0.0}


async def test_trades_walk_through_the_candles(client: httpx.AsyncClient) -> None:
    """Ascending, by number or by time, each at a price inside its minute's candle."""
    (row,) = await binance(
        client, "klines", symbol="BTCUSDT", interval="1m", startTime=START, limit=1
    )
    first = await binance(client, "aggTrades", symbol="BTCUSDT", startTime=START, limit=12)
    minute = await binance(
        client, "aggTrades", symbol="BTCUSDT", startTime=START, endTime=START + MINUTE - 1
    )
    after = await binance(client, "aggTrades", symbol="BTCUSDT", fromId=first[5]["a"], limit=3)
    newest = await binance(client, "aggTrades", symbol="BTCUSDT")

    assert first == minute
    assert after == first[5:8]
    assert first[0].keys() == {"a", "p", "q", "f", "l", "T", "m"}
    assert all(float(row[3]) <= float(trade["p"]) <= float(row[2]) for trade in first)
    assert (float(first[0]["p"]), float(first[-1]["p"])) == (float(row[1]), float(row[4]))
    assert abs(sum(float(trade["q"]) for trade in first) - float(row[5])) < 0.01
    assert len(newest) == 500
    assert newest[-1]["T"] == NOW_MS
    assert all(one["T"] < other["T"] <= NOW_MS for one, other in pairwise(newest))


@pytest.mark.parametrize(
    ("path", "params", "code"),
    [
        *((path, {"symbol": "NOPE"}, -1121) for path in ("depth", "aggTrades", "premiumIndex")),
        ("ticker/24hr", {"symbol": "OMGUSDT"}, -1121),
        ("markPriceKlines", {"symbol": "BTCUSDT", "interval": "7m"}, -1120),
        ("depth", {}, -1102),
        ("depth", {"symbol": "BTCUSDT", "limit": 7}, -4021),
        ("fundingRate", {"symbol": "BTCUSDT", "limit": 1001}, -1130),
        ("fundingRate", {"symbol": "BTCUSDT", "startTime": 5, "endTime": 4}, -1023),
        ("aggTrades", {"symbol": "BTCUSDT", "startTime": "x"}, -1100),
    ],
)
async def test_binance_refuses_as_for_candles(
    client: httpx.AsyncClient, path: str, params: dict[str, object], code: int
) -> None:
    """400 with the code and a message."""
    answer = await client.get(
        f"/binance/fapi/v1/{path}", params={k: str(params[k]) for k in params}
    )

    assert answer.status_code == 400
    assert answer.json()["code"] == code
    assert answer.json()["msg"]


@pytest.mark.parametrize(
    ("path", "weight"),
    [
        ("depth?symbol=BTCUSDT&limit=50", 2),
        ("depth?symbol=BTCUSDT&limit=100", 5),
        ("depth?symbol=BTCUSDT", 10),
        ("depth?symbol=BTCUSDT&limit=1000", 20),
        ("ticker/24hr?symbol=BTCUSDT", 1),
        ("ticker/24hr", 40),
        ("ticker/bookTicker", 5),
        ("premiumIndex", 10),
        ("aggTrades?symbol=BTCUSDT", 20),
        ("markPriceKlines?symbol=BTCUSDT&interval=1m&limit=1000", 5),
        ("fundingRate", 1),
    ],
)
async def test_requests_have_their_weights(path: str, weight: int) -> None:
    """As documented, with a symbol and without."""
    async with opened(limits=True) as client:
        answer = await client.get(f"/binance/fapi/v1/{path}")

    assert answer.headers["x-mbx-used-weight-1m"] == str(weight)


# --- Hyperliquid --------------------------------------------------------------------------------


async def test_hyperliquid_s_book_has_twenty_levels(client: httpx.AsyncClient) -> None:
    """Bids first, then asks, as objects, around the price of the forming candle."""
    book = await info(client, "l2Book", coin="BTC")
    req = {"coin": "BTC", "interval": "1m", "startTime": NOW_MS - MINUTE, "endTime": NOW_MS}
    rows = await info(client, "candleSnapshot", req=req)
    bids, asks = book["levels"]

    assert (book["coin"], book["time"]) == ("BTC", NOW_MS)
    assert (len(bids), len(asks)) == (20, 20)
    assert bids[0].keys() == {"px", "sz", "n"}
    assert float(bids[0]["px"]) == float(rows[-1]["c"]) < float(asks[0]["px"])


async def test_hyperliquid_s_funding_is_hourly(client: httpx.AsyncClient) -> None:
    """The window's first 500 rates, none before trading; without an end up to now."""
    history = await info(client, "fundingHistory", coin="BTC", startTime=0)
    newest = await info(client, "fundingHistory", coin="ETH", startTime=NOW_MS - 3 * HOUR)
    bounded = await info(
        client, "fundingHistory", coin="ETH", startTime=START, endTime=START + 2 * HOUR
    )

    assert len(history) == 500
    assert history[0]["time"] == 1_677_430_800_000  # 2023-02-26 17:00, the hour after trading began
    assert [entry["time"] for entry in bounded] == [START + i * HOUR for i in range(3)]
    assert len(newest) == 3
    assert newest[0].keys() == {"coin", "fundingRate", "premium", "time"}


@pytest.mark.parametrize(
    ("asked", "status", "body"),
    [
        ({"type": "l2Book", "coin": "NOPE"}, 500, "null"),
        ({"type": "fundingHistory", "coin": "NOPE", "startTime": 0}, 500, "null"),
        ({"type": "fundingHistory", "coin": "BTC"}, 422, "Failed to deserialize"),
        ({"type": "fundingHistory", "coin": "BTC", "startTime": "0"}, 422, "Failed to deserialize"),
        ({"type": "meta", "dex": "nope"}, 500, "null"),
    ],
    ids=str,
)
async def test_hyperliquid_refuses_what_it_does_not_know(
    client: httpx.AsyncClient, asked: dict[str, object], status: int, body: str
) -> None:
    """An unknown coin gets `null`, a body of another shape plain text."""
    answer = await client.post("/hyperliquid/info", json=asked)

    assert answer.status_code == status
    assert answer.text.startswith(body)


async def test_hyperliquid_s_lists_fit_one_another(client: httpx.AsyncClient) -> None:
    """The main dex is the empty one; states come in the order of the universe."""
    main, named, builders = [
        await info(client, "meta", **d) for d in ({}, {"dex": ""}, {"dex": "xyz"})
    ]
    meta, states = await info(client, "metaAndAssetCtxs")
    spot, spot_states = await info(client, "spotMetaAndAssetCtxs")
    mids = await info(client, "allMids")

    assert main == named == meta
    assert len(states) == len(meta["universe"])
    assert await info(client, "allPerpMetas") == [main, builders]
    assert [dex and dex["name"] for dex in await info(client, "perpDexs")] == [None, "xyz"]
    assert spot == await info(client, "spotMeta")
    assert [state["coin"] for state in spot_states] == [token["name"] for token in spot["universe"]]
    assert {"BTC", "PURR/USDC", "@107"} <= mids.keys()


# --- Coinbase -----------------------------------------------------------------------------------


async def test_coinbase_s_ticker_and_book_agree(client: httpx.AsyncClient) -> None:
    """Level 1: best offers, as in the ticker; level 2: fifty; level 3: single orders."""
    ticker = (await client.get("/coinbase/products/ETH-USD/ticker")).json()
    best, levels, orders = [
        (await client.get(f"/coinbase/products/ETH-USD/book?level={level}")).json()
        for level in (1, 2, 3)
    ]
    default = (await client.get("/coinbase/products/ETH-USD/book")).json()

    assert ticker["bid"] == best["bids"][0][0] == levels["bids"][0][0] == ticker["price"]
    assert ticker["ask"] == best["asks"][0][0] > ticker["bid"]
    assert ticker["time"] == best["time"] == "2026-10-07T12:00:30.000000Z"
    assert default == best
    assert [len(book["asks"]) for book in (best, levels)] == [1, 50]
    assert isinstance(levels["bids"][0][2], int)
    assert len({order[2] for order in orders["bids"]}) == len(orders["bids"]) > 50
    assert float(ticker["volume"]) > 0


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/products/NOPE-USD/ticker", 404),
        ("/products/MOVE-USD/book", 404),
        ("/products/ETH-USD/book?level=4", 400),
    ],
)
async def test_coinbase_refuses_with_a_message(
    client: httpx.AsyncClient, path: str, status: int
) -> None:
    """An unknown or delisted product has no quote, and there are three levels."""
    answer = await client.get(f"/coinbase{path}")

    assert answer.status_code == status
    assert answer.json()["message"]


async def test_currencies_are_those_of_the_products(client: httpx.AsyncClient) -> None:
    """Each base and each quote is described once."""
    products = (await client.get("/coinbase/products")).json()
    currencies = [entry["id"] for entry in (await client.get("/coinbase/currencies")).json()]

    named = {part for product in products for part in product["id"].split("-", 1)}
    assert currencies == sorted(named)


# --- a status that no client knows --------------------------------------------------------------


async def test_unknown_status_can_be_switched_off(client: httpx.AsyncClient) -> None:
    """The symbol stays in the list, inactive, with a status that is documented."""

    async def statuses() -> tuple[str, str]:
        symbols = await binance(client, "exchangeInfo")
        (futures,) = [s["status"] for s in symbols["symbols"] if s["symbol"] == "NOVELUSDT"]
        spot = (await client.get("/coinbase/products/NOVEL-USD")).json()["status"]
        return futures, spot

    before = await statuses()
    answer = await client.post("/_sandbox/settings", json={"unknown_status": "off"})
    after = await statuses()
    await client.post("/_sandbox/settings", json={"unknown_status": "on"})

    assert before == await statuses() == ("AUCTION_MATCH", "hibernating")
    assert after == ("CLOSE", "offline")
    assert answer.json() == {"latency_ms": 0, "limits": "off"}
