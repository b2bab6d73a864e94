"""Fixtures: real servers of every kind, the sandbox, the services, a client.

Nothing here replaces a part of the project: the database is a real one, the sandbox is reached over
HTTP, and the application runs inside its own lifespan.
"""

import asyncio
import itertools
import os
import secrets
import shutil
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import AsyncGenerator, Callable, Generator, Mapping
from contextlib import ExitStack, asynccontextmanager, closing, contextmanager
from dataclasses import dataclass
from datetime import timedelta
from functools import cache
from pathlib import Path
from typing import Any

import httpx
import psycopg
import pytest
import uvicorn
from fastapi import FastAPI
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict
from pydantic import SecretStr
from starlette.types import ASGIApp, Receive, Scope, Send
from testcontainers.community.postgres import PostgresContainer

from api.app import create_app
from api.auth import SCOPES, issue_token
from db.local.server import open_local_database
from db.roles import ROLES
from db.upgrade import upgrade
from mdp_core.settings import ExchangeSettings, Settings
from mdp_core.wiring import Services, open_services
from scripts.sandbox.app import SandboxOptions, create_sandbox

PROJECT = Path(__file__).parents[1]
DATA = PROJECT.parent / "shared" / "data"

HOST = "127.0.0.1"
MINUTE_MS = 60_000

# One for all: each new one reads every certificate of the machine.
_TLS = httpx.create_ssl_context()

IMAGE = "timescale/timescaledb:2.19.3-pg16"
SERVER_SETTINGS = {
    "fsync": "off",
    "synchronous_commit": "off",
    "full_page_writes": "off",
    "shared_buffers": "128MB",
}
_KLINES = "/fapi/v1/klines"
_PATIENCE_SECONDS = 20.0
_POLL_SECONDS = 0.01


# --- waiting ------------------------------------------------------------------------------------


async def eventually(holds: Callable[[], bool], *, seconds: float = _PATIENCE_SECONDS) -> None:
    """Wait until something holds; fail if it doesn't in time."""
    async with asyncio.timeout(seconds):
        while not holds():  # noqa: ASYNC110 - no event signals it
            await asyncio.sleep(_POLL_SECONDS)


def comes_true(holds: Callable[[], bool], *, seconds: float = _PATIENCE_SECONDS) -> bool:
    """Wait until something holds, outside an event loop; tell whether it did in time."""
    deadline = time.monotonic() + seconds
    while not (held := holds()) and time.monotonic() < deadline:
        time.sleep(_POLL_SECONDS)
    return held


def ask(
    url: str, params: Mapping[str, int] | None = None, headers: Mapping[str, str] | None = None
) -> httpx.Response:
    """Send one GET request to a server of the test's own."""
    return httpx.get(url, params=params, headers=headers, timeout=60, verify=_TLS)


def answers(url: str) -> bool:
    """Return whether a healthy server listens there."""
    try:
        return ask(url).is_success
    except httpx.TransportError:
        return False


# --- databases ----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Server:
    """A running Postgres with a migrated database from which every test gets a copy."""

    kind: str
    url: str
    bin_dir: Path | None
    """Its version's programs; None where the server is not this machine's."""

    @property
    def has_timescaledb(self) -> bool:
        """True where `candles` is a hypertable."""
        return self.kind != "plain"

    @contextmanager
    def clone(self) -> Generator[str]:
        """Give the URL of a copy of the migrated database, and drop it afterwards."""
        name = sql.Identifier(f"test_{secrets.token_hex(6)}")
        template = sql.Identifier(_database_of(self.url))
        self._administer(sql.SQL("CREATE DATABASE {} TEMPLATE {}").format(name, template))
        try:
            yield _with_database(self.url, name.as_string().strip('"'))
        finally:
            self._administer(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(name))

    def close_template(self) -> None:
        """Close the template to sessions: TimescaleDB's scheduler would sit in it."""
        name = _database_of(self.url)
        closed = sql.SQL("ALTER DATABASE {} WITH ALLOW_CONNECTIONS false")
        self._administer(closed.format(sql.Identifier(name)))
        ended = sql.SQL("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = {}")
        self._administer(ended.format(sql.Literal(name)))

    def _administer(self, statement: sql.Composed) -> None:
        with psycopg.connect(_with_database(self.url, "postgres"), autocommit=True) as connection:
            connection.execute(statement)


@contextmanager
def fresh_database(server_url: str, owner: str | None = None) -> Generator[str]:
    """Give the URL of a new, empty database, and drop it afterwards."""
    name = f"test_{secrets.token_hex(6)}"
    owned = sql.SQL(" OWNER {}").format(sql.Identifier(owner)) if owner else sql.SQL("")
    with psycopg.connect(_with_database(server_url, "postgres"), autocommit=True) as connection:
        connection.execute(sql.SQL("CREATE DATABASE {}{}").format(sql.Identifier(name), owned))
        try:
            yield _with_database(server_url, name)
        finally:
            drop = sql.SQL("DROP DATABASE {} WITH (FORCE)")
            connection.execute(drop.format(sql.Identifier(name)))


def _database_of(url: str) -> str:
    return url.rpartition("/")[2]


def _with_database(url: str, name: str) -> str:
    return f"{url.rpartition('/')[0]}/{name}"


def _has_containers() -> bool:
    """Tell whether a container engine answers, not only its client."""
    docker = shutil.which("docker")
    if docker is None:
        return False
    try:
        asked = subprocess.run([docker, "info"], capture_output=True, timeout=20, check=False)  # noqa: S603 - our own program
    except subprocess.TimeoutExpired:
        return False
    return asked.returncode == 0


# A superuser's URL of a server of any edition: an own kind, "given".
_GIVEN = os.environ.get("MDP_TEST_SERVER_URL")
_KINDS = (
    "timescaledb",
    "plain",
    *(("container",) if _has_containers() else ()),
    *(("given",) if _GIVEN else ()),
)


@contextmanager
def _open_server(kind: str) -> Generator[tuple[str, Path | None]]:
    if kind == "container":
        settings = {**SERVER_SETTINGS, "max_locks_per_transaction": "512"}
        options = " ".join(f"-c {name}={value}" for name, value in settings.items())
        container = PostgresContainer(IMAGE, dbname="mdp", driver=None)
        with container.with_command(f"postgres {options}") as running:
            yield running.get_connection_url(), None
        return
    if kind == "given":
        assert _GIVEN
        with fresh_database(_GIVEN) as url:
            yield url, None
        return
    with tempfile.TemporaryDirectory(prefix="mdp-test-") as name:
        folder = Path(name)
        folder.chmod(0o755)  # the server of root runs as another user
        local = "timescaledb" if kind == "timescaledb" else "plain"
        with open_local_database(folder / "db", kind=local, settings=SERVER_SETTINGS) as opened:
            yield opened.url, opened.bin_dir


@pytest.fixture(scope="session")
def _servers() -> Generator[Callable[[str], Server]]:
    """Starts each kind of server when it is first wanted, and keeps it: tests go to and fro."""
    with ExitStack() as stack:

        @cache
        def open_(kind: str) -> Server:
            url, bin_dir = stack.enter_context(_open_server(kind))
            server = Server(kind, url, bin_dir)
            upgrade(server.url)
            server.close_template()
            return server

        yield open_


# For tests whose outcome can't depend on the kind of database: one kind, the one that every machine
# can have and that is copied fastest.
one_kind_of_database = pytest.mark.parametrize("server", ["plain"], indirect=True)


@pytest.fixture(scope="session", params=_KINDS)
def server(request: pytest.FixtureRequest, _servers: Callable[[str], Server]) -> Server:
    """A Postgres server; every test with a database runs once on each kind there can be."""
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
    """A look into the test's database from outside the services."""
    with psycopg.connect(database_url, autocommit=True) as connection:
        yield connection


def url_as(url: str, user: str, password: str) -> str:
    """Return the URL of the same database for another role."""
    given = conninfo_to_dict(url)
    return f"postgresql://{user}:{password}@{given['host']}:{given['port']}/{given['dbname']}"


@pytest.fixture
def logins(database_url: str) -> Generator[dict[str, str]]:
    """The URL of each role, which may log in for the length of the test."""
    passwords = {role: secrets.token_hex(16) for role in ROLES}
    upgrade(database_url, passwords)
    yield {role: url_as(database_url, role, passwords[role]) for role in ROLES}
    with psycopg.connect(database_url) as connection:
        for role in ROLES:
            connection.execute(sql.SQL("ALTER ROLE {} NOLOGIN").format(sql.Identifier(role)))


# --- the sandbox --------------------------------------------------------------------------------


class Sandbox:
    """The controls of a running sandbox, and what its Binance says when asked directly."""

    def __init__(self, url: str) -> None:
        self.url = url
        self._http = httpx.Client(base_url=url, timeout=30, verify=_TLS)

    def requests(self) -> list[dict[str, Any]]:
        """Give the log: every request to an exchange since it was cleared."""
        return self._http.get("/_sandbox/requests").json()

    def candle_requests(self) -> list[dict[str, Any]]:
        """Give those requests that asked Binance for candles, except for where they begin."""
        asked = [entry for entry in self.requests() if entry["path"] == _KLINES]
        return [entry for entry in asked if entry["params"]["startTime"] != "0"]

    def probes(self) -> list[dict[str, Any]]:
        """Give those requests that asked Binance where a series begins."""
        asked = [entry for entry in self.requests() if entry["path"] == _KLINES]
        return [entry for entry in asked if entry["params"]["startTime"] == "0"]

    def clear(self) -> None:
        """Empty the log."""
        self._http.delete("/_sandbox/requests").raise_for_status()

    def fault(self, name: str, *, times: int = 1, **more: object) -> None:
        """Order a fault for the next candle requests to Binance."""
        order = {"exchange": "binance", "fault": name, "times": times, **more}
        self._http.post("/_sandbox/faults", json=[order]).raise_for_status()

    def clear_faults(self) -> None:
        """Forget the faults that have not come yet."""
        self._http.delete("/_sandbox/faults").raise_for_status()

    def settings(self, **changes: object) -> None:
        """Change `latency_ms` or `limits`."""
        self._http.post("/_sandbox/settings", json=changes).raise_for_status()

    def reset(self) -> None:
        """Bring everything back to how a test expects to find it."""
        self.clear_faults()
        self.settings(latency_ms=0, limits="off")
        self.clear()

    def candles(self, symbol: str, interval: str, start_ms: int, end_ms: int) -> list[list[float]]:
        """Ask Binance itself for the candles that open in `[start_ms, end_ms)`, 1500 at most."""
        bounds = {"startTime": start_ms, "endTime": end_ms - 1, "limit": 1500}
        params = {"symbol": symbol, "interval": interval, **bounds}
        answer = self._http.get(f"/binance{_KLINES}", params=params).raise_for_status()
        return [[row[0], *map(float, row[1:6])] for row in answer.json()]

    def ask(self, path: str, params: Mapping[str, Any] | None = None) -> Any:  # noqa: ANN401 - JSON
        """Ask an exchange itself, e.g. for `/coinbase/products`; give its JSON."""
        return self._http.get(path, params=params).raise_for_status().json()

    def post(self, path: str, body: Mapping[str, Any]) -> Any:  # noqa: ANN401 - JSON
        """Ask an exchange itself with a body; give its JSON."""
        return self._http.post(path, json=body).raise_for_status().json()

    def close(self) -> None:
        """Close the connections to it."""
        self._http.close()


class _Addressed:
    """Shows a server its clients under an address that can be changed.

    An exchange counts per address: with one of its own no test is charged for another's requests.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self._addresses = (f"10.{n >> 16}.{n >> 8 & 255}.{n & 255}" for n in itertools.count(1))
        self._address = next(self._addresses)

    def move(self) -> None:
        """Come from another address from now on."""
        self._address = next(self._addresses)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._app({**scope, "client": (self._address, 1)}, receive, send)


@contextmanager
def served_over_http(app: ASGIApp) -> Generator[str]:
    """Serve an application on a free port from a thread of its own; give its URL."""
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


@contextmanager
def running_sandbox(options: SandboxOptions) -> Generator[Sandbox]:
    """Run a sandbox of one's own, for a clock or data of one's own."""
    with _running_sandbox(options) as (running, _):
        yield running


@contextmanager
def _running_sandbox(options: SandboxOptions) -> Generator[tuple[Sandbox, _Addressed]]:
    addressed = _Addressed(create_sandbox(options))
    with served_over_http(addressed) as url, closing(Sandbox(url)) as running:
        running.reset()
        yield running, addressed


@pytest.fixture(scope="session")
def _shared_sandbox() -> Generator[tuple[Sandbox, _Addressed]]:
    with _running_sandbox(SandboxOptions(limits=False)) as running:
        yield running


@pytest.fixture(scope="session")
def _shared_replay_sandbox() -> Generator[tuple[Sandbox, _Addressed]]:
    if not DATA.is_dir():
        pytest.skip(f"{DATA} is not there")
    with _running_sandbox(SandboxOptions(data=DATA, limits=False)) as running:
        yield running


@pytest.fixture
def sandbox(_shared_sandbox: tuple[Sandbox, _Addressed]) -> Sandbox:
    """A sandbox that invents its candles: empty log, no faults, no latency, no limits."""
    return _fresh(*_shared_sandbox)


@pytest.fixture
def replay_sandbox(_shared_replay_sandbox: tuple[Sandbox, _Addressed]) -> Sandbox:
    """The same, replaying the real candles of the shared folder; skips where there is none."""
    return _fresh(*_shared_replay_sandbox)


def _fresh(running: Sandbox, addressed: _Addressed) -> Sandbox:
    addressed.move()
    running.reset()
    return running


# --- the services -------------------------------------------------------------------------------


@pytest.fixture
def settings(database_url: str) -> Settings:
    """Settings for the test's own database, with a secret of their own."""
    return Settings(database_url=database_url, jwt_secret=SecretStr(secrets.token_hex(32)))


def checked_out(services: Services) -> int:
    """Count the connections of the pool that are held."""
    stats = services.database._pool.get_stats()  # noqa: SLF001 - there is no other way to see them
    return stats["pool_size"] - stats["pool_available"]


@asynccontextmanager
async def opened_services(
    settings: Settings, sandbox: Sandbox, **exchange: float
) -> AsyncGenerator[Services]:
    """Open the services on the sandbox's exchanges; at the end no connection may be held.

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


@pytest.fixture
async def services(settings: Settings, sandbox: Sandbox) -> AsyncGenerator[Services]:
    """Everything that the API works with, on the test's database and the sandbox."""
    async with opened_services(settings, sandbox) as opened:
        yield opened


# --- the application ----------------------------------------------------------------------------


class _WithState:
    """Hands the lifespan's state to every request, as a server does and `ASGITransport` doesn't."""

    def __init__(self, app: ASGIApp, state: Mapping[str, Any]) -> None:
        self._app = app
        self._state = state

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._app({**scope, "state": dict(self._state)}, receive, send)


def app_of(services: Services) -> FastAPI:
    """Make the application over services that are open already."""

    @asynccontextmanager
    async def open_() -> AsyncGenerator[Services]:
        yield services

    return create_app(open_)


@asynccontextmanager
async def connected(app: FastAPI, token: str | None) -> AsyncGenerator[httpx.AsyncClient]:
    """Give a client of an application that runs inside its lifespan."""
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    async with app.router.lifespan_context(app) as state:
        transport = httpx.ASGITransport(_WithState(app, state or {}))
        async with httpx.AsyncClient(
            transport=transport, base_url="http://mdp", headers=headers
        ) as client:
            yield client


def token_of(settings: Settings, *scopes: str) -> str:
    """Make a token that is good for an hour; without scopes it has all of them."""
    return issue_token(settings, "tester", frozenset(scopes or SCOPES), timedelta(hours=1))


@asynccontextmanager
async def serving(
    settings: Settings, sandbox: Sandbox, **exchange: float
) -> AsyncGenerator[httpx.AsyncClient]:
    """Open services as `opened_services` does, and give a client of their application."""
    async with (
        opened_services(settings, sandbox, **exchange) as services,
        connected(app_of(services), token_of(settings)) as client,
    ):
        yield client


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
