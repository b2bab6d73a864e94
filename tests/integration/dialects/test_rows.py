"""Each exchange's candles through its dialect: its own, row for row."""

import os
import random
from datetime import UTC, datetime
from typing import Any

import psycopg
from support.dialects import opened_doors
from support.standing import NOON_MS

from mdp_core.settings import Settings

MINUTE, DAY = 60_000, 86_400_000
CALLS = int(os.environ.get("MDP_DIALECT_CALLS", "40"))
KLINES = "/fapi/v1/klines"


def as_numbers(value: Any) -> Any:  # noqa: ANN401 - JSON
    """Keep each value's type, whatever its spelling as a string of digits is."""
    if isinstance(value, list):
        return [as_numbers(element) for element in value]
    if isinstance(value, dict):
        return {name: as_numbers(element) for name, element in value.items()}
    try:
        return ("text", float(value)) if isinstance(value, str) else value
    except ValueError:
        return value


def some_time(chance: random.Random) -> int:
    """Return a time on or off the grid: lately, long ago, in the future."""
    back = chance.choice([3 * MINUTE, 40 * MINUTE, DAY, 30 * DAY, 6 * 365 * DAY, -DAY])
    time = NOON_MS - back + chance.randrange(30) * MINUTE
    return time + chance.choice([0, 0, 1, 59_999, 31_000])


def some_klines(chance: random.Random) -> dict[str, str]:
    """Return parameters of `klines`, right ones and wrong ones."""
    params = {
        "symbol": chance.choice(["BTCUSDT", "ETHUSDT", "XRPUSDT", "btcusdt", "OMGUSDT", "NOSUCH"]),
        "interval": chance.choice(["1m", "1m", "15m", "1h", "1d", "1w", "1M", "3d", "7m"]),
        "startTime": str(some_time(chance)),
        "endTime": str(some_time(chance)),
        "limit": chance.choice(["1", "2", "10", "500", "1500", "1501", "0", "x"]),
    }
    for name in ("startTime", "endTime", "limit", "startTime", "endTime"):
        if chance.random() < 0.3:
            params.pop(name, None)
    if chance.random() < 0.1:
        params.pop(chance.choice(["symbol", "interval"]))
    return params


async def test_binance_answers_as_itself(settings: Settings) -> None:
    """Bounds of all kinds, wrong calls too: status, rows and types are the same."""
    chance = random.Random(18)  # noqa: S311 - not a secret
    async with opened_doors(settings) as doors:
        for _ in range(CALLS):
            params = some_klines(chance)
            ours, theirs = await doors.both("binance", KLINES, params)

            assert ours.status_code == theirs.status_code, (params, ours.text, theirs.text)
            assert as_numbers(ours.json()) == as_numbers(theirs.json()), params
            assert ours.headers["X-MBX-USED-WEIGHT-1M"].isdigit()


async def test_what_takers_bought_is_not_invented(
    settings: Settings, database: psycopg.Connection
) -> None:
    """Rows that were stored without it are asked of the exchange again."""
    hour = {"startTime": str(NOON_MS - 60 * MINUTE), "endTime": str(NOON_MS - 50 * MINUTE)}
    async with opened_doors(settings) as doors:
        params = {"symbol": "BTCUSDT", "interval": "1m", **hour}
        window = {"start": hour["startTime"], "end": hour["endTime"]}
        await doors.standing.candles("binance", **window)
        database.execute("UPDATE candles SET taker_buy_volume = NULL")
        ours, theirs = await doors.both("binance", KLINES, params)

        assert ours.json() == theirs.json()
        assert len(ours.json()) == 11


def some_snapshot(chance: random.Random) -> dict[str, object]:
    """Return the request of a snapshot, right or wrong."""
    start, end = some_time(chance), some_time(chance)
    req: dict[str, object] = {
        "coin": chance.choice(["BTC", "ETH", "kPEPE", "btc", "MATIC", "@107", "xyz:TSLA"]),
        "interval": chance.choice(["1m", "1m", "15m", "1h", "1d", "1w", "1M", "6h"]),
        "startTime": min(start, end) if chance.random() < 0.9 else max(start, end),
        "endTime": max(start, end) if chance.random() < 0.9 else min(start, end),
    }
    for name in ("startTime", "endTime", "coin"):
        if chance.random() < 0.08:
            req.pop(name)
    if chance.random() < 0.05:
        req["startTime"] = "1"
    return {"type": "candleSnapshot", "req": req}


async def test_hyperliquid_answers_as_itself(settings: Settings) -> None:
    """Bounds of all kinds; at the edge of its memory, too."""
    chance = random.Random(18)  # noqa: S311 - not a secret
    async with opened_doors(settings) as doors:
        for _ in range(CALLS):
            body = some_snapshot(chance)
            await doors.refill()
            ours, theirs = await doors.both_told(body)

            assert ours.status_code == theirs.status_code, (body, ours.text, theirs.text)
            if theirs.headers["content-type"] == "application/json":
                assert as_numbers(ours.json()) == as_numbers(theirs.json()), body
            else:
                assert ours.text == theirs.text


def some_product(chance: random.Random) -> tuple[str, dict[str, str]]:
    """Return path and parameters of a question for candles, right or wrong."""
    granularity = chance.choice([60, 60, 300, 3600, 21600, 86400, 7])
    start = some_time(chance) // 1000
    end = start + granularity * chance.choice([0, 1, 17, 250, 300, 301, -1])
    params = {"granularity": str(granularity), "start": iso(start, chance), "end": iso(end, chance)}
    for name in ("granularity", "start", "end"):
        if chance.random() < 0.1:
            params.pop(name)
    product = chance.choice(["BTC-USD", "ETH-USD", "AERO-USD", "btc-usd", "DASH-USD", "NO-SUCH"])
    return f"/products/{product}/candles", params


def iso(seconds: int, chance: random.Random) -> str:
    """Write a time as programs do."""
    time = datetime.fromtimestamp(seconds, UTC)
    return chance.choice([time.isoformat(), str(time), time.strftime("%Y-%m-%dT%H:%M:%SZ")])


async def test_coinbase_answers_as_itself(settings: Settings) -> None:
    """Bounds of all kinds; newest first, whole numbers as such."""
    chance = random.Random(18)  # noqa: S311 - not a secret
    async with opened_doors(settings) as doors:
        for _ in range(CALLS):
            path, params = some_product(chance)
            ours, theirs = await doors.both("coinbase", path, params)

            assert ours.status_code == theirs.status_code, (path, params, ours.text, theirs.text)
            assert ours.json() == theirs.json(), (path, params)
