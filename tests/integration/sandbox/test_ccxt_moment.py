"""A third-party client asks the sandbox for all public data beside candles."""

from collections.abc import Generator, Iterator
from contextlib import contextmanager

import ccxt
import pytest
from support.sandbox import running_sandbox

from mdp_core.domain.clock import Clock
from scripts.sandbox.app import SandboxOptions

FUNDED_MS = 8 * 3_600_000
START_MS = 1_788_220_800_000  # 2026-09-01


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with running_sandbox(SandboxOptions(clock=Clock(), limits=False)) as sandbox:
        yield sandbox.url


@contextmanager
def pointed(exchange: ccxt.Exchange, found: str, to: str) -> Generator[ccxt.Exchange]:
    """Point a ccxt exchange at the sandbox, nothing else changed."""
    assert exchange.urls is not None
    known: dict[str, str] = exchange.urls["api"]
    exchange.urls["api"] = {name: known[name].replace(found, to) for name in known}
    try:
        yield exchange
    finally:
        if exchange.session:
            exchange.session.close()


def test_ccxt_reads_binance_s_quotes(url: str) -> None:
    """Ticker, book, trades, funding and mark prices have what it looks for."""
    with pointed(ccxt.binanceusdm(), "https://fapi.binance.com", f"{url}/binance") as exchange:
        ticker = exchange.fetch_ticker("BTC/USDT:USDT")
        tickers = exchange.fetch_tickers()
        last = exchange.fetch_last_prices()
        best = exchange.fetch_bids_asks(["ETH/USDT:USDT"])
        book = exchange.fetch_order_book("BTC/USDT:USDT", 20)
        trades = exchange.fetch_trades("BTC/USDT:USDT", limit=30)
        funding = exchange.fetch_funding_rate("BTC/USDT:USDT")
        rates = exchange.fetch_funding_rates()
        history = exchange.fetch_funding_rate_history("BTC/USDT:USDT", START_MS, 9)
        marks = exchange.fetch_ohlcv("BTC/USDT:USDT", "1h", START_MS, 5, {"price": "mark"})

    assert ticker["low"] <= ticker["last"] <= ticker["high"]
    assert ticker["baseVolume"] > 0
    assert len(tickers) >= 250
    assert last["BTC/USDT:USDT"]["price"] > 0
    assert best["ETH/USDT:USDT"]["bid"] < best["ETH/USDT:USDT"]["ask"]
    assert (len(book["bids"]), len(book["asks"])) == (20, 20)
    assert len(trades) == 30
    assert {trade["side"] for trade in trades} == {"buy", "sell"}
    assert funding["markPrice"] > 0
    assert len(rates) >= 200
    assert [rate["timestamp"] for rate in history] == [START_MS + i * FUNDED_MS for i in range(9)]
    assert len(marks) == 5


def test_ccxt_reads_hyperliquid_s_quotes(url: str) -> None:
    """Tickers, book and funding have what it looks for."""
    known = "https://api.{hostname}"
    with pointed(ccxt.hyperliquid(), known, f"{url}/hyperliquid") as exchange:
        tickers = exchange.fetch_tickers()
        book = exchange.fetch_order_book("BTC/USDC:USDC")
        history = exchange.fetch_funding_rate_history("ETH/USDC:USDC", START_MS, 24)
        rates = exchange.fetch_funding_rates()

    assert tickers["BTC/USDC:USDC"]["last"] > 0
    assert book["bids"][0][0] < book["asks"][0][0]
    assert len(history) == 24
    assert len(rates) > 50


def test_ccxt_reads_coinbase_s_quotes(url: str) -> None:
    """Ticker, book and currencies have what it looks for."""
    known = "https://api.{hostname}"
    with pointed(ccxt.coinbaseexchange(), known, f"{url}/coinbase") as exchange:
        ticker = exchange.fetch_ticker("BTC/USD")
        book = exchange.fetch_order_book("BTC/USD")
        currencies = exchange.fetch_currencies()

    assert ticker["bid"] == ticker["last"] < ticker["ask"]
    assert len(book["bids"]) == 50
    assert "BTC" in currencies
