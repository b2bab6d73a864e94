"""Backups by the commands of docs/backup.md, and servers that run on them."""

import contextlib
import os
import re
import shlex
import signal
import tempfile
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from pathlib import Path

import psycopg
import pytest
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict

from db.local.account import give_to, run_as, server_account
from db.local.cluster import Cluster
from db.local.process import server_command, spawn_server, stop_server
from db.local.programs import find_programs
from db.schema import metadata
from scripts.demo.ports import free_port
from support.places import PROJECT
from support.postgres import SERVER_SETTINGS, Server
from support.waiting import wait_until

_PAGE = PROJECT / "docs" / "backup.md"


@dataclass(frozen=True, slots=True)
class SecondServer:
    """A server made of a base backup."""

    port: int
    cluster: Cluster

    def url(self, url: str) -> str:
        """Give the URL of the same database on this server."""
        given = conninfo_to_dict(url)
        address = f"{given['user']}:{given['password']}@{given['host']}:{self.port}"
        return f"postgresql://{address}/{given['dbname']}"

    @contextlib.contextmanager
    def frozen(self, url: str) -> Generator[None]:
        """Stop all its processes: its connections stay open, and nothing answers."""
        with psycopg.connect(self.url(url)) as connection:
            found = connection.execute("SELECT pid FROM pg_stat_activity").fetchall()
        postmaster = int((self.cluster.data / "postmaster.pid").read_text().split()[0])
        pids = [postmaster, *(pid for (pid,) in found)]
        try:
            _signal(pids, signal.SIGSTOP)
            yield
        finally:
            _signal(pids, signal.SIGCONT)


def _signal(pids: Sequence[int], number: signal.Signals) -> None:
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)


def documented_commands(heading: str) -> list[str]:
    """Give the blocks of commands right below a heading of the page on backups."""
    return commands_by_heading(_PAGE)[heading]


def commands_by_heading(page: Path) -> dict[str, list[str]]:
    """Give the blocks of commands of a page, as they stand below its headings."""
    _, *parts = re.split(r"(?m)^##+ (.+)$", page.read_text())
    headed = zip(parts[::2], parts[1::2], strict=True)
    return {name: re.findall(r"(?s)```sh.*?\n(.*?)```", text) for name, text in headed}


def content_of(url: str) -> dict[str, list[str]]:
    """Give all rows of all our tables as text, without the number a restore changes."""
    with psycopg.connect(url) as connection:
        connection.execute("SET timezone = 'UTC'")
        return {
            table.name: [
                row[0]
                for row in connection.execute(
                    sql.SQL("SELECT t::text FROM {} AS t ORDER BY 1").format(
                        sql.Identifier(table.name)
                    )
                )
            ]
            for table in metadata.sorted_tables
            if table.name != "store"
        }


def store_number(url: str) -> int:
    """Return the number of the store, which a restore changes."""
    with psycopg.connect(url) as connection:
        row = connection.execute("SELECT id FROM store").fetchone()
    assert row
    return int(row[0])


def programs_of(server: Server) -> Path:
    """Give the folder of a server's programs; skip where this machine has none."""
    if server.bin_dir is None:
        pytest.skip("the server's programs are not on this machine")
    return server.bin_dir


@contextlib.contextmanager
def base_backup(server: Server, commands: str) -> Generator[Cluster]:
    """Back up all of a server's files by the documented commands, as its account."""
    bin_dir = programs_of(server)
    account = server_account([])
    programs = find_programs("plain" if server.kind == "plain" else "timescaledb", None, account)
    with tempfile.TemporaryDirectory(prefix="mdp-test-") as name:
        Path(name).chmod(0o755)
        home = Path(name) / "home"
        home.mkdir(mode=0o700)
        give_to(account, home)
        cluster = Cluster(home, account, programs)
        urls = dict.fromkeys(("DATABASE_URL", "REPLICATION_URL"), server.url)
        values = {**urls, "PATH": bin_dir, "MDP_BACKUP_DIR": cluster.data}
        exports = [f"export {name}={shlex.quote(str(value))}" for name, value in values.items()]
        # No test outlives the power.
        script = "\n".join([*exports, f"{commands.rstrip()} --no-sync"])
        done = run_as(account, ["/bin/sh", "-euc", script], cwd=home)
        assert done.returncode == 0, done.stdout
        yield cluster


@contextlib.contextmanager
def running(cluster: Cluster, server: Server, port: int | None = None) -> Generator[SecondServer]:
    """Run a server on these files until the context is left."""
    second = SecondServer(port or free_port(), cluster)
    log = cluster.home.parent / "log"
    process = spawn_server(server_command(cluster, SERVER_SETTINGS, second.port), cluster, log)
    try:
        url = second.url(server.url.rpartition("/")[0] + "/postgres")
        wait_until(lambda: _answers(url), or_tell=log.read_text)
        yield second
    finally:
        stop_server(process)


def _answers(url: str) -> bool:
    try:
        psycopg.connect(url).close()
    except psycopg.OperationalError:
        return False
    return True
