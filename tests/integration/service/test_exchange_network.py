"""Networks between us and an exchange: proxies, failures in the system's words."""

import secrets
import socket
from collections.abc import Generator
from urllib.parse import urlsplit

import pytest
import stamina
from support.command_line import mdp
from support.http import HOST
from support.sandbox import Sandbox
from support.services import opened_services

from mdp_core.errors import ExchangeUnavailable
from mdp_core.settings import Settings
from scripts.demo.ports import free_port

_SOCKS = "socks5://proxy.example:1080"
_NOWHERE = "no.such.host.invalid"


@pytest.fixture
def _one_attempt() -> Generator[None]:
    with stamina.set_testing(True, attempts=1, cap=True):
        yield


async def _failure(settings: Settings, url: str) -> str:
    """Return what is said of an exchange at a URL that leads nowhere."""
    async with opened_services(settings, Sandbox(url)) as services:
        (adapter,) = services.resolver.directory.markets("binance", None)
        with pytest.raises(ExchangeUnavailable) as caught:
            await adapter.server_time()
    return str(caught.value)


@pytest.mark.usefixtures("_one_attempt")
async def test_failures_are_told_with_address_and_the_systems_words(
    settings: Settings, sandbox: Sandbox
) -> None:
    """A wrong port, name or protocol are told apart."""
    port, there = free_port(), urlsplit(sandbox.url).netloc
    with pytest.raises(socket.gaierror) as unresolved:
        socket.getaddrinfo(_NOWHERE, 80)

    refused = await _failure(settings, f"http://{HOST}:{port}")
    assert f"can't be reached at {HOST}:{port}: Connection refused" in refused
    unknown = await _failure(settings, f"http://{_NOWHERE}")
    assert f"at {_NOWHERE}:80: {unresolved.value.strerror}" in unknown
    assert f"at {there}: [SSL: " in await _failure(settings, f"https://{there}")


async def test_loopback_is_asked_without_the_proxy(
    settings: Settings, sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A demo works behind any proxy, also one that could not be used at all."""
    for name in ("ALL_PROXY", "HTTP_PROXY", "http_proxy"):
        monkeypatch.setenv(name, _SOCKS)
    async with opened_services(settings, sandbox) as services:
        (adapter,) = services.resolver.directory.markets("binance", None)
        await adapter.server_time()

    assert sandbox.requests()


@pytest.mark.usefixtures("_one_attempt")
async def test_failure_names_the_proxy_on_the_way(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is the proxy that refuses."""
    monkeypatch.setenv("http_proxy", f"http://{HOST}:{free_port()}")

    said = await _failure(settings, "http://exchange.example")
    assert f"at exchange.example:80 through the proxy {HOST}: Connection refused" in said


def test_proxy_that_cannot_be_used_is_told_in_a_line(database_url: str) -> None:
    """By check, and by a service that does not start."""
    environment = {
        "DATABASE_URL": database_url,
        "JWT_SECRET": secrets.token_hex(32),
        "ALL_PROXY": "gopher://user:hunter2@proxy.example",
    }
    checked, started = mdp(["check", "syncer"], environment), mdp(["syncer"], environment)

    assert checked.exit_code == started.exit_code == 1
    said = [f"mdp: {name}: the proxy" for name in ("binance", "coinbase", "hyperliquid")]
    lines = started.stderr.splitlines()
    assert [line[: len(text)] for line, text in zip(lines, said, strict=True)] == said
    assert "WRONG binance: the proxy of the environment is gopher://" in checked.stdout
    assert "hunter2" not in checked.stdout + started.stderr
