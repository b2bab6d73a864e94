"""Helpers for tests of `/candles`: stored candles, and the times of any body."""

import io
from datetime import UTC, datetime, timedelta

import httpx
import numpy as np
from pyarrow import ipc, parquet

from mdp_core.domain.candles import Candles
from mdp_core.domain.clock import to_ms
from mdp_core.domain.queries import CandleQuery
from mdp_core.domain.windows import Window
from mdp_core.wiring import Services
from support.asking import answer_to

BTC = "/candles/binance/perp/BTC-USDT/1m"
DAY = {"start": "2024-05-01", "end": "2024-05-02"}
FORMATS = ("json", "ndjson", "csv", "arrow", "parquet")
PLAIN = {"Accept-Encoding": "identity"}

# Note that everything stored of every series has changed, as a repair does.
RAISE_EPOCH = """
WITH raised AS (
    UPDATE series SET epoch = epoch + 1 WHERE NOT isempty(coverage) RETURNING id, epoch, coverage
)
INSERT INTO changes (series_id, slots, epoch)
SELECT id, tstzrange(lower(coverage), upper(coverage)), epoch FROM raised
ON CONFLICT (series_id, slots) DO UPDATE SET epoch = excluded.epoch
"""

_START = datetime(2022, 1, 1, tzinfo=UTC)


def times_of(body: bytes, name: str) -> list[int]:
    """Give the open times of a body's rows."""
    match name:
        case "json":
            return [row[0] for row in httpx.Response(200, content=body).json()["candles"]]
        case "ndjson":
            return [int(line.split(b",")[0].rpartition(b":")[2]) for line in body.splitlines()]
        case "csv":
            return [int(line.split(b",")[0]) for line in body.splitlines()[1:]]
        case "arrow":
            return ipc.open_stream(body).read_all()["time"].cast("int64").to_pylist()
        case _:
            return parquet.read_table(io.BytesIO(body))["time"].cast("int64").to_pylist()


async def fill(services: Services, count: int) -> Window:
    """Store candles without asking an exchange for them; give their window."""
    query = CandleQuery("binance", "perp", "BTC-USDT", "1m", limit=1)
    series = (await answer_to(services, query)).series
    window = Window(_START, _START + timedelta(minutes=count))
    times = series.grid.times(series.grid.index(window.start), series.grid.index(window.end))
    prices = np.random.default_rng(1).uniform(1, 60_000, count)
    await services.store.save(series.id, [window], Candles(times, *(prices,) * 7))
    return window


def bounds_of(window: Window) -> dict[str, int]:
    """Give the parameters that ask for a window."""
    return {"start": to_ms(window.start), "end": to_ms(window.end)}
