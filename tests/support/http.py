"""Requests to servers of a test, and servers on free ports."""

import socket
import threading
from collections.abc import AsyncGenerator, Generator, Mapping
from contextlib import asynccontextmanager, contextmanager
from typing import Any

import httpx
import uvicorn
from fastapi import FastAPI
from starlette.types import ASGIApp, Receive, Scope, Send

HOST = "127.0.0.1"


# Shared: each new one reads every certificate of the machine.
TLS = httpx.create_ssl_context()


def ask(
    url: str, params: Mapping[str, int] | None = None, headers: Mapping[str, str] | None = None
) -> httpx.Response:
    """Send one GET request to a server of the test."""
    return httpx.get(url, params=params, headers=headers, timeout=60, verify=TLS)


def answers(url: str) -> bool:
    """Check that the URL answers with success."""
    try:
        return ask(url).is_success
    except httpx.TransportError:
        return False


@contextmanager
def served_over_http(app: ASGIApp) -> Generator[str]:
    """Serve an application on a free port from a thread of its own; yield its URL."""
    config = uvicorn.Config(
        app, log_config=None, lifespan="off", ws="none", timeout_graceful_shutdown=1
    )
    uvicorn_server = uvicorn.Server(config)
    with socket.create_server((HOST, 0)) as listener:
        thread = threading.Thread(target=uvicorn_server.run, args=([listener],))
        thread.start()
        try:
            yield f"http://{HOST}:{listener.getsockname()[1]}"
        finally:
            uvicorn_server.should_exit = True
            thread.join()


class _WithState:
    """An application with its lifespan's state in each request, as under a server."""

    def __init__(self, app: ASGIApp, state: Mapping[str, Any]) -> None:
        self._app = app
        self._state = state

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._app({**scope, "state": dict(self._state)}, receive, send)


@asynccontextmanager
async def connected(
    app: FastAPI, token: str | None, *, raise_app_exceptions: bool = True
) -> AsyncGenerator[httpx.AsyncClient]:
    """Yield a client of an application that runs inside its lifespan.

    Args:
        app: The application.
        token: Sent with each request.
        raise_app_exceptions: Whether an error inside also reaches the test; a server only logs it.
    """
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    async with app.router.lifespan_context(app) as state:
        transport = httpx.ASGITransport(_WithState(app, state or {}), raise_app_exceptions)
        async with httpx.AsyncClient(
            transport=transport, base_url="http://mdp", headers=headers
        ) as client:
            yield client
