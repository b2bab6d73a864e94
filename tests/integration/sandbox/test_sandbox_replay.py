"""Replayed series: the file's rows, all, to the last decimal, and nothing else."""

import csv
import gzip
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path

import httpx
import pytest

from mdp_core.domain.clock import Clock, from_ms
from scripts.sandbox.app import SandboxOptions, create_sandbox

MINUTE, DAY = 60_000, 86_400_000
HARDLY_MOVING = 1e-9
SHARED = Path(__file__).parents[4] / "shared" / "data"
Row = list[float]

needs_shared = pytest.mark.skipif(not SHARED.is_dir(), reason="the recorded candles aren't here")


@asynccontextmanager
async def opened(folder: Path, now: datetime) -> AsyncGenerator[httpx.AsyncClient]:
    options = SandboxOptions(clock=Clock.starting_at(now, HARDLY_MOVING), data=folder, limits=False)
    transport = httpx.ASGITransport(create_sandbox(options))
    async with httpx.AsyncClient(transport=transport, base_url="http://sandbox") as client:
        yield client


def read(path: Path) -> list[Row]:
    with gzip.open(path, "rt") as file:
        return [[float(value) for value in row] for row in list(csv.reader(file))[1:]]


def write(folder: Path, name: str, rows: list[list[str]]) -> None:
    text = "\n".join(["time_ms,open,high,low,close,volume", *map(",".join, rows)])
    (folder / f"{name}.csv.gz").write_bytes(gzip.compress(text.encode()))


async def klines(client: httpx.AsyncClient, **params: object) -> list[list[str]]:
    sent = {key: str(value) for key, value in params.items()}
    response = await client.get("/binance/fapi/v1/klines", params=sent)
    assert response.status_code == 200, response.text
    return response.json()


async def snapshot(client: httpx.AsyncClient, **req: object) -> list[dict[str, str]]:
    body = {"type": "candleSnapshot", "req": {"startTime": 0, **req}}
    response = await client.post("/hyperliquid/info", json=body)
    assert response.status_code == 200, response.text
    return response.json()


@needs_shared
@pytest.mark.parametrize("interval", ["1m", "5m", "1h"])
async def test_binance_gives_its_file_back(interval: str) -> None:
    """Page by page the rows equal the file; quote volume is volume times close."""
    rows = read(SHARED / f"binance__perp__BTCUSDT__{interval}.csv.gz")
    got: list[list[str]] = []
    async with opened(SHARED, datetime(2026, 1, 1, tzinfo=UTC)) as client:
        while page := await klines(
            client,
            symbol="BTCUSDT",
            interval=interval,
            startTime=int(got[-1][0]) + 1 if got else 0,
            limit=1500,
        ):
            got += page

    assert [[float(value) for value in row[:6]] for row in got] == rows
    assert all(float(row[7]) == float(row[5]) * float(row[4]) for row in got)
    assert all((int(row[8]) == 0) == (float(row[5]) == 0) for row in got)


@needs_shared
@pytest.mark.parametrize(
    ("coin", "interval"),
    [*(("BTC", i) for i in ("1m", "1h", "1d", "3d", "1w")), ("PURR", "1m")],
)
async def test_hyperliquid_gives_the_newest_5000_of_its_file_back(coin: str, interval: str) -> None:
    """After the file's end its last 5000 rows come back, flat and early ones too."""
    rows = read(SHARED / f"hyperliquid__perp__{coin}__{interval}.csv.gz")
    async with opened(SHARED, from_ms(int(rows[-1][0]) + 31 * DAY)) as client:
        got = await snapshot(client, coin=coin, interval=interval)

    assert [[float(row[key]) for key in "tohlcv"] for row in got] == rows[-5000:]
    assert all((int(row["n"]) == 0) == (float(row["v"]) == 0) for row in got)


@needs_shared
async def test_coinbase_gives_its_file_back_with_its_gaps() -> None:
    """Stepping by 300 minutes finds all rows, and none in 104 minutes without one."""
    rows = read(SHARED / "coinbase__spot__BTC-USD__1m.csv.gz")
    got: list[Row] = []
    async with opened(SHARED, datetime(2026, 1, 1, tzinfo=UTC)) as client:
        for start in range(int(rows[0][0]), int(rows[-1][0]) + 1, 300 * MINUTE):
            end = start + 299 * MINUTE
            params = {"start": from_ms(start).isoformat(), "end": from_ms(end).isoformat()}
            response = await client.get("/coinbase/products/BTC-USD/candles", params=params)
            got += sorted(response.json())

    assert [[t * 1000, o, h, low, c, v] for t, low, h, o, c, v in got] == rows


@needs_shared
async def test_replayed_symbol_trades_since_its_first_traded_day() -> None:
    """Metadata and invented series begin on the first traded row's day of any file."""
    first_day = 1_741_219_200_000  # 2025-03-06
    async with opened(SHARED, datetime(2026, 1, 1, tzinfo=UTC)) as client:
        info = (await client.get("/binance/fapi/v1/exchangeInfo")).json()
        daily = await klines(client, symbol="BTCUSDT", interval="1d", startTime=0, limit=1)
        half_days = await snapshot(client, coin="BTC", interval="12h")
    bitcoin = next(symbol for symbol in info["symbols"] if symbol["symbol"] == "BTCUSDT")

    assert (bitcoin["status"], bitcoin["onboardDate"]) == ("TRADING", first_day)
    assert daily[0][0] == first_day
    traded = next(row for row in half_days if row["n"])
    assert traded["t"] == 1_677_369_600_000  # 2023-02-26, as the daily file has it


async def test_only_files_of_known_series_are_replayed(tmp_path: Path) -> None:
    """Unknown symbols join the metadata; other exchanges and intervals are ignored."""
    start = 1_700_000_040_000
    rows = [[str(start + i * MINUTE), "1.5", "2", "1", "1.25", "0"] for i in range(3)]
    rows[2][5] = "8"
    for name in (
        *("binance__perp__ZZZUSDC__1m", "binance__spot__YYYUSDT__1m", "binance__perp__XXX__7m"),
        *("kraken__spot__BTC-USD__1m", "coinbase__spot__NEW-EUR__1m", "notes"),
        "coinbase__spot__OLD-EUR__30m",
    ):
        write(tmp_path, name, rows)
    write(tmp_path, "binance__perp__EMPTYUSDT__1m", [])
    async with opened(tmp_path, datetime(2026, 1, 1, tzinfo=UTC)) as client:
        info = (await client.get("/binance/fapi/v1/exchangeInfo")).json()
        products = (await client.get("/coinbase/products")).json()
        got = await klines(client, symbol="ZZZUSDC", interval="1m", startTime=0)
        daily = await klines(client, symbol="ZZZUSDC", interval="1d", startTime=0, limit=1)
    symbols = {symbol["symbol"]: symbol for symbol in info["symbols"]}

    assert symbols.keys() & {"ZZZUSDC", "YYYUSDT", "XXX", "EMPTYUSDT"} == {"ZZZUSDC"}
    assert (symbols["ZZZUSDC"]["baseAsset"], symbols["ZZZUSDC"]["quoteAsset"]) == ("ZZZ", "USDC")
    assert {product["id"] for product in products} & {"NEW-EUR", "OLD-EUR"} == {"NEW-EUR"}
    assert [row[0] for row in got] == [start + i * MINUTE for i in range(3)]
    assert [row[8] == 0 for row in got] == [True, True, False]
    assert daily[0][0] == start - start % DAY


async def test_replayed_row_appears_when_it_opens(tmp_path: Path) -> None:
    """At half time of a minute its row is there in part; the next one isn't there yet."""
    start = 1_700_000_040_000
    rows = [[str(start + i * MINUTE), "100.5", "110", "90", "105", "8"] for i in range(3)]
    write(tmp_path, "binance__perp__BTCUSDT__1m", rows)
    async with opened(tmp_path, from_ms(start + 90_000)) as client:
        got = await klines(client, symbol="BTCUSDT", interval="1m")

    assert len(got) == 2
    assert [float(value) for value in got[0][1:6]] == [100.5, 110, 90, 105, 8]
    opening, high, low, _, volume = (float(value) for value in got[1][1:6])
    assert (opening, volume) == (100.5, 4)
    assert 90 < low < high < 110


async def test_three_day_file_keeps_its_own_phase(tmp_path: Path) -> None:
    """A series on the other phase is replayed, and closes, where its rows lie."""
    start = 1_699_833_600_000  # a multiple of three days from the epoch
    rows = [[str(start + i * 3 * DAY), "1", "2", "1", "1", "8"] for i in range(3)]
    write(tmp_path, "binance__perp__BTCUSDT__3d", rows)
    async with opened(tmp_path, datetime(2026, 1, 1, tzinfo=UTC)) as client:
        got = await klines(client, symbol="BTCUSDT", interval="3d")

    assert start % (3 * DAY) == 0
    assert [(int(row[0]), int(row[6]) + 1) for row in got] == [
        (start + i * 3 * DAY, start + (i + 1) * 3 * DAY) for i in range(3)
    ]
