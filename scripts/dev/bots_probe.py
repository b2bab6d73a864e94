"""Asks for the same candles through a dialect and directly, by programs of others.

Run by `bots_trial` in a virtual environment that has these programs and nothing of the house.
"""

# These programs come without types, and are not installed beside the house.
# pyright: basic, reportMissingImports=false

import asyncio
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

HOUR = 3_600_000


def main(dialects: str, exchanges: str) -> int:
    """Try each program; return 1 if what it hears differs."""
    end = (int(time.time()) * 1000 // HOUR - 48) * HOUR
    is_wrong = False
    for package, name, ask in PROGRAMS:
        try:
            label = f"{name} ({package} {version(package)})"
        except PackageNotFoundError:
            print(f"{name}: {package} is not installed")  # noqa: T201
            continue
        ours, theirs = (ask(base, end) for base in (dialects, exchanges))
        is_same = bool(theirs) and ours == theirs
        is_wrong |= not is_same
        verdict = f"{len(theirs)} rows, equal" if is_same else f"differs: {ours[:1]} {theirs[:1]}"
        print(f"{label}: {verdict}")  # noqa: T201
    return int(is_wrong)


def _ccxt_urls(exchange: str, base: str) -> dict[str, str]:
    if exchange != "binance":
        return {"public": base}
    paths = {"fapiPublic": "fapi/v1", "fapiPublicV2": "fapi/v2", "fapiPublicV3": "fapi/v3"}
    return {name: f"{base}/{path}" for name, path in paths.items()}


def _ccxt(kind: str, exchange: str, market: str) -> Callable[[str, int], list[Any]]:
    def ask(base: str, end: int) -> list[Any]:
        program = getattr(import_module("ccxt"), kind)(
            {"urls": {"api": _ccxt_urls(exchange, f"{base}/{exchange}")}}
        )
        program.load_markets()
        until = {"until": end - 1}
        return program.fetch_ohlcv(market, "1h", since=end - 24 * HOUR, limit=24, params=until)

    return ask


def _ccxt_async(kind: str, exchange: str, market: str) -> Callable[[str, int], list[Any]]:
    async def ask(base: str, end: int) -> list[Any]:
        program = getattr(import_module("ccxt.async_support"), kind)(
            {"urls": {"api": _ccxt_urls(exchange, f"{base}/{exchange}")}}
        )
        try:
            await program.load_markets()
            return await program.fetch_ohlcv(market, "1h", since=end - 24 * HOUR, limit=24)
        finally:
            await program.close()

    return lambda base, end: asyncio.run(ask(base, end))


def _python_binance(base: str, end: int) -> list[Any]:
    client = import_module("binance.client").Client
    futures = type("Futures", (client,), {"FUTURES_URL": f"{base}/binance/fapi"})
    rows = futures(ping=False).futures_klines(
        symbol="ETHUSDT", interval="1h", startTime=end - 24 * HOUR, endTime=end - 1
    )
    return _numbers(rows)


def _binance_sdk(base: str, end: int) -> list[Any]:
    common = import_module("binance_common.configuration")
    sdk = import_module("binance_sdk_derivatives_trading_usds_futures")
    settings = common.ConfigurationRestAPI(base_path=f"{base}/binance", timeout=60_000)
    rest = sdk.DerivativesTradingUsdsFutures(config_rest_api=settings).rest_api
    answer = rest.kline_candlestick_data(
        symbol="ETHUSDT", interval="1h", start_time=end - 24 * HOUR, end_time=end - 1
    )
    return _numbers(answer.data())


def _hyperliquid(base: str, end: int) -> list[Any]:
    info = import_module("hyperliquid.info").Info(base_url=f"{base}/hyperliquid", skip_ws=True)
    return info.candles_snapshot("ETH", "1h", end - 24 * HOUR, end - 1)


def _coinbasepro(base: str, end: int) -> list[Any]:
    import_ = import_module("coinbasepro")
    client = import_.PublicClient(api_url=f"{base}/coinbase")
    bounds = [
        time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(ms // 1000))
        for ms in (end - 24 * HOUR, end - HOUR)
    ]
    return client.get_product_historic_rates("ETH-USD", *bounds, granularity=3600)


def _freqtrade(
    name: str, exchange: str, pair: str, mode: str, more: dict[str, Any]
) -> Callable[[str, int], list[Any]]:
    def ask(base: str, end: int) -> list[Any]:
        urls = {"urls": {"api": _ccxt_urls(exchange, f"{base}/{exchange}")}}
        ccxt_config = {**urls, **more.get("ccxt_config", {})}
        settings = {"name": name, "enable_ws": False, **more, "ccxt_config": ccxt_config}
        stake = pair.partition("/")[2].partition(":")[0]
        config = {"stake_currency": stake, "trading_mode": mode, "exchange": settings}
        config["margin_mode"] = "isolated" if mode == "futures" else ""
        settings["pair_whitelist"] = [pair]
        with tempfile.TemporaryDirectory() as folder:
            return _downloaded(Path(folder), config, pair, end)

    return ask


def _downloaded(folder: Path, config: dict[str, Any], pair: str, end: int) -> list[Any]:
    (folder / "config.json").write_text(json.dumps(config))
    window = f"{end // 1000 - 24 * 3600}-{end // 1000}"
    call = ["-m", "freqtrade", "download-data", "--config", str(folder / "config.json")]
    call += ["--userdir", str(folder), "--datadir", str(folder / "data"), "--timerange", window]
    call += ["--pairs", pair, "--timeframes", "1h"]
    done = subprocess.run([sys.executable, *call], capture_output=True, text=True, check=False)  # noqa: S603
    files = sorted(folder.glob("data/**/*-1h*.feather"))
    candles = [file for file in files if "mark" not in file.name and "funding" not in file.name]
    if not candles:
        print(done.stderr[-2000:])  # noqa: T201
        return []
    read = import_module("pandas").read_feather(candles[0])
    return [[str(cell) for cell in row] for row in read.to_numpy().tolist()]


def _numbers(rows: Any) -> list[Any]:  # noqa: ANN401 - a program's own
    """Read the rows of a program that leaves them as the exchange sends them."""
    plain = [[getattr(cell, "actual_instance", cell) for cell in row] for row in rows]
    return [[float(cell) for cell in row] for row in plain]


PROGRAMS = [
    ("ccxt", "ccxt binanceusdm", _ccxt("binanceusdm", "binance", "ETH/USDT:USDT")),
    ("ccxt", "ccxt hyperliquid", _ccxt("hyperliquid", "hyperliquid", "ETH/USDC:USDC")),
    ("ccxt", "ccxt coinbaseexchange", _ccxt("coinbaseexchange", "coinbase", "ETH/USD")),
    ("ccxt", "ccxt async binanceusdm", _ccxt_async("binanceusdm", "binance", "ETH/USDT:USDT")),
    ("python-binance", "python-binance", _python_binance),
    ("binance-sdk-derivatives-trading-usds-futures", "Binance's SDK", _binance_sdk),
    ("hyperliquid-python-sdk", "hyperliquid-python-sdk", _hyperliquid),
    ("coinbasepro", "coinbasepro", _coinbasepro),
    (
        "freqtrade",
        "freqtrade binance",
        _freqtrade(
            "binance",
            "binance",
            "ETH/USDT:USDT",
            "futures",
            {
                "only_from_ccxt": True,
                "ccxt_config": {"options": {"fetchMarkets": {"types": ["linear"]}}},
            },
        ),
    ),
    (
        "freqtrade",
        "freqtrade hyperliquid",
        _freqtrade(
            "hyperliquid",
            "hyperliquid",
            "ETH/USDC:USDC",
            "futures",
            {"_ft_has_params": {"ohlcv_has_history": True}},
        ),
    ),
    (
        "freqtrade",
        "freqtrade coinbaseexchange",
        _freqtrade("coinbaseexchange", "coinbase", "ETH/USD", "spot", {}),
    ),
]

if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:3]))
