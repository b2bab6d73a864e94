"""Cold history and writing: against what the exchange permits, and a bare COPY."""

import statistics
import time
from datetime import UTC, datetime

import httpx
import psutil

from mdp_core.domain.intervals import Interval, epoch_grid
from mdp_core.domain.windows import Window
from scripts.bench.client import Target, download
from scripts.bench.data import bare_copy, minutes, new_series, path, save
from scripts.bench.figures import ROUNDS, Figure

# Binance at share 1.0: https://developers.binance.com (limits), and pages of 499 that weigh 2.
_TOKENS, _TOKENS_A_SECOND, _PAGE_WEIGHT, _PAGE = 240, 36, 2, 499
_LATENCY_MS = 100
_FILL_PAGES = 98
_SERIES = "/candles/binance/perp/BTC-USDT/1m"
_GRID, _FIRST = epoch_grid(Interval.ONE_MINUTE), datetime(2021, 1, 1, tzinfo=UTC)
_WRITE = 100_000


async def measure_fills(sandbox_url: str, target: Target, api: psutil.Process) -> list[Figure]:
    """Fill windows that the store has nothing of, fast and at the exchange's pace."""
    async with httpx.AsyncClient(trust_env=False) as http:
        await http.post(f"{sandbox_url}/_sandbox/settings", json={"latency_ms": _LATENCY_MS})
    download(target, f"{_SERIES}?limit=1")
    begun, samples = time.perf_counter(), list[float]()
    for number in range(ROUNDS):
        before = sum(api.cpu_times()[:2])
        download(target, path(_cold(number), series=_SERIES))
        samples.append((sum(api.cpu_times()[:2]) - before) / (_FILL_PAGES * _PAGE) * 1e6)
    seconds = time.perf_counter() - begun
    fetched = ROUNDS * _FILL_PAGES * _PAGE
    permitted = (_TOKENS + _TOKENS_A_SECOND * seconds) / _PAGE_WEIGHT * _PAGE
    rate = f"{fetched / seconds * 60:,.0f} candles a minute for {seconds:.0f} s"
    return [
        Figure(
            f"cold fill at {_LATENCY_MS} ms latency / what the budget permits",
            f"{fetched / permitted:.2f}",
            "≥ 0.9",
            rate,
        ),
        Figure("cold fill: CPU microseconds a candle", f"{statistics.median(samples):.2f}", "≤ 3"),
    ]


def _cold(number: int) -> Window:
    """Give a window of whole pages, of which nothing was asked for before."""
    first = _GRID.index(_FIRST) // _PAGE + number * (_FILL_PAGES + 1)
    return Window(_GRID.at(first * _PAGE), _GRID.at((first + _FILL_PAGES) * _PAGE))


async def measure_writes(url: str) -> Figure:
    """Store new candles, each time of another series, and copy the same bytes bare."""
    window = minutes(_WRITE)
    saved, copied = list[float](), list[float]()
    for number in range(ROUNDS + 1):
        saved.append(await save(url, new_series(url, f"BENCH{number}"), window))
        copied.append(bare_copy(url, -1 - number, window))
    ours, bare = statistics.median(saved[1:]), statistics.median(copied[1:])
    detail = f"{_WRITE / ours:,.0f} / {_WRITE / bare:,.0f} candles/s"
    return Figure(
        "store write / a bare binary COPY of the same bytes", f"{bare / ours:.2f}", "≥ 0.7", detail
    )
