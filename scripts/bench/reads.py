"""Hot and stored history: how fast answers leave, against the database's client and the server."""

import asyncio
import subprocess
import tempfile
from pathlib import Path

from pyarrow import ipc

from mdp_core.clock import to_ms
from scripts.bench.client import Load, Target, download, fetch, load
from scripts.bench.data import Base, minutes, path, psql_copy
from scripts.bench.figures import ROUNDS, Figure, ratio, seconds_of
from scripts.bench.server import EMPTY, PLAIN

_MILLION = 1_000_000
_CLIENTS, _REQUESTS = 32, 1_600
_ARCTIC = Path(".venv-bench/bin/python")
_LATEST = "/latest/binance/perp/ETH-USDT/1d"


def measure_reads(base: Base, remembering: Target, forgetful: Target) -> list[Figure]:
    """Measure every figure of reading.

    Args:
        base: Holds a million candles of the series.
        remembering: A server with room in memory for all of them.
        forgetful: One without any.
    """
    window = minutes(_MILLION)
    copied = seconds_of(lambda: psql_copy(base, window))
    figures = list[Figure]()
    for name, stored_aim in (("json", "≤ 1.0"), ("arrow", "≤ 0.9")):
        for target, where, aim in (
            (forgetful, "from Postgres", stored_aim),
            (remembering, "from memory", "≤ 0.08"),
        ):
            spent = seconds_of(
                lambda name=name, target=target: download(target, path(window, name))
            )
            what = f"1,000,000 candles as {name} over HTTP, {where} / psql binary COPY of the rows"
            figures.append(ratio(what, aim, spent, copied))
    figures += [_arctic(remembering)]
    figures += [_plain(base, forgetful), *asyncio.run(_rates(remembering, forgetful))]
    return figures


def _arctic(target: Target) -> Figure:
    """Read Arrow over HTTP into pandas; have ArcticDB read the same from its own files."""
    name, aim = "Arrow from memory over HTTP into a pandas frame / ArcticDB's local read", "≤ 2"
    if not _ARCTIC.exists():
        return Figure(name, "not measured", aim, f"{_ARCTIC} is not there")
    window = minutes(_MILLION)
    ours = seconds_of(lambda: _into_pandas(fetch(target, path(window, "arrow"))))
    with tempfile.NamedTemporaryFile(suffix=".parquet") as file:
        file.write(fetch(target, path(window, "parquet")))
        file.flush()
        command = [str(_ARCTIC), "scripts/bench/arctic.py", file.name]
        said = subprocess.run(command, capture_output=True, text=True, check=True).stdout  # noqa: S603
    seconds, version = said.split()
    figure = ratio(name, aim, ours, float(seconds))
    return Figure(name, figure.value, aim, f"{figure.detail}; ArcticDB {version}")


def _into_pandas(body: bytes) -> object:
    reader = ipc.open_stream(body)  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType]
    return reader.read_pandas()  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType]


def _plain(base: Base, target: Target) -> Figure:
    window = minutes(100_000)
    bounds = f"start={to_ms(window.start)}&end={to_ms(window.end)}"
    plain = seconds_of(lambda: download(target, f"{PLAIN}?series_id={base.series_id}&{bounds}"))
    ours = seconds_of(lambda: download(target, path(window)))
    what = (
        "the straightforward service (FastAPI, ORM, pydantic) / ours, 100,000 candles from Postgres"
    )
    return ratio(what, "≥ 10", plain, ours)


async def _rates(remembering: Target, forgetful: Target) -> list[Figure]:
    thousand = path(minutes(1_000, after=5_000))
    size = len(fetch(remembering, thousand))
    empty = await _rate(remembering, f"{EMPTY}?size={size}")
    kept = await _rate(remembering, thousand)
    stored = await _rate(forgetful, thousand)
    short = await _rate(remembering, f"{EMPTY}?size={len(fetch(remembering, _LATEST))}")
    latest = await _rate(remembering, _LATEST)
    return [
        _share(
            "1,000 candles, 32 clients, from memory / an empty route of the same bytes",
            "≥ 0.5",
            kept,
            empty,
        ),
        Figure(
            "1,000 candles from Postgres at 32 clients: p50 and p99",
            f"{_percentile(stored, 50):.1f} ms, {_percentile(stored, 99):.1f} ms",
            "stated",
            f"{stored.rate:,.0f} requests/s",
        ),
        _share(
            "`/latest` of a settled series / an empty route of the same bytes",
            "≥ 0.4",
            latest,
            short,
        ),
    ]


async def _rate(target: Target, path_: str) -> Load:
    """Give the load with the median rate; the first one warms up and does not count."""
    loads = [
        await load(target, path_, clients=_CLIENTS, requests=_REQUESTS) for _ in range(ROUNDS + 1)
    ]
    return sorted(loads[1:], key=lambda each: each.rate)[ROUNDS // 2]


def _share(name: str, aim: str, ours: Load, theirs: Load) -> Figure:
    detail = f"{ours.rate:,.0f} / {theirs.rate:,.0f} requests/s"
    return Figure(name, f"{ours.rate / theirs.rate:.2f}", aim, detail)


def _percentile(loaded: Load, percent: int) -> float:
    return sorted(loaded.seconds)[len(loaded.seconds) * percent // 100] * 1000
