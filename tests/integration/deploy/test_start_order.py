"""The services as compose starts them, by hand: one `.env`, one after the other.

What each process is given is what `docker-compose.yml` gives it; what differs is the database's
address, which compose makes out of the name of its container.
"""

import os
import re
import secrets
import subprocess
import sys
from collections.abc import Generator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import psycopg
import pytest
from psycopg import errors, sql
from support.http import HOST, answers, ask
from support.places import PROJECT
from support.postgres import Server
from support.sandbox import Sandbox, running_sandbox
from support.waiting import wait_until

from db.roles import ROLES
from scripts.demo.ports import free_port
from scripts.sandbox.app import SandboxOptions

pytestmark = pytest.mark.every_kind_of_database

PATH = "/candles/binance/perp/BTC-USDT/1h?start=2024-05-01&limit=10"
PASSWORDS = ("POSTGRES_PASSWORD", "MDP_SERVICE_PASSWORD", "MDP_ANALYST_PASSWORD", "JWT_SECRET")


@dataclass(frozen=True, slots=True)
class Deployment:
    """The running services, and the text of `.env`."""

    url: str
    env: Mapping[str, str]
    database: str
    api: subprocess.Popen[bytes]
    syncer: subprocess.Popen[bytes]

    def connect(self, role: str) -> psycopg.Connection:
        """Log in to the database as one of the roles, with its password of `.env`."""
        password = self.env[f"MDP_{role.removeprefix('mdp_').upper()}_PASSWORD"]
        return psycopg.connect(_as(self.database, role, password), autocommit=True)


@pytest.fixture(scope="module")
def deployment(server: Server) -> Generator[Deployment]:
    """Database, migrate, API, syncer: each waits for the one before, by condition."""
    options = SandboxOptions(limits=False)
    with running_sandbox(options) as sandbox, _empty_database(server) as (owner, database):
        env = _dot_env(sandbox, owner.rpartition(":")[2])
        migrate = {name: env[name] for name in ("MDP_SERVICE_PASSWORD", "MDP_ANALYST_PASSWORD")}
        _run(["db", "upgrade"], {**migrate, "DATABASE_URL": _as(database, *owner.split(":"))})
        shared = {
            **{name: value for name, value in env.items() if name not in PASSWORDS},
            "DATABASE_URL": _as(database, "mdp_service", env["MDP_SERVICE_PASSWORD"]),
        }
        port = free_port()
        url = f"http://{HOST}:{port}"
        with ExitStack() as stack:
            serving = {**shared, "JWT_SECRET": env["JWT_SECRET"]}
            api = stack.enter_context(_process(["api", "--port", str(port)], serving))
            wait_until(lambda: answers(f"{url}/health"))
            syncer = stack.enter_context(_process(["syncer"], shared))
            yield Deployment(url, env, database, api, syncer)


def test_request_is_served(deployment: Deployment) -> None:
    """With a token made from the same `.env`: the exchange is asked, rows are stored."""
    token = _run(["token"], {"JWT_SECRET": deployment.env["JWT_SECRET"]}).strip()
    headers = {"Authorization": f"Bearer {token}"}
    first, second = (ask(f"{deployment.url}{PATH}", headers=headers) for _ in range(2))

    assert (first.status_code, first.json()["count"]) == (200, 10), first.text
    assert second.headers["X-Cache"] == "hit"


def test_syncer_works_as_the_role_of_the_services(deployment: Deployment) -> None:
    """It brings the symbols of every exchange into the database without a request."""

    def has_symbols() -> bool:
        with deployment.connect("mdp_service") as connection:
            query = "SELECT count(DISTINCT exchange) FROM symbols"
            row = connection.execute(query).fetchone()
        return row == (3,)

    wait_until(has_symbols)
    assert deployment.syncer.poll() is None


@pytest.mark.parametrize(
    "statement",
    [
        "CREATE TABLE mine (n int)",
        "ALTER TABLE candles ADD COLUMN mine int",
        "DROP TABLE candles",
        "TRUNCATE candles",
        "CREATE ROLE mine",
    ],
)
def test_service_changes_no_table(deployment: Deployment, statement: str) -> None:
    """A captured API can't change the schema."""
    with (
        deployment.connect("mdp_service") as connection,
        pytest.raises(errors.InsufficientPrivilege),
    ):
        connection.execute(statement.encode())


@pytest.mark.parametrize(
    "statement",
    [
        "INSERT INTO exchanges (name) VALUES ('mine')",
        "UPDATE series SET epoch = epoch",
        "DELETE FROM candles",
        "CREATE TABLE mine (n int)",
    ],
)
def test_analyst_writes_nothing(deployment: Deployment, statement: str) -> None:
    """Not even without effect, nor in a transaction that lets them write."""
    with deployment.connect("mdp_analyst") as connection:
        connection.execute("SET default_transaction_read_only = off")
        with pytest.raises(errors.InsufficientPrivilege):
            connection.execute(statement.encode())


def test_analyst_reads_candles_by_name(deployment: Deployment) -> None:
    """The view shows the names."""
    with deployment.connect("mdp_analyst") as connection:
        connection.execute("SELECT * FROM candle_rows LIMIT 1")


def test_no_process_is_given_the_password_of_another(deployment: Deployment) -> None:
    """The owner's is not known to what listens; the token's secret not to the syncer."""
    api, syncer = (
        Path(f"/proc/{process.pid}/environ").read_text()
        for process in (deployment.api, deployment.syncer)
    )

    for name in ("POSTGRES_PASSWORD", "MDP_ANALYST_PASSWORD"):
        assert deployment.env[name] not in api + syncer
    assert deployment.env["JWT_SECRET"] in api
    assert deployment.env["JWT_SECRET"] not in syncer


def _dot_env(sandbox: Sandbox, owner_password: str) -> Mapping[str, str]:
    """Fill in `.env.example` as it tells to, and read it."""
    text = (PROJECT / ".env.example").read_text()
    given = dict(re.findall(r"(?m)^([A-Z_]+)=(.*)$", text))
    passwords = {name: secrets.token_hex(32) for name in PASSWORDS}
    urls = {
        f"MDP_{name.upper()}_URL": f"{sandbox.url}/{name}"
        for name in ("binance", "coinbase", "hyperliquid")
    }
    # Else it would begin to fetch everything that Hyperliquid may forget.
    return {**given, **passwords, **urls, "POSTGRES_PASSWORD": owner_password, "MDP_KEEP": ""}


@contextmanager
def _empty_database(server: Server) -> Generator[tuple[str, str]]:
    """Make a database and its owner as compose's image does; give owner and URL.

    Roles belong to the server: what is made here is dropped again.
    """
    name, password = f"owner_{secrets.token_hex(4)}", secrets.token_hex(16)
    url = f"{server.url.rpartition('/')[0]}/{name}"
    identifier = sql.Identifier(name)
    _administer(
        server,
        sql.SQL("CREATE ROLE {} SUPERUSER LOGIN PASSWORD {}").format(
            identifier, sql.Literal(password)
        ),
        sql.SQL("CREATE DATABASE {0} OWNER {0} TEMPLATE template0").format(identifier),
    )
    try:
        yield f"{name}:{password}", url
    finally:
        closed = [sql.SQL("ALTER ROLE {} NOLOGIN").format(sql.Identifier(role)) for role in ROLES]
        _administer(
            server,
            sql.SQL("DROP DATABASE {} WITH (FORCE)").format(identifier),
            sql.SQL("DROP ROLE {}").format(identifier),
            *closed,
        )


def _administer(server: Server, *statements: sql.Composed) -> None:
    url = f"{server.url.rpartition('/')[0]}/postgres"
    with psycopg.connect(url, autocommit=True) as connection:
        for statement in statements:
            connection.execute(statement)


def _as(url: str, user: str, password: str) -> str:
    """Give the URL of the same database for another user."""
    parts = urlsplit(url)
    return parts._replace(netloc=f"{user}:{password}@{parts.hostname}:{parts.port}").geturl()


def _environment(more: Mapping[str, str]) -> dict[str, str]:
    inherited = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("MDP_", "JWT_", "DATABASE_", "POSTGRES_"))
    }
    return {**inherited, **more}


def _run(arguments: list[str], environment: Mapping[str, str]) -> str:
    """Run a command to its end, as compose waits for `service_completed_successfully`."""
    done = subprocess.run(  # noqa: S603 - our own program
        [sys.executable, "-m", "scripts.cli.entry", *arguments],
        cwd=PROJECT,
        env=_environment(environment),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@contextmanager
def _process(
    arguments: list[str], environment: Mapping[str, str]
) -> Generator[subprocess.Popen[bytes]]:
    process = subprocess.Popen(  # noqa: S603 - our own program
        [sys.executable, "-m", "scripts.cli.entry", *arguments],
        cwd=PROJECT,
        env=_environment(environment),
        stderr=subprocess.DEVNULL,
    )
    try:
        yield process
    finally:
        process.terminate()
        process.wait(90)
