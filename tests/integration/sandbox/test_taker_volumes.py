"""Binance's taker columns: a part of the volume, the same at every asking."""

import gzip
from datetime import UTC, datetime
from pathlib import Path

import httpx
from support.sandbox_exchanges import DAY, HOUR, MINUTE, NOW_MS, opened

VOLUME, QUOTE, TAKER, TAKER_QUOTE = 5, 7, 9, 10


async def klines(client: httpx.AsyncClient, **params: object) -> list[list[str]]:
    sent = {key: str(value) for key, value in params.items()}
    response = await client.get("/binance/fapi/v1/klines", params=sent)
    assert response.status_code == 200, response.text
    return response.json()


def column(rows: list[list[str]], place: int) -> list[float]:
    return [float(row[place]) for row in rows]


def decimals(text: str) -> int:
    return len(text.partition(".")[2].rstrip("0"))


async def test_takers_buy_a_share_of_each_candle() -> None:
    """Between a third and two thirds, never equal, quote and base in proportion."""
    start = NOW_MS - NOW_MS % DAY - DAY
    async with opened() as client:
        rows = await klines(client, symbol="BTCUSDT", interval="1m", startTime=start, limit=500)
        again = await klines(
            client, symbol="BTCUSDT", interval="1m", startTime=start + 9 * MINUTE, limit=3
        )

    shares = [t / v for t, v in zip(column(rows, TAKER), column(rows, VOLUME), strict=True)]
    quotes = [t / q for t, q in zip(column(rows, TAKER_QUOTE), column(rows, QUOTE), strict=True)]
    assert 0.3 < min(shares) < 0.4
    assert 0.6 < max(shares) < 0.67
    assert max(abs(s - q) for s, q in zip(shares, quotes, strict=True)) < 1e-5
    assert max(decimals(row[TAKER]) for row in rows) == max(decimals(row[VOLUME]) for row in rows)
    assert again == rows[9:12]


async def test_forming_candle_s_takers_only_buy_more() -> None:
    """Both figures grow with the volume and never exceed the final ones."""
    forming = NOW_MS - NOW_MS % HOUR
    figures: list[tuple[float, float]] = []
    for minutes in (1, 20, 45, 60, 90):
        at = datetime.fromtimestamp((forming + minutes * MINUTE) / 1000, UTC)
        async with opened(at) as client:
            (row,) = await klines(
                client, symbol="ETHUSDT", interval="1h", startTime=forming, limit=1
            )
        figures.append((float(row[TAKER]), float(row[TAKER_QUOTE])))

    assert figures == sorted(figures)
    assert figures[-1] == figures[-2] > figures[0]
    assert all(figures[0])


async def test_untraded_candles_have_no_takers() -> None:
    """A flat row says zero in both columns."""
    async with opened() as client:
        rows = await klines(client, symbol="DEFIUSDT", interval="1m", limit=200, endTime=NOW_MS)

    flat = [row for row in rows if float(row[VOLUME]) == 0]
    assert flat
    assert {float(row[place]) for row in flat for place in (TAKER, TAKER_QUOTE)} == {0.0}


async def test_replayed_candles_have_takers_too(tmp_path: Path) -> None:
    """A file has none, so they are a share of its volume, with its decimals at most."""
    start = NOW_MS - NOW_MS % DAY - DAY
    rows = "".join(f"{start + i * MINUTE},5,6,4,5.5,{i * 7}.25\n" for i in range(1, 50))
    text = f"time_ms,open,high,low,close,volume\n{start},5,6,4,5.5,0\n{rows}"
    path = tmp_path / "binance__perp__BTCUSDT__1m.csv.gz"
    path.write_bytes(gzip.compress(text.encode()))
    async with opened(data=tmp_path) as client:
        replayed = await klines(client, symbol="BTCUSDT", interval="1m", startTime=start, limit=50)

    assert column(replayed[:1], TAKER) == column(replayed[:1], TAKER_QUOTE) == [0.0]
    for row in replayed[1:]:
        assert 0.3 < float(row[TAKER]) / float(row[VOLUME]) < 0.67
        assert abs(float(row[TAKER_QUOTE]) - float(row[TAKER]) * 5.5) < 1e-4
        assert decimals(row[TAKER]) <= 2
