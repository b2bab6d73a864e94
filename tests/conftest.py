"""Fixtures of all tests: real servers of all kinds, sandbox, services, a client.

No part of the project is replaced: the database is a real one, the sandbox is reached over HTTP,
and the application runs inside its own lifespan.
"""

import secrets
import shutil
from collections.abc import AsyncGenerator, Callable, Generator
from contextlib import ExitStack
from functools import cache

import httpx
import psycopg
import pytest
from fastapi import FastAPI
from psycopg import sql
from pydantic import SecretStr
from support.http import connected
from support.places import DATA
from support.postgres import KINDS, Server, open_server, url_as
from support.sandbox import Addressed, Sandbox, addressed_sandbox
from support.services import app_of, opened_services, token_of

from db.roles import ROLES
from db.upgrade import upgrade
from mdp_core.settings import Settings
from mdp_core.wiring import Services
from scripts.sandbox.app import SandboxOptions


@pytest.fixture(scope="session")
def _servers() -> Generator[Callable[[str], Server]]:
    """Servers by kind, each started when a test first wants it, and kept."""
    with ExitStack() as stack:

        @cache
        def open_(kind: str) -> Server:
            url, bin_dir = stack.enter_context(open_server(kind))
            server = Server(kind, url, bin_dir)
            upgrade(server.url)
            server.close_template()
            return server

        yield open_


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run tests marked `every_kind_of_database` on each available kind, others on one."""
    if "server" in metafunc.fixturenames:
        on_all = metafunc.definition.get_closest_marker("every_kind_of_database")
        metafunc.parametrize(
            "server", KINDS if on_all else ["plain"], indirect=True, scope="session"
        )


@pytest.fixture(scope="session")
def server(request: pytest.FixtureRequest, _servers: Callable[[str], Server]) -> Server:
    """A Postgres server of the kind that the test is run for."""
    if request.param == "timescaledb" and shutil.which("apt-get") is None:
        pytest.skip("TimescaleDB comes from Debian's packages, and this machine has no apt")
    return _servers(request.param)


@pytest.fixture
def database_url(server: Server) -> Generator[str]:
    """An own, migrated, empty database."""
    with server.clone() as url:
        yield url


@pytest.fixture
def database(database_url: str) -> Generator[psycopg.Connection]:
    """A connection to the test's database from outside the services."""
    with psycopg.connect(database_url, autocommit=True) as connection:
        yield connection


@pytest.fixture
def logins(database_url: str) -> Generator[dict[str, str]]:
    """The URL of each role, which may log in for the length of the test."""
    passwords = {role: secrets.token_hex(16) for role in ROLES}
    upgrade(database_url, passwords)
    yield {role: url_as(database_url, role, passwords[role]) for role in ROLES}
    with psycopg.connect(database_url) as connection:
        for role in ROLES:
            connection.execute(sql.SQL("ALTER ROLE {} NOLOGIN").format(sql.Identifier(role)))


@pytest.fixture(scope="session")
def _shared_sandbox() -> Generator[tuple[Sandbox, Addressed]]:
    with addressed_sandbox(SandboxOptions(limits=False)) as running:
        yield running


@pytest.fixture(scope="session")
def _shared_replay_sandbox() -> Generator[tuple[Sandbox, Addressed]]:
    if not DATA.is_dir():
        pytest.skip(f"{DATA} is not there")
    with addressed_sandbox(SandboxOptions(data=DATA, limits=False)) as running:
        yield running


@pytest.fixture
def sandbox(_shared_sandbox: tuple[Sandbox, Addressed]) -> Sandbox:
    """A sandbox that invents its candles: empty log, no faults, no latency, no limits."""
    return _fresh(*_shared_sandbox)


@pytest.fixture
def replay_sandbox(_shared_replay_sandbox: tuple[Sandbox, Addressed]) -> Sandbox:
    """The same, replaying real candles of the shared folder; skips where it lacks."""
    return _fresh(*_shared_replay_sandbox)


def _fresh(running: Sandbox, addressed: Addressed) -> Sandbox:
    addressed.move()
    running.reset()
    return running


@pytest.fixture
def settings(database_url: str) -> Settings:
    """Settings for the test's own database, with a secret of their own."""
    return Settings(
        database_url=database_url,
        jwt_secret=SecretStr(secrets.token_hex(32)),
        second_look_seconds=0.05,
    )


@pytest.fixture
async def services(settings: Settings, sandbox: Sandbox) -> AsyncGenerator[Services]:
    """Everything that the API works with, on the test's database and the sandbox."""
    async with opened_services(settings, sandbox) as opened:
        yield opened


@pytest.fixture
def token(settings: Settings) -> Callable[..., str]:
    """Makes a token with the given scopes, or with all of them."""
    return lambda *scopes: token_of(settings, *scopes)


@pytest.fixture
def app(services: Services) -> FastAPI:
    """The application over the test's services."""
    return app_of(services)


@pytest.fixture
async def client(app: FastAPI, token: Callable[..., str]) -> AsyncGenerator[httpx.AsyncClient]:
    """A client of the application whose token may do everything."""
    async with connected(app, token()) as connected_client:
        yield connected_client
