"""The process of a local server: its command line, its start and its end."""

import contextlib
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping
from concurrent.futures import Future
from pathlib import Path

from db.local import launch as local_launch
from db.local.account import server_environment
from db.local.cluster import Cluster
from db.local.programs import Kind

HOST = "127.0.0.1"

# Fast shutdown, then an immediate one that the next start recovers from.
_STOP_STEPS = ((signal.SIGINT, 30.0), (signal.SIGQUIT, 10.0), (signal.SIGKILL, 10.0))
_SETTINGS = {
    # Every chunk of a hypertable is a table, and a statement may lock many of them.
    "max_locks_per_transaction": "512",
    "max_connections": "200",
    # TimescaleDB's jobs have workers of their own, beside those of parallel queries.
    "max_worker_processes": "32",
    "shared_buffers": "256MB",
    # Compiling a query of some milliseconds costs more than the query.
    "jit": "off",
    "timezone": "UTC",
    "log_timezone": "UTC",
}
_SETTINGS_OF_KIND: Mapping[Kind, Mapping[str, str]] = {
    "timescaledb": {
        "shared_preload_libraries": "timescaledb",
        "timescaledb.telemetry_level": "off",
    },
    "plain": {},
}


def server_command(cluster: Cluster, settings: Mapping[str, str], port: int) -> list[str]:
    """Return the command line that runs a server on a cluster's files."""
    merged = {
        **_SETTINGS,
        **_SETTINGS_OF_KIND[cluster.programs.kind],
        **settings,
        # Last, as these are not the caller's to choose. No Unix socket: the path of a folder may
        # be longer than a socket's may be, and the loopback interface serves every client.
        "listen_addresses": HOST,
        "port": str(port),
        "unix_socket_directories": "",
    }
    options = [part for name, value in merged.items() for part in ("-c", f"{name}={value}")]
    return [str(cluster.programs.bin_dir / "postgres"), "-D", str(cluster.data), *options]


def spawn_server(command: list[str], cluster: Cluster, log: Path) -> subprocess.Popen[bytes]:
    """Start the server from a thread that lives as long as it does.

    The death signal comes when the *thread* that started a process ends, and the caller's may be
    a worker thread that ends long before the context does.
    """
    account = cluster.account
    launch = [sys.executable, "-I", "-S", local_launch.__file__, str(os.getpid())]
    launch.append(f"{account.uid}:{account.gid}" if account else "-")
    launch.append(str(int(signal.SIGINT)))  # Postgres' fast shutdown
    started: Future[subprocess.Popen[bytes]] = Future()

    def hold() -> None:
        try:
            with log.open("ab") as output:
                process = subprocess.Popen(  # noqa: S603 - the server found by us
                    [*launch, *command],
                    cwd=cluster.home,
                    env=server_environment(),
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=output,
                    # Ctrl-C in a terminal is for the owner, which stops the server last.
                    start_new_session=True,
                )
        except BaseException as error:  # noqa: BLE001 - handed to the caller's thread
            started.set_exception(error)
        else:
            started.set_result(process)
            process.wait()

    threading.Thread(target=hold, name="local-database", daemon=True).start()
    return started.result()


def stop_server(process: subprocess.Popen[bytes]) -> None:
    """Stop a server, with more force where it takes too long."""
    for death, timeout_seconds in _STOP_STEPS:
        process.send_signal(death)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(timeout_seconds)
            return
