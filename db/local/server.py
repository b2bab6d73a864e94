"""A real Postgres for demo, tests and benchmarks, without Docker or set-up.

`open_local_database` finds or downloads a server (`local_programs`), keeps its files in a data
folder (`local_cluster`) and runs it as long as its owner runs: on leaving the context, and when the
owner is killed, the server shuts down. The server listens on the loopback interface only, behind a
generated password. It is no server to put in production.
"""

import contextlib
import fcntl
import os
import socket
import subprocess
import time
from collections.abc import Generator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import IO, Literal, get_args

import psycopg

from db.local.account import server_account
from db.local.cluster import (
    ROLE,
    Cluster,
    ensure_cluster,
    homes,
    is_ready,
    refuse_links_out,
    remove_home,
    stop_stale_server,
    wait_until,
)
from db.local.errors import LocalDatabaseError
from db.local.process import HOST, server_command, spawn_server, stop_server
from db.local.programs import Kind, find_programs

__all__ = [
    "Kind",
    "LocalDatabase",
    "LocalDatabaseError",
    "open_local_database",
    "remove_local_database",
]

WantedKind = Literal["auto", "timescaledb", "plain"]

# The environment variable that decides when the caller says "auto".
KIND_VARIABLE = "MDP_LOCAL_DATABASE"

_DATABASE = "mdp"
_OWNER_LOCK = "owner.lock"
_START_ATTEMPTS = 5
_PAUSE_SECONDS = 0.5
# The port or the shared memory; the predecessor's files.
_SIGNS_OF_PASSING_TROUBLE = ("in use", "another postmaster")
# Recovery after a crash replays the log, which can take a while.
_START_SECONDS = 120.0
_LOG_BYTES = 10_000_000
_LOG_TAIL = 1500


@dataclass(frozen=True, slots=True)
class LocalDatabase:
    """A running server with an empty or earlier filled database `mdp`.

    Attributes:
        url: `postgresql://` URL, superuser, for any client on this machine.
        kind: Whether the extension timescaledb can be created.
        bin_dir: The programs of this server's version: psql, pg_dump, pg_basebackup and so on.
        pid: The server's main process.
    """

    url: str
    kind: Kind
    bin_dir: Path
    pid: int


@contextlib.contextmanager
def open_local_database(
    data_dir: Path,
    *,
    kind: WantedKind = "auto",
    cache_dir: Path | None = None,
    settings: Mapping[str, str] = MappingProxyType({}),
) -> Generator[LocalDatabase]:
    """Run the database of a data folder until the context is left.

    The first call downloads the server and initialises the files, later ones take about a second.
    Each kind has files of its own in the data folder. The URL changes with every opening (port).

    Args:
        data_dir: Made if missing. One owner at a time.
        kind: "auto" is what MDP_LOCAL_DATABASE says, else TimescaleDB where it can be had and
            plain Postgres elsewhere, with a line on stderr that says why.
        cache_dir: For downloaded servers; by default $MDP_CACHE_DIR, /var/cache/mdp for root,
            $XDG_CACHE_HOME/mdp or ~/.cache/mdp.
        settings: Further server settings, e.g. `{"fsync": "off"}`.

    Raises:
        LocalDatabaseError: No server can be had or started, or the folder has an owner.
    """
    wanted = _wanted_kind(kind)
    with _owned(data_dir) as folder:
        account = server_account(homes(folder))
        programs = find_programs(wanted, cache_dir, account)
        is_durable = settings.get("fsync") != "off"
        cluster = ensure_cluster(folder, account, programs, is_durable=is_durable)
        with _running(cluster, settings, folder / "postgres.log") as (pid, url):
            yield LocalDatabase(url, programs.kind, programs.bin_dir, pid)


def remove_local_database(data_dir: Path) -> None:
    """Delete every cluster of a data folder, also where its files are elsewhere.

    As root a cluster can be outside its data folder (see `db.local_cluster`), so deleting that
    folder alone may leave it behind.

    Raises:
        LocalDatabaseError: The database is in use.
    """
    with _owned(data_dir) as folder:
        for home in homes(folder):
            stop_stale_server(home.resolve() / "data")
            remove_home(home)
        for name in ("postgres.log", "postgres.log.1", _OWNER_LOCK):
            (folder / name).unlink(missing_ok=True)


def _wanted_kind(kind: WantedKind) -> WantedKind:
    if kind != "auto":
        return kind
    chosen = os.environ.get(KIND_VARIABLE) or "auto"
    for known in get_args(WantedKind):
        if chosen == known:
            return known
    message = f"{KIND_VARIABLE} is {chosen!r}; it can be one of {', '.join(get_args(WantedKind))}"
    raise LocalDatabaseError(message)


@contextlib.contextmanager
def _owned(data_dir: Path) -> Generator[Path]:
    """Hold the data folder's owner lock, which ends with this process.

    Programs started meanwhile do not inherit the lock (Python opens files that way).
    """
    folder = data_dir.resolve()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        refuse_links_out(folder)
        lock = (folder / _OWNER_LOCK).open("a+", encoding="ascii")
    except OSError as error:
        message = f"the data folder {folder} cannot be used ({error}); choose another one"
        raise LocalDatabaseError(message) from error
    with lock:
        _lock(lock, folder)
        yield folder


def _lock(lock: IO[str], folder: Path) -> None:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        lock.seek(0)
        message = (
            f"the database in {folder} is in use by process {lock.read().strip()}; "
            "stop that one or choose another data folder"
        )
        raise LocalDatabaseError(message) from None
    lock.truncate(0)
    lock.write(f"{os.getpid()}\n")
    lock.flush()


@contextlib.contextmanager
def _running(
    cluster: Cluster, settings: Mapping[str, str], log: Path
) -> Generator[tuple[int, str]]:
    """Run the server; give its pid and the URL of the database."""
    process, port = _start(cluster, settings, log)
    try:
        server_url = f"postgresql://{ROLE}:{cluster.password}@{HOST}:{port}"
        _ensure_database(server_url)
        yield process.pid, f"{server_url}/{_DATABASE}"
    finally:
        stop_server(process)


def _start(
    cluster: Cluster, settings: Mapping[str, str], log: Path
) -> tuple[subprocess.Popen[bytes], int]:
    """Start the server and wait until it answers.

    Tried more than once where waiting helps: another program can take the port between choosing
    and using it, and processes of a killed predecessor need a moment to notice and go.
    """
    output = ""
    if log.exists() and log.stat().st_size > _LOG_BYTES:
        log.replace(log.with_suffix(".log.1"))
    for _ in range(_START_ATTEMPTS):
        stop_stale_server(cluster.data)
        port = _free_port()
        log_bytes = log.stat().st_size if log.exists() else 0
        process = spawn_server(server_command(cluster, settings, port), cluster, log)
        try:
            if _answers(process, cluster, port):
                return process, port
        except BaseException:
            stop_server(process)
            raise
        stop_server(process)
        output = log.read_bytes()[log_bytes:].decode(errors="replace")
        if not any(sign in output for sign in _SIGNS_OF_PASSING_TROUBLE):
            break
        time.sleep(_PAUSE_SECONDS)
    message = f"the server in {cluster.home} does not start; {log} says:\n{output[-_LOG_TAIL:]}"
    raise LocalDatabaseError(message)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])


def _answers(process: subprocess.Popen[bytes], cluster: Cluster, port: int) -> bool:
    """Wait until the server is ready; False when it ended or takes too long."""

    def has_settled() -> bool:
        return process.poll() is not None or is_ready(cluster.data, process.pid, port)

    return wait_until(has_settled, _START_SECONDS) and process.poll() is None


def _ensure_database(server_url: str) -> None:
    with psycopg.connect(f"{server_url}/postgres", autocommit=True) as connection:
        query = "SELECT 1 FROM pg_database WHERE datname = %s"
        if connection.execute(query, [_DATABASE]).fetchone() is None:
            connection.execute(f"CREATE DATABASE {_DATABASE}")
