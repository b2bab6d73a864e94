"""What takes minutes to set up: memory under a long stream, and a table of 100,000,000 rows."""

import statistics
import threading
import time
from collections.abc import Generator
from contextlib import contextmanager

import psutil

from api.encoding import FORMATS
from scripts.bench.client import Target, download
from scripts.bench.data import Base, fill, minutes, new_series, path
from scripts.bench.figures import ROUNDS, Figure, ratio

_FIVE_MILLION = 5_000_000
_ROWS_EACH, _SERIES = 1_000_000, 95
_SAMPLES = 300


def measure_memory(target: Target, process: psutil.Process) -> list[Figure]:
    """Stream 5,000,000 candles in each format, and see how much the server grows meanwhile."""
    figures = list[Figure]()
    for name in FORMATS:
        with _growth(process) as grown:
            length = download(target, path(minutes(_FIVE_MILLION), name))
        what = f"memory added by streaming 5,000,000 candles as {name}"
        figures.append(
            Figure(what, f"{grown[0] / 1e6:.0f} MB", "≤ 150 MB", f"{length:,} bytes, once")
        )
    return figures


@contextmanager
def _growth(process: psutil.Process) -> Generator[list[int]]:
    """Give, after the context, by how many bytes the process was larger at its largest."""
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
    """Time 1,000 candles, add rows until the table has 100,000,000, and time them again."""
    shallow = _latency(target)
    fill(base.url, [new_series(base.url, f"DEEP{n}") for n in range(_SERIES)], _ROWS_EACH)
    deep = _latency(target)
    what = "1,000 candles: latency with 100,000,000 rows in the table / with 6,000,000"
    return ratio(what, "≤ 1.3", deep, shallow)


def _latency(target: Target) -> float:
    download(target, path(minutes(1_000)))
    samples = list[float]()
    for number in range(_SAMPLES // ROUNDS * ROUNDS):
        begun = time.perf_counter()
        download(target, path(minutes(1_000, after=number * 1_000)))
        samples.append(time.perf_counter() - begun)
    return statistics.median(samples)
