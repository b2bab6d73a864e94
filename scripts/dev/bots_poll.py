"""Five bots that ask a dialect for the newest candles of 20 series each minute."""

import asyncio
import sys
import tempfile
import time
from collections import defaultdict
from datetime import timedelta
from pathlib import Path
from typing import Any

import ccxt.async_support as ccxt
import httpx
from pydantic import SecretStr

from api.tokens import URL_SCOPE, issue_token
from mdp_core.settings import TokenSettings
from scripts.demo.ports import free_port
from scripts.demo.stack import SandboxRequest, Stack, open_stack

_BOTS, _SERIES, _MINUTES = 5, 20, 3
_ROWS = 5
_MINUTE_MS = 60_000
_SETTLE_SECONDS = 2.0
# A forming candle is shared for three seconds, whichever bot asks.
_SHARED_SECONDS = 3.0
_LATE_SECONDS, _PATIENCE_SECONDS = 5.0, 20.0

Row = list[float]
Seen = dict[tuple[str, int], Row]


class Bot:
    """A program that drops the last row, as one that forms, and believes the others."""

    def __init__(self, base: str) -> None:
        urls = {
            name: f"{base}/fapi/{name[-2:].lower()}" for name in ("fapiPublicV2", "fapiPublicV3")
        }
        api = {"fapiPublic": f"{base}/fapi/v1", **urls, "fapiData": f"{base}/futures/data"}
        self.exchange: Any = ccxt.binanceusdm({"urls": {"api": api}, "enableRateLimit": False})
        self.believed: Seen = {}
        self.changed: list[str] = []
        self.delays: list[float] = []
        self.refused: list[str] = []

    async def follow(self, symbol: str, opened_ms: int) -> None:
        """Ask until the candle that opened then is closed; note after how long it came."""
        settled = (opened_ms + _MINUTE_MS) / 1000 + _SETTLE_SECONDS
        while time.time() < settled + _PATIENCE_SECONDS:
            try:
                rows: list[Row] = await self.exchange.fetch_ohlcv(symbol, "1m", limit=_ROWS)
            except ccxt.BaseError as error:
                self.refused.append(str(error))
                return
            self._believe(symbol, rows[:-1])
            if rows[-1][0] > opened_ms:
                self.delays.append(max(time.time() - settled, 0.0))
                return
            await asyncio.sleep(0.5)
        self.refused.append(f"{symbol} {opened_ms}: it never came")

    def _believe(self, symbol: str, rows: list[Row]) -> None:
        for row in rows:
            before = self.believed.setdefault((symbol, int(row[0])), row)
            if before != row:
                self.changed.append(f"{symbol}: {before} became {row}")


async def poll(stack: Stack, base: str) -> int:
    """Let the bots poll; print what was seen; return 1 if a promise was broken."""
    bots = [Bot(base) for _ in range(_BOTS)]
    try:
        await asyncio.gather(*(bot.exchange.load_markets() for bot in bots))
        markets: dict[str, Any] = bots[0].exchange.markets
        names = sorted(name for name, market in markets.items() if market["active"])
        symbols = [name for name in names if name.endswith("/USDT:USDT")][:_SERIES]
        await asyncio.gather(
            *(bots[0].exchange.fetch_ohlcv(name, "1m", limit=5) for name in symbols)
        )
        await asyncio.to_thread(_forget_requests, stack)
        for _ in range(_MINUTES):
            opened = int(time.time() * 1000) // _MINUTE_MS * _MINUTE_MS
            await asyncio.sleep((opened + _MINUTE_MS) / 1000 - time.time())
            tasks = [bot.follow(name, opened) for bot in bots for name in symbols]
            await asyncio.gather(*tasks)
    finally:
        await asyncio.gather(*(bot.exchange.close() for bot in bots))
    return _report(bots, _requests(stack))


def _forget_requests(stack: Stack) -> None:
    httpx.delete(f"{stack.sandbox_url}/_sandbox/requests", trust_env=False).raise_for_status()


def _requests(stack: Stack) -> dict[str, list[float]]:
    log: list[Any] = httpx.get(f"{stack.sandbox_url}/_sandbox/requests", trust_env=False).json()
    times: dict[str, list[float]] = defaultdict(list)
    for entry in log:
        if entry["path"].endswith("/klines"):
            times[entry["params"]["symbol"]].append(entry["at"] / 1000)
    return times


def _report(bots: list[Bot], times: dict[str, list[float]]) -> int:
    delays = sorted(delay for bot in bots for delay in bot.delays)
    changed = [text for bot in bots for text in bot.changed]
    refused = [text for bot in bots for text in bot.refused]
    most, periods = max(map(len, times.values())), int(_MINUTES * 60 / _SHARED_SECONDS)
    print(  # noqa: T201 - the point of it
        f"{len(delays)} closed candles seen by {len(bots)} bots, {delays[-1]:.1f} s after their "
        f"settling at the latest\n{sum(map(len, times.values()))} requests for {len(times)} "
        f"series, at most {most} for one in {periods} sharing periods\n"
        f"{len(refused)} refusals {refused[:2]}, {len(changed)} believed rows changed {changed[:2]}"
    )
    is_late = delays[-1] > _LATE_SECONDS
    return int(bool(changed or refused or is_late or most > periods))


def main() -> int:
    """Open a demo, and poll it."""
    with tempfile.TemporaryDirectory(prefix="mdp-bots-") as name:
        folder = Path(name)
        folder.chmod(0o755)  # the database of root runs as another user
        with open_stack(folder, free_port(), SandboxRequest()) as (stack, _):
            tokens = TokenSettings(jwt_secret=SecretStr(stack.env["JWT_SECRET"]))
            token = issue_token(tokens, "bots", frozenset({URL_SCOPE}), timedelta(hours=1))
            return asyncio.run(poll(stack, f"{stack.url}/dialect/{token}/binance"))


if __name__ == "__main__":
    sys.exit(main())
