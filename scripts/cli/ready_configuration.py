"""The base URLs of a token for URLs, and the configuration of programs."""

import json
import os
from collections.abc import Iterator
from textwrap import indent

_USUAL_URL = "http://127.0.0.1:8000"
_EXCHANGES = ("binance", "hyperliquid", "coinbase")


def ccxt_urls(exchange: str, base: str) -> dict[str, str]:
    """Return what ccxt's `urls["api"]` takes; the exchange's other addresses stay."""
    if exchange != "binance":
        return {"public": base}
    versions = {"fapiPublic": "fapi/v1", "fapiPublicV2": "fapi/v2", "fapiPublicV3": "fapi/v3"}
    paths = {**versions, "fapiData": "futures/data"}
    return {name: f"{base}/{path}" for name, path in paths.items()}


def ready_configuration(token: str) -> Iterator[str]:
    """Print the base URLs of a token, and the configuration of each program."""
    url = os.environ.get("MDP_URL", _USUAL_URL).rstrip("/")
    bases = {exchange: f"{url}/dialect/{token}/{exchange}" for exchange in _EXCHANGES}
    yield f"Base URLs, with a token that reads candles (MDP_URL is {url}):"
    yield from (f"  {exchange:<12} {base}" for exchange, base in bases.items())
    yield f"  {'TradingView':<12} {url}/udf/{token}"
    yield "\nccxt (binanceusdm, hyperliquid, coinbaseexchange):"
    for exchange, base in bases.items():
        yield f"  {json.dumps({'urls': {'api': ccxt_urls(exchange, base)}})}"
    yield "\nfreqtrade, in the configuration:"
    yield indent(json.dumps({"exchange": _freqtrade(bases["binance"])}, indent=2), "  ")
    yield "\npython-binance:"
    yield "  class Futures(binance.Client):"
    yield f'      FUTURES_URL = "{bases["binance"]}/fapi"'
    yield "  client = Futures(ping=False)"


def _freqtrade(base: str) -> dict[str, object]:
    # Without `linear` it asks spot first; without `only_from_ccxt` it reads Binance's own archive.
    return {
        "name": "binance",
        "enable_ws": False,
        "only_from_ccxt": True,
        "ccxt_config": {
            "options": {"fetchMarkets": {"types": ["linear"]}},
            "urls": {"api": ccxt_urls("binance", base)},
        },
    }
