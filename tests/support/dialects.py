"""The dialects beside the exchanges that they stand for."""

import asyncio
import socket
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import httpx
import uvicorn
from fastapi import FastAPI

from api.tokens import URL_SCOPE
from mdp_core.settings import Settings
from support.http import HOST, TLS
from support.services import app_of, token_of
from support.standing import Standing, standing


@asynccontextmanager
async def served(app: FastAPI) -> AsyncGenerator[str]:
    """Serve an application over TCP on this loop; yield its URL."""
    config = uvicorn.Config(
        app, log_config=None, ws="none", timeout_graceful_shutdown=1, access_log=False
    )
    server = uvicorn.Server(config)
    with socket.create_server((HOST, 0)) as listener:
        serving = asyncio.create_task(server.serve([listener]))
        try:
            yield f"http://{HOST}:{listener.getsockname()[1]}"
        finally:
            server.should_exit = True
            await serving


@dataclass(frozen=True, slots=True)
class Doors:
    """A service on a standing clock, and clients that bring no header of ours."""

    standing: Standing
    token: str
    url: str
    http: httpx.AsyncClient

    def base(self, exchange: str) -> str:
        """Return the base URL of an exchange's dialect."""
        return f"{self.url}/dialect/{self.token}/{exchange}"

    async def both(
        self, exchange: str, path: str, params: dict[str, str]
    ) -> tuple[httpx.Response, httpx.Response]:
        """Ask the dialect, then the exchange itself, by GET."""
        there = f"{self.standing.sandbox.url}/{exchange}{path}"
        ours = await self.http.get(f"{self.base(exchange)}{path}", params=params)
        return ours, await self.http.get(there, params=params)

    async def refill(self) -> None:
        """Fill the budgets again, as a minute of waiting would."""
        async with self.standing.services.database.connection() as connection:
            await connection.execute("UPDATE rate_budgets SET tokens = 1000")

    async def both_told(self, body: object) -> tuple[httpx.Response, httpx.Response]:
        """Ask Hyperliquid's dialect, then Hyperliquid itself, by POST."""
        there = f"{self.standing.sandbox.url}/hyperliquid/info"
        ours = await self.http.post(f"{self.base('hyperliquid')}/info", json=body)
        return ours, await self.http.post(there, json=body)


@asynccontextmanager
async def opened_doors(settings: Settings) -> AsyncGenerator[Doors]:
    """Serve everything over TCP; the clock stands."""
    async with (
        standing(settings) as stands,
        served(app_of(stands.services)) as url,
        httpx.AsyncClient(timeout=30, verify=TLS) as http,
    ):
        yield Doors(stands, token_of(settings, URL_SCOPE), url, http)
