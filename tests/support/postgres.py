"""Servers of every kind, and databases on them."""

import os
import secrets
import shutil
import subprocess
import tempfile
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psycopg
import pytest
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict
from testcontainers.community.postgres import PostgresContainer

from db.local.server import open_local_database

# The edition of the compose file.
IMAGE = "timescale/timescaledb:2.19.3-pg16"


SERVER_SETTINGS = {
    "fsync": "off",
    "synchronous_commit": "off",
    "full_page_writes": "off",
    "shared_buffers": "128MB",
}


# A superuser's URL of a server of any edition: an own kind, "given".
_GIVEN = os.environ.get("MDP_TEST_SERVER_URL")


@dataclass(frozen=True, slots=True)
class Server:
    """A running Postgres with a migrated database from which every test gets a copy."""

    kind: str
    url: str
    bin_dir: Path | None
    """Its version's programs; None where the server is not this machine's."""

    @property
    def has_timescaledb(self) -> bool:
        """Tell if `candles` is a hypertable there."""
        return self.kind != "plain"

    @contextmanager
    def clone(self) -> Generator[str]:
        """Yield the URL of a copy of the migrated database; drop it afterwards."""
        name = sql.Identifier(f"test_{secrets.token_hex(6)}")
        template = sql.Identifier(_database_of(self.url))
        # Copied as files and not through the log: a third of the time where files lie in memory.
        copied = sql.SQL("CREATE DATABASE {} TEMPLATE {} STRATEGY file_copy")
        self._administer(copied.format(name, template))
        try:
            yield _with_database(self.url, name.as_string().strip('"'))
        finally:
            self._administer(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(name))

    def close_template(self) -> None:
        """Close the copied database to sessions: TimescaleDB's scheduler blocks copies."""
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
    """Yield the URL of a new, empty database; drop it afterwards."""
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


def url_as(url: str, user: str, password: str) -> str:
    """Return the URL of the same database for another role."""
    given = conninfo_to_dict(url)
    return f"postgresql://{user}:{password}@{given['host']}:{given['port']}/{given['dbname']}"


def _has_containers() -> bool:
    """Check that a container engine answers, not only its client."""
    docker = shutil.which("docker")
    if docker is None:
        return False
    try:
        asked = subprocess.run([docker, "info"], capture_output=True, timeout=20, check=False)  # noqa: S603 - our own program
    except subprocess.TimeoutExpired:
        return False
    return asked.returncode == 0


KINDS = (
    "timescaledb",
    "plain",
    *(("container",) if _has_containers() else ()),
    *(("given",) if _GIVEN else ()),
)


@contextmanager
def open_server(kind: str) -> Generator[tuple[str, Path | None]]:
    """Run a server; yield the URL of its database and the folder of its programs."""
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
        folder.chmod(0o755)  # a server that root starts runs as another account
        local = "timescaledb" if kind == "timescaledb" else "plain"
        with open_local_database(folder / "db", kind=local, settings=SERVER_SETTINGS) as opened:
            yield opened.url, opened.bin_dir


# To be removed: the default now.
one_kind_of_database = pytest.mark.usefixtures()
