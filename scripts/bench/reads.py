"""Reads of hot and stored history, against psql's COPY and an empty route."""

import asyncio
from collections.abc import Callable, Mapping
from functools import partial

from pyarrow import ipc

from mdp_core.domain.clock import to_ms
from scripts.bench.client import Load, Target, download, fetch, load
from scripts.bench.data import Base, minutes, path, psql_copy
from scripts.bench.figures import ROUNDS, Figure, ratio, seconds_of_each, unmeasured
from scripts.bench.peers import PeerMissing, arctic_seconds
from scripts.bench.server import EMPTY, PLAIN

_MILLION = 1_000_000
_CLIENTS, _REQUESTS = 32, 1_600
_LATEST = "/latest/binance/perp/ETH-USDT/1d"
_PSQL = "psql"
_PSYSCALE = ("psyscale's read of the same", "if it runs", "it needs Python 3.12, the service 3.11")
_BULK = (("json", "≤ 1.0", "≤ 0.08"), ("arrow", "≤ 0.9", "≤ 0.08"))


def measure_reads(base: Base, remembering: Target, forgetful: Target, dialect: str) -> list[Figure]:
    """Measure every figure of reading.

    Args:
        base: Holds a million candles of the series.
        remembering: A server with room in memory for all of them.
        forgetful: One without any.
        dialect: Path of Binance's dialect.
    """
    return [
        *_bulk(base, remembering, forgetful),
        _arctic(remembering),
        *asyncio.run(_rates(remembering, forgetful)),
        asyncio.run(_klines(remembering, dialect)),
        _plain(base, forgetful),
        unmeasured(*_PSYSCALE),
    ]


def _bulk(base: Base, remembering: Target, forgetful: Target) -> list[Figure]:
    window = minutes(_MILLION)
    actions: dict[str, Callable[[], object]] = {
        f"{name} {where}": partial(download, target, path(window, name))
        for name, _, _ in _BULK
        for where, target in (("from Postgres", forgetful), ("from memory", remembering))
    }
    if base.psql.exists():
        actions[_PSQL] = partial(psql_copy, base, window)
    seconds = seconds_of_each(actions)
    return [
        _of_copy(seconds, f"{name} {where}", aim)
        for name, *aims in _BULK
        for where, aim in zip(("from Postgres", "from memory"), aims, strict=True)
    ]


def _of_copy(seconds: Mapping[str, float], what: str, aim: str) -> Figure:
    format_, _, where = what.partition(" ")
    name = f"1,000,000 candles as {format_} over HTTP, {where} / psql binary COPY of the rows"
    if _PSQL not in seconds:
        return unmeasured(name, aim, "the server came without psql")
    return ratio(name, aim, seconds[what], seconds[_PSQL])


def _arctic(target: Target) -> Figure:
    """Read Arrow over HTTP into pandas; read the same with ArcticDB from its files."""
    name, aim = "Arrow from memory over HTTP into a pandas frame / ArcticDB's local read", "≤ 2"
    window = minutes(_MILLION)
    into_pandas = partial(_into_pandas, target, path(window, "arrow"))
    try:
        theirs, version = arctic_seconds(fetch(target, path(window, "parquet")))
    except PeerMissing as error:
        return unmeasured(name, aim, str(error))
    figure = ratio(name, aim, seconds_of_each({"": into_pandas})[""], theirs)
    return Figure(name, figure.value, aim, f"{figure.detail}; ArcticDB {version}")


def _into_pandas(target: Target, path_: str) -> object:
    reader = ipc.open_stream(fetch(target, path_))  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType]
    return reader.read_pandas()  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType]


def _plain(base: Base, target: Target) -> Figure:
    window = minutes(100_000)
    bounds = f"start={to_ms(window.start)}&end={to_ms(window.end)}"
    plain = f"{PLAIN}?series_id={base.series_id}&{bounds}"
    seconds = seconds_of_each(
        {
            "plain": partial(download, target, plain),
            "ours": partial(download, target, path(window)),
        }
    )
    what = (
        "the straightforward service (FastAPI, ORM, pydantic) / ours, 100,000 candles from Postgres"
    )
    return ratio(what, "≥ 10", seconds["plain"], seconds["ours"])


async def _rates(remembering: Target, forgetful: Target) -> list[Figure]:
    thousand = path(minutes(1_000, after=5_000))
    compressing = Target(remembering.url, {**remembering.headers, "Accept-Encoding": "gzip"})
    size, short = len(fetch(remembering, thousand)), len(fetch(remembering, _LATEST))
    loads = await _loads(
        {
            "empty": (remembering, f"{EMPTY}?size={size}"),
            "kept": (remembering, thousand),
            "coded": (compressing, thousand),
            "stored": (forgetful, thousand),
            "short": (remembering, f"{EMPTY}?size={short}"),
            "latest": (remembering, _LATEST),
        }
    )
    stored = loads["stored"]
    return [
        _share(
            f"1,000 candles, {_CLIENTS} clients, from memory / an empty route of the same bytes",
            "≥ 0.5",
            loads["kept"],
            loads["empty"],
        ),
        _share(
            f"1,000 candles, {_CLIENTS} clients, from memory: with gzip / without",
            "stated",
            loads["coded"],
            loads["kept"],
        ),
        Figure(
            f"1,000 candles from Postgres at {_CLIENTS} clients: p50 and p99",
            f"{_percentile(stored, 50):.1f} ms, {_percentile(stored, 99):.1f} ms",
            "stated",
            f"{stored.rate:,.0f} requests/s",
        ),
        _share(
            "`/latest` of a settled series / an empty route of the same bytes",
            "≥ 0.4",
            loads["latest"],
            loads["short"],
        ),
    ]


async def _klines(target: Target, dialect: str) -> Figure:
    first = to_ms(minutes(1, after=5_000).start)
    klines = f"{dialect}/fapi/v1/klines?symbol=ETHUSDT&interval=1m&startTime={first}&limit=500"
    tokenless = Target(target.url, {"Accept-Encoding": "identity"})
    empty = f"{EMPTY}?size={len(fetch(tokenless, klines))}"
    loads = await _loads({"empty": (target, empty), "klines": (tokenless, klines)})
    what = f"500 rows of Binance's dialect, {_CLIENTS} clients, from memory / an empty route"
    return _share(f"{what} of the same bytes", "≥ 0.5", loads["klines"], loads["empty"])


async def measure_workers(one: Target, two: Target) -> Figure:
    """Compare a server of one process with one of two, on as many clients."""
    thousand = path(minutes(1_000, after=5_000))
    loads = await _loads({"one": (one, thousand), "two": (two, thousand)})
    what = f"1,000 candles, {_CLIENTS} clients, from memory: two workers / one"
    return _share(what, "stated", loads["two"], loads["one"])


async def _loads(asked: Mapping[str, tuple[Target, str]]) -> dict[str, Load]:
    """Give for each the load with the median rate; in each round all have their turn.

    The first round warms up and does not count.
    """
    rounds = [
        {
            name: await load(target, path_, clients=_CLIENTS, requests=_REQUESTS)
            for name, (target, path_) in asked.items()
        }
        for _ in range(ROUNDS + 1)
    ]
    return {
        name: sorted((taken[name] for taken in rounds[1:]), key=lambda it: it.rate)[ROUNDS // 2]
        for name in asked
    }


def _share(name: str, aim: str, ours: Load, theirs: Load) -> Figure:
    detail = f"{ours.rate:,.0f} / {theirs.rate:,.0f} requests/s"
    return Figure(name, f"{ours.rate / theirs.rate:.2f}", aim, detail)


def _percentile(loaded: Load, percent: int) -> float:
    return sorted(loaded.seconds)[len(loaded.seconds) * percent // 100] * 1000
