"""The services and the application on a test's database and sandbox."""

import asyncio
import socket
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any

import httpx
import uvicorn
from fastapi import FastAPI

from api.app import create_app
from api.tokens import SCOPES, issue_token
from mdp_core.settings import ExchangeSettings, Settings
from mdp_core.wiring import Services, open_services
from support.http import HOST, connected
from support.sandbox import Sandbox
from support.waiting import eventually


def checked_out(services: Services) -> int:
    """Return the number of connections in use."""
    stats = services.database.pool_stats()
    return stats["pool_size"] - stats["pool_available"]


@asynccontextmanager
async def opened_services(
    settings: Settings, sandbox: Sandbox, **exchange: float
) -> AsyncGenerator[Services]:
    """Open the services on the sandbox; check that they return each connection.

    Args:
        settings: Of the services.
        sandbox: Stands for the exchanges.
        exchange: Further settings of every exchange, e.g. `settle_seconds`.
    """

    def exchange_settings(name: str) -> ExchangeSettings:
        values: dict[str, Any] = {"share": 1.0, **exchange}
        return ExchangeSettings(url=f"{sandbox.url}/{name}", **values)

    async with open_services(settings, exchange_settings=exchange_settings) as services:
        yield services
        await eventually(lambda: checked_out(services) == 0)


def app_of(services: Services) -> FastAPI:
    """Build the application over services that are open already."""

    @asynccontextmanager
    async def open_() -> AsyncGenerator[Services]:
        yield services

    return create_app(open_)


def token_of(settings: Settings, *scopes: str) -> str:
    """Return a token for an hour; without scopes it has all of them."""
    return issue_token(settings, "tester", frozenset(scopes or SCOPES), timedelta(hours=1))


@asynccontextmanager
async def serving(
    settings: Settings, sandbox: Sandbox, **exchange: float
) -> AsyncGenerator[httpx.AsyncClient]:
    """Open services as `opened_services` does; yield a client of their application."""
    async with (
        opened_services(settings, sandbox, **exchange) as services,
        connected(app_of(services), token_of(settings)) as client,
    ):
        yield client


@asynccontextmanager
async def served_on_loop(services: Services) -> AsyncGenerator[int]:
    """Serve over TCP, on this loop; give the port."""
    config = uvicorn.Config(
        app_of(services), log_config=None, ws="none", timeout_graceful_shutdown=1
    )
    server = uvicorn.Server(config)
    with socket.create_server((HOST, 0)) as listener:
        serving = asyncio.create_task(server.serve([listener]))
        try:
            yield listener.getsockname()[1]
        finally:
            server.should_exit = True
            await serving
