"""Slow rows: memory under a long stream, and a table of 100,000,000 rows."""

import asyncio
import statistics
import threading
import time
from collections.abc import Generator
from contextlib import contextmanager
from itertools import product

import psutil

from api.responses.compression import CODINGS
from api.responses.formats import FORMATS
from scripts.bench.client import Target, download
from scripts.bench.data import Base, bare_copy, minutes, path, save, settle
from scripts.bench.figures import Figure, ratio
from scripts.bench.process import Launch, serving
from scripts.bench.server import EMPTY

_FIVE_MILLION, _MILLION = 5_000_000, 1_000_000
_OTHER_SERIES = 99
_SAMPLES = 500


def measure_memory(base: Base, launch: Launch) -> list[Figure]:
    """Stream 5,000,000 candles in each format; measure how much the server grows."""
    for after in range(_MILLION, _FIVE_MILLION, _MILLION):
        asyncio.run(save(base.url, base.series_id, minutes(_MILLION, after=after)))
    settle(base.url)
    forms = [*product(FORMATS, ["identity"]), *product(["json"], CODINGS)]
    return [_memory(launch, name, coding) for name, coding in forms]


def _memory(launch: Launch, name: str, coding: str) -> Figure:
    with serving(launch, {"MDP_BLOCK_MEMORY_MB": "0"}) as (target, process):
        download(target, path(minutes(1_000), name))
        coded = Target(target.url, {**target.headers, "Accept-Encoding": coding})
        with _growth(process) as grown:
            length = download(coded, path(minutes(_FIVE_MILLION), name))
    form = name if coding == "identity" else f"{name}, {coding}"
    what = f"memory added by streaming 5,000,000 candles as {form}"
    return Figure(what, f"{grown[0] / 1e6:.0f} MB", "≤ 150 MB", f"{length:,} bytes, once")


@contextmanager
def _growth(process: psutil.Process) -> Generator[list[int]]:
    """Yield a function that returns the growth of the process at its largest."""
    before, ended, grown = process.memory_info().rss, threading.Event(), [0]

    def watch() -> None:
        while not ended.wait(0.02):
            grown[0] = max(grown[0], process.memory_info().rss - before)

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        yield grown
    finally:
        ended.set()
        watcher.join()


def measure_depth(base: Base, target: Target) -> Figure:
    """Time 1,000 candles before and after the table grows to 100,000,000 rows.

    Minutes lie between, in which the machine may change: an empty route is timed beside them.
    """
    shallow = _latencies(target)
    for number in range(_OTHER_SERIES):
        bare_copy(base.url, -1 - number, minutes(_MILLION))
    settle(base.url)
    deep = _latencies(target)
    what = "1,000 candles: latency with 100,000,000 rows in the table / with 1,000,000"
    figure = ratio(what, "≤ 1.3", deep[0], shallow[0])
    empty = f"an empty route meanwhile {deep[1] * 1000:.1f} ms / {shallow[1] * 1000:.1f} ms"
    return Figure(what, figure.value, figure.aim, f"{figure.detail}; {empty}")


def _latencies(target: Target) -> tuple[float, float]:
    """Give the median seconds of 1,000 candles from Postgres, and of an empty route."""
    for number in range(_SAMPLES):
        download(target, path(minutes(1_000, after=number * 1_000)))
    candles, empty = list[float](), list[float]()
    for number in range(_SAMPLES):
        thousand = path(minutes(1_000, after=number * 1_000 + 500))
        for samples, asked in ((candles, thousand), (empty, f"{EMPTY}?size=1000")):
            begun = time.perf_counter()
            download(target, asked)
            samples.append(time.perf_counter() - begun)
    return statistics.median(candles), statistics.median(empty)
