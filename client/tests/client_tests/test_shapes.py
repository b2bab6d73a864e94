"""Every shape equals the truth to the last bit, and is its caller's own."""

import csv
import gzip
import sys
from collections.abc import Iterator
from pathlib import Path

import duckdb
import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from mdp_client import Candles, InvalidParameter, MissingExtra
from mdp_client.testing import Service

from client_tests.both import Both
from client_tests.conftest import DATA, Connect
from client_tests.store import MINUTE, START, StoreServer

OHLCV = ["open", "high", "low", "close", "volume"]
MARKETS = {"binance": "USDT", "coinbase": "USD", "hyperliquid": "USDC"}
SERIES = ("binance", "perp", "BTC-USDT", "1m")


def real_series() -> Iterator[object]:
    """Give the files whose windows the exchange still remembers today."""
    for path in sorted(DATA.glob("*.csv.gz")):
        exchange, *_, interval = path.name.removesuffix(".csv.gz").split("__")
        if exchange != "hyperliquid" or interval in ("1d", "3d", "1w"):
            yield pytest.param(path, id=path.name.removesuffix(".csv.gz"))


def traded_rows(path: Path) -> list[list[float]]:
    """Read a file's rows, those from before the first trade left out, as ccxt's rows."""
    with gzip.open(path, "rt") as file:
        rows = [[int(time), *map(float, rest)] for time, *rest in [*csv.reader(file)][1:]]
    first = next(at for at, row in enumerate(rows) if row[5]) if "hyperliquid" in path.name else 0
    return rows[first:]


@pytest.mark.skipif(not DATA.exists(), reason="the real candles are not at hand")
@pytest.mark.parametrize("path", [*real_series()])
def test_every_shape_of_real_candles_is_the_truth(
    connect: Connect, replay: Service, path: Path
) -> None:
    """Times and numbers are those of the file, bit for bit."""
    exchange, market, native, interval = path.name.removesuffix(".csv.gz").split("__")
    quote = MARKETS[exchange]
    symbol = f"{native.removesuffix(quote).rstrip('-')}-{quote}"
    truth = traded_rows(path)
    window = {"start": int(truth[0][0]), "end": int(truth[-1][0]) + 1}
    client = connect(replay.url, token=replay.token)
    got = client.candles(exchange, market, symbol, interval, **window)

    check_shapes(got, truth)
    streamed = client.stream(exchange, market, symbol, interval, **window)
    assert pa.Table.from_batches(streamed).to_pylist() == got.to_arrow().to_pylist()
    assert (got.symbol, got.interval, got.complete) == (symbol, interval, True)


def check_shapes(got: Candles, truth: list[list[float]]) -> None:
    """Compare every shape with ccxt's rows."""
    times = pd.to_datetime([row[0] for row in truth], unit="ms", utc=True).as_unit("ms")
    columns = {name: [row[at] for row in truth] for at, name in enumerate(OHLCV, 1)}
    expected = pd.DataFrame(columns, index=pd.DatetimeIndex(times, name="time"), dtype="float64")
    capital = expected.rename(columns=str.capitalize)
    date = expected.reset_index(names="date")

    assert got.to_ccxt() == truth
    assert all(type(row[0]) is int for row in got.to_ccxt())
    pd.testing.assert_frame_equal(got.to_pandas(), expected, check_freq=False, check_exact=True)
    pd.testing.assert_frame_equal(got.to_pandas(capitalize=True), capital, check_exact=True)
    pd.testing.assert_frame_equal(
        got.to_vectorbt(), capital.rename_axis("Open time"), check_exact=True
    )
    pd.testing.assert_frame_equal(got.to_freqtrade(), date, check_exact=True)
    assert got.to_polars().drop("time").to_dict(as_series=False) == columns
    assert got.to_polars()["time"].dt.epoch("ms").to_list() == [row[0] for row in truth]
    assert got.to_numpy().tolist() == [[*map(float, row)] for row in truth]
    assert got.to_numpy(order="jesse").tolist() == [
        [float(t), o, c, h, low, v] for t, o, h, low, c, v in truth
    ]
    assert got.to_lightweight_charts() == [
        {"time": t // 1000, "open": o, "high": h, "low": low, "close": c}
        for t, o, h, low, c, _ in truth
    ]
    assert totals(got) == totals(expected)
    assert pl.DataFrame(got).equals(got.to_polars())


def totals(frame: object) -> list[tuple[object, ...]]:
    """Have duckdb read a table of Python's."""
    found = duckdb.sql("SELECT count(*), round(fsum(volume), 6), max(high) FROM frame")
    assert found
    return found.fetchall()


def test_empty_window_has_the_same_types(client: Both) -> None:
    """A window without a candle is an empty frame of the usual columns, and complete."""
    some = client.candles("binance", "perp", "ETH-USDT", "1h", start="2024-05", limit=3)
    none = client.candles("binance", "perp", "ETH-USDT", "1h", start="2024-05", end="2024-05")

    assert (len(none), none.complete) == (0, True)
    assert none.to_arrow().schema == some.to_arrow().schema
    assert none.to_polars().schema == some.to_polars().schema
    assert none.to_ccxt() == none.to_lightweight_charts() == []
    assert none.to_numpy().shape == (0, 6)
    for shape in (Candles.to_pandas, Candles.to_freqtrade, Candles.to_vectorbt):
        pd.testing.assert_series_equal(shape(none).dtypes, shape(some).dtypes)
        assert shape(none).index.dtype == shape(some).index.dtype
        assert shape(none).index.name == shape(some).index.name


def test_columns_that_are_chosen_come_with_their_types(client: Both) -> None:
    """Counts stay integers, and a column that the exchange lacks is all null."""
    wanted = ["trades", "close", "quote_volume"]
    day = {"start": "2024-05-01", "end": "2024-05-02"}
    got = client.candles("binance", "perp", "ETH-USDT", "1h", fields=wanted, **day)
    without = client.candles("coinbase", "spot", "BTC-USD", "1h", fields="close,trades", **day)

    assert got.columns == ("time", *wanted)
    assert [str(it) for it in got.to_pandas().dtypes] == ["Int64", "float64", "float64"]
    assert got.to_pandas()["trades"].tolist() == got.to_arrow()["trades"].to_pylist()
    assert without.to_pandas()["trades"].isna().all()
    assert [str(it) for it in without.to_pandas().dtypes] == ["float64", "Int64"]
    assert without.to_polars()["trades"].null_count() == len(without)
    with pytest.raises(InvalidParameter, match="to_ccxt needs the column open"):
        got.to_ccxt()


def test_frames_share_memory_with_nothing(store: StoreServer, connect: Connect) -> None:
    """A caller may write into each, and no other changes, nor the answer."""
    got = connect(store.url).candles(*SERIES, start=START, end=START + 2500 * MINUTE)
    before = got.to_ccxt()
    frames = [got.to_pandas(), got.to_pandas(), got.to_freqtrade()]
    arrays = [got.to_numpy(), got.to_numpy(order="jesse")]
    for frame in frames:
        frame.loc[frame.index[:], "close"] = -1.0
    for array in arrays:
        array[:] = -2.0

    assert got.to_ccxt() == before
    assert not np.shares_memory(frames[0]["open"].to_numpy(), frames[1]["open"].to_numpy())
    memory = {b.address for c in got.to_arrow().columns for p in c.chunks for b in p.buffers() if b}
    polars = {
        b.address
        for c in got.to_polars().to_arrow().columns
        for p in c.chunks
        for b in p.buffers()
        if b
    }
    assert not memory & polars


def test_a_library_that_is_not_installed_is_named(
    store: StoreServer, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The error says what to install."""
    got = connect(store.url).candles(*SERIES, start=START, end=START + MINUTE)
    for library in ("numpy", "pandas", "polars"):
        monkeypatch.setitem(sys.modules, library, None)

    with pytest.raises(MissingExtra, match=r"mdp-client\[pandas\]"):
        got.to_numpy()
    with pytest.raises(MissingExtra, match=r"mdp-client\[polars\]"):
        got.to_polars()


def test_the_answer_says_what_it_is(client: Both) -> None:
    """Names are the canonical ones, times aware."""
    got = client.candles("binance", "perp", "ETHUSDT", "1h", start="2024-05-01", end="2024-05-02")

    assert repr(got) == "<Candles binance perp ETH-USDT 1h 2024-05-01T00:00/2024-05-02T00:00: 24>"
    assert got.start == pd.Timestamp("2024-05-01", tz="UTC")
    assert got.end == got.settled_until == pd.Timestamp("2024-05-02", tz="UTC")
    assert got.unconfirmed == got.missing == ()
    with pytest.raises(InvalidParameter, match="order='no'"):
        got.to_numpy(order="no")
