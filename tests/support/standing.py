"""Services, their client and the exchanges, all on one clock that a test moves."""

from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime

import httpx

from mdp_core.domain.clock import Clock, to_ms
from mdp_core.exchanges.base import ExchangeAdapter
from mdp_core.settings import Settings
from mdp_core.wiring import Services
from scripts.sandbox.app import SandboxOptions
from support.clocks import standing_clock
from support.http import connected
from support.sandbox import MINUTE_MS, Sandbox, running_sandbox
from support.services import app_of, opened_services, token_of
from syncer.scheduled_jobs import rechecks_of

NOON = datetime(2026, 10, 7, 12, 0, 30, tzinfo=UTC)
NOON_MS = to_ms(NOON) // MINUTE_MS * MINUTE_MS

BUSY: Mapping[str, str] = {
    "binance": "binance/perp/BTC-USDT/1m",
    "hyperliquid": "hyperliquid/perp/BTC-USDC/1m",
    "coinbase": "coinbase/spot/BTC-USD/1m",
}
"""A series of each exchange with a candle in every slot."""

NATIVE: Mapping[str, str] = {"binance": "BTCUSDT", "hyperliquid": "BTC", "coinbase": "BTC-USD"}
"""The exchanges' own names of the symbols of `BUSY`."""


@dataclass(frozen=True, slots=True)
class Standing:
    """Everything that a test on injected time plays on."""

    client: httpx.AsyncClient
    services: Services
    sandbox: Sandbox
    clock: Clock

    async def get(self, path: str, **params: object) -> httpx.Response:
        """Ask for a path; return the answer, whatever it is."""
        texts = {name: str(value) for name, value in params.items()}
        return await self.client.get(path, params=texts)

    async def candles(self, exchange: str, **params: object) -> httpx.Response:
        """Ask for minutes of the exchange's busy series, which must be given."""
        answer = await self.get(f"/candles/{BUSY[exchange]}", **params)
        assert answer.status_code == 200, answer.text
        return answer

    def adapter(self, exchange: str) -> ExchangeAdapter:
        """Return the adapter of the exchange's only market."""
        (adapter,) = self.services.resolver.directory.markets(exchange, None)
        return adapter

    async def recheck(self, exchange: str) -> int:
        """Do what the syncer's job does; return how many candles were found."""
        result = await rechecks_of(self.services, self.adapter(exchange)).run()
        assert result.error is None
        return result.rows


@asynccontextmanager
async def standing(settings: Settings, now: datetime = NOON) -> AsyncGenerator[Standing]:
    """Open all of it at a time; second looks follow at once."""
    clock = standing_clock(now)
    prompt = settings.model_copy(update={"clock": clock, "second_look_seconds": 0.0})
    with running_sandbox(SandboxOptions(clock=clock, limits=False)) as sandbox:
        async with (
            opened_services(prompt, sandbox) as services,
            connected(app_of(services), token_of(prompt)) as client,
        ):
            yield Standing(client, services, sandbox, clock)


def open_times(answer: httpx.Response) -> list[int]:
    """Return the open times of an answer's candles."""
    return [row[0] for row in answer.json()["candles"]]


def minutes(start: int, end: int) -> list[int]:
    """Return the open times of all minutes of a window."""
    return list(range(start, end, MINUTE_MS))
