"""The sandbox as a server: third-party clients work against it; it can be stopped."""

import socket
import threading
import time
from collections.abc import Generator, Iterator
from contextlib import contextmanager, suppress

import ccxt
import httpx
import pytest
import uvicorn

from mdp_core.domain.clock import Clock
from scripts.sandbox.app import SandboxOptions, create_sandbox

START_MS = 1_788_220_800_000  # 2026-09-01
HOUR = 3_600_000
GRACE_SECONDS = 1


@contextmanager
def running() -> Generator[str]:
    """Run a sandbox on a free port in a thread; gives its URL."""
    app = create_sandbox(SandboxOptions(clock=Clock(), limits=False))
    listener = socket.create_server(("127.0.0.1", 0))
    config = uvicorn.Config(
        app, log_level="critical", ws="none", timeout_graceful_shutdown=GRACE_SECONDS
    )
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, args=([listener],))
    thread.start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(20)
        listener.close()
        assert not thread.is_alive()


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with running() as url:
        yield url


@contextmanager
def loaded(exchange: ccxt.Exchange, found: str, to: str) -> Generator[ccxt.Exchange]:
    """Point a ccxt exchange at the sandbox and load its markets; nothing else changes."""
    assert exchange.urls is not None
    known: dict[str, str] = exchange.urls["api"]
    exchange.urls["api"] = {name: known[name].replace(found, to) for name in known}
    try:
        exchange.load_markets()
        yield exchange
    finally:
        if exchange.session:
            exchange.session.close()


def test_ccxt_loads_binance_and_fetches_its_rows(url: str) -> None:
    """`binanceusdm` finds the perpetuals and gives the rows that the wire has."""
    with loaded(ccxt.binanceusdm(), "https://fapi.binance.com", f"{url}/binance") as exchange:
        markets = exchange.markets
        got = exchange.fetch_ohlcv("BTC/USDT:USDT", "1h", since=START_MS, limit=24)
    raw = httpx.get(
        f"{url}/binance/fapi/v1/klines",
        params={"symbol": "BTCUSDT", "interval": "1h", "startTime": START_MS, "limit": 24},
    ).json()

    assert len(markets) >= 300
    assert markets["BTC/USDT:USDT"]["precision"]["price"] == 0.1
    assert markets["OMG/USDT:USDT"]["active"] is False
    assert got == [[row[0], *map(float, row[1:6])] for row in raw]


def test_ccxt_loads_hyperliquid_and_fetches_its_rows(url: str) -> None:
    """`hyperliquid` finds perpetuals, spot, builders' coins, and the wire's rows."""
    known = "https://api.{hostname}"
    with loaded(ccxt.hyperliquid(), known, f"{url}/hyperliquid") as exchange:
        markets = exchange.markets
        until = exchange.milliseconds()
        since = until - 24 * HOUR
        got = exchange.fetch_ohlcv("ETH/USDC:USDC", "1h", since=since, params={"until": until})
    req = {"coin": "ETH", "interval": "1h", "startTime": since, "endTime": until}
    raw = httpx.post(f"{url}/hyperliquid/info", json={"type": "candleSnapshot", "req": req}).json()

    assert {"KPEPE/USDC:USDC", "XYZ-TSLA/USDC:USDC", "PURR/USDC"} <= markets.keys()
    assert markets["MATIC/USDC:USDC"]["active"] is False
    closed = [[row["t"], *(float(row[key]) for key in "ohlcv")] for row in raw if row["t"] >= since]
    assert len(got) >= 23
    assert got[:-1] == closed[:-1]


def test_ccxt_loads_coinbase_and_fetches_its_rows(url: str) -> None:
    """`coinbaseexchange` finds the products and gives the wire's rows, ascending."""
    known = "https://api.{hostname}"
    with loaded(ccxt.coinbaseexchange(), known, f"{url}/coinbase") as exchange:
        markets = exchange.markets
        got = exchange.fetch_ohlcv("BTC/USD", "1h", since=START_MS, limit=24)
    raw = httpx.get(
        f"{url}/coinbase/products/BTC-USD/candles",
        params={"granularity": 3600, "start": "2026-09-01T00:00Z", "end": "2026-09-01T23:00Z"},
    ).json()

    assert markets["BTC/USD"]["active"] is True
    assert markets["MOVE/USD"]["active"] is False
    assert len(got) == 24
    assert got == [[t * 1000, o, h, low, c, v] for t, low, h, o, c, v in reversed(raw)]


def test_hanging_request_ends_when_its_client_leaves(url: str) -> None:
    """A hang never answers; its log entry has no status, and the next request works."""
    httpx.delete(f"{url}/_sandbox/requests")
    httpx.post(f"{url}/_sandbox/faults", json=[{"exchange": "binance", "fault": "hang"}])
    asked = f"{url}/binance/fapi/v1/klines?symbol=BTCUSDT&interval=1m&limit=1"
    with pytest.raises(httpx.ReadTimeout):
        httpx.get(asked, timeout=0.3)

    assert httpx.get(asked).status_code == 200
    log = httpx.get(f"{url}/_sandbox/requests").json()
    assert [(entry["status"], entry["fault"]) for entry in log] == [(None, "hang"), (200, None)]


def test_hang_gives_up_after_its_seconds(url: str) -> None:
    """With `seconds` the client is answered like a gateway would, not with candles."""
    fault = {"exchange": "coinbase", "fault": "hang", "seconds": 0.2}
    httpx.post(f"{url}/_sandbox/faults", json=[fault])
    begun = time.monotonic()
    response = httpx.get(f"{url}/coinbase/products/BTC-USD/candles")

    assert response.status_code == 504
    assert time.monotonic() - begun >= 0.2


def test_hanging_request_does_not_keep_the_server_alive() -> None:
    """A server with a grace period stops although a client still waits."""
    with running() as url, httpx.Client() as client:
        client.post(f"{url}/_sandbox/faults", json=[{"exchange": "binance", "fault": "hang"}])
        waiting = threading.Thread(target=_wait, args=(url,))
        waiting.start()
        while not client.get(f"{url}/_sandbox/requests").json():
            time.sleep(0.01)
    waiting.join(20)

    assert not waiting.is_alive()


def _wait(url: str) -> None:
    with suppress(httpx.HTTPError):
        httpx.get(f"{url}/binance/fapi/v1/klines?symbol=BTCUSDT&interval=1m", timeout=30)
