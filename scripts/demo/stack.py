"""The whole service on one machine: what `mdp demo` and `mdp run` start.

Database, API, syncer and, for the demo, the sandbox. One process owns the others; when it ends,
however it ends, they end too.
"""

import fcntl
import json
import os
import random
import secrets
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from types import FrameType

import httpx
from pydantic import SecretStr

from api.tokens import SCOPES, MissingKey, issue_token
from db.local import launch as local_launch
from db.local.cluster import refuse_links_out
from db.local.errors import LocalDatabaseError
from db.local.server import open_local_database
from db.upgrade import UpgradeError, upgrade
from mdp_core.domain.clock import Clock
from mdp_core.settings import TokenSettings

_HOST = "127.0.0.1"
_START_SECONDS = 60.0
_STOP_SECONDS = 15.0
_TOKEN_LIFETIME = timedelta(days=30)
_POLL_SECONDS = 0.1
# Linux gives connections their ports from 32768 on (ip_local_port_range).
_PORTS = range(20_000, 32_768)


# What ends by itself is started again after so long; without anything else nothing works.
# Of a syncer's runs another one, if there is one, has taken over what this one ran by then.
_API, _SYNCER, _SANDBOX = "the API", "the syncer", "the sandbox"
_RESTART_SECONDS = {_API: 1.0, _SYNCER: 15.0}


class StackError(Exception):
    """Something could not be started, or ended by itself."""


STACK_ERRORS = (StackError, LocalDatabaseError, UpgradeError, MissingKey)
"""What the operator or the machine has to mend, besides errors of the core."""


class Processes:
    """The processes of a stack, by name; they end with the context that `stack` is of."""

    def __init__(self, stack: ExitStack) -> None:
        self._stack = stack
        self._starts: dict[str, Callable[[], subprocess.Popen[bytes]]] = {}
        self._running: dict[str, subprocess.Popen[bytes]] = {}
        self._restarts: dict[str, float] = {}

    def __getitem__(self, name: str) -> subprocess.Popen[bytes]:
        """Give a process."""
        return self._running[name]

    def start(self, name: str, arguments: Sequence[str], env: Mapping[str, str]) -> None:
        """Run another `mdp` in an environment of its own."""
        self._starts[name] = lambda: self._stack.enter_context(_process(arguments, env))
        self._running[name] = self._starts[name]()

    def ended(self) -> Mapping[str, int]:
        """Give the exit codes of those that have ended."""
        codes = {name: process.poll() for name, process in self._running.items()}
        return {name: code for name, code in codes.items() if code is not None}

    def look_after(self) -> None:
        """Start again, in time, what has ended.

        Raises:
            StackError: Something ended without which nothing works.
        """
        now = time.monotonic()
        for name, code in self.ended().items():
            what = f"{name} ended with exit code {code}"
            if name not in _RESTART_SECONDS:
                raise StackError(what)
            if name not in self._restarts:
                seconds = _RESTART_SECONDS[name]
                self._restarts[name] = now + seconds
                print(f"mdp: {what}; it is started again in {seconds:g} s", file=sys.stderr)  # noqa: T201 - for its user
            elif now >= self._restarts[name]:
                del self._restarts[name]
                self._running[name] = self._starts[name]()


@dataclass(frozen=True, slots=True)
class Stack:
    """The running stack, as `ready.json` tells it."""

    url: str
    token: str
    database_url: str
    sandbox_url: str | None
    env: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class SandboxRequest:
    """That a sandbox is wanted, and how it starts."""

    data: Path | None = None
    clock: Clock = field(default_factory=Clock)


def serve(data_dir: Path, port: int, sandbox: SandboxRequest | None) -> None:
    """Run until SIGTERM or SIGINT; `ready.json` exists while everything serves.

    Args:
        data_dir: Where the database, the secret and `ready.json` are kept.
        port: Of the API, on the loopback interface.
        sandbox: None for the live exchanges, or whatever `MDP_*_URL` name.

    Raises:
        StackError: A part could not be started, or ended without which nothing works.
        LocalDatabaseError: There is no database to be had.
    """
    stopping, is_serving = threading.Event(), threading.Event()

    def stop(_number: int, _frame: FrameType | None) -> None:
        stopping.set()
        if not is_serving.is_set():
            raise SystemExit(1)  # what was started so far is stopped on the way out

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, stop)
    ready = data_dir / "ready.json"
    with _sole_owner(data_dir), open_stack(data_dir.resolve(), port, sandbox) as running:
        stack, processes = running
        try:
            is_serving.set()
            _write_ready(ready, stack)
            _greet(stack, sandbox, ready)
            while not stopping.wait(_POLL_SECONDS):
                processes.look_after()
        finally:
            ready.unlink(missing_ok=True)


@contextmanager
def _sole_owner(data_dir: Path) -> Generator[None]:
    """Hold the folder; the lock ends with this process, however that ends."""
    try:
        data_dir.mkdir(parents=True, exist_ok=True)
        refuse_links_out(data_dir.resolve())
        lock = (data_dir / "stack.lock").open("w")
    except OSError as error:
        message = f"{data_dir} can't be used: {error.strerror}; choose another --data-dir"
        raise StackError(message) from error
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            message = f"{data_dir} is in use: stop what runs there, or choose another --data-dir"
            raise StackError(message) from error
        (data_dir / "ready.json").unlink(missing_ok=True)  # of an owner that was killed
        yield


@contextmanager
def open_stack(
    data_dir: Path, port: int, sandbox: SandboxRequest | None
) -> Generator[tuple[Stack, Processes]]:
    """Run a stack until the context is left; yield `ready.json` and the processes.

    Raises:
        StackError, LocalDatabaseError: As `serve`.
    """
    _check_port(port)
    env = {**_inherited(), "JWT_SECRET": _secret(data_dir)}
    url, sandbox_url = f"http://{_HOST}:{port}", None
    with ExitStack() as stack:
        processes = Processes(stack)
        if sandbox:
            sandbox_port = free_port()
            sandbox_url = f"http://{_HOST}:{sandbox_port}"
            processes.start(_SANDBOX, _sandbox_arguments(sandbox, sandbox_port), env)
            env |= _sandbox_environment(sandbox_url, sandbox.clock)
        env["DATABASE_URL"] = os.environ.get("DATABASE_URL") or (
            stack.enter_context(open_local_database(data_dir)).url
        )
        upgrade(env["DATABASE_URL"])
        processes.start(_SYNCER, ["syncer"], env)
        processes.start(_API, ["api", "--port", str(port)], env)
        if sandbox_url:
            _wait_for(f"{sandbox_url}/_sandbox/settings", processes)
        _wait_for(f"{url}/health", processes)
        tokens = TokenSettings(jwt_secret=SecretStr(env["JWT_SECRET"]))
        token = issue_token(tokens, "demo", frozenset(SCOPES), _TOKEN_LIFETIME)
        yield Stack(url, token, env["DATABASE_URL"], sandbox_url, env), processes


def _sandbox_arguments(sandbox: SandboxRequest, port: int) -> list[str]:
    data = ["--data", str(sandbox.data)] if sandbox.data else []
    return ["sandbox", "--port", str(port), "--clock", str(sandbox.clock), *data]


def _inherited() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if name.startswith(("MDP_", "JWT_"))}


def _sandbox_environment(sandbox_url: str, clock: Clock) -> dict[str, str]:
    exchanges = ("binance", "hyperliquid", "coinbase")
    urls = {f"MDP_{name.upper()}_URL": f"{sandbox_url}/{name}" for name in exchanges}
    unproxied = ",".join(filter(None, [os.environ.get("NO_PROXY"), _HOST]))
    return {**urls, "MDP_CLOCK": str(clock), "NO_PROXY": unproxied, "no_proxy": unproxied}


def _secret(data_dir: Path) -> str:
    """Give `JWT_SECRET`, or the one made for this folder."""
    if given := os.environ.get("JWT_SECRET"):
        return given
    kept = data_dir / "jwt-secret"
    if not kept.exists():
        draft = data_dir / "jwt-secret.draft"
        draft.unlink(missing_ok=True)
        draft.touch(mode=0o600)
        draft.write_text(secrets.token_hex(32))
        draft.rename(kept)
    return kept.read_text()


@contextmanager
def _process(
    arguments: Sequence[str], env: Mapping[str, str]
) -> Generator[subprocess.Popen[bytes]]:
    """Run another `mdp`, which ends with this process even if this one is killed."""
    launch = [sys.executable, "-I", "-S", local_launch.__file__, str(os.getpid()), "-"]
    # SIGINT would be an exception, which can get lost while modules are imported.
    launch.append(str(int(signal.SIGTERM)))
    command = [*launch, sys.executable, "-m", "scripts.cli.entry", *arguments]
    process = subprocess.Popen(  # noqa: S603 - our own program
        command, env={**os.environ, **env}, stdin=subprocess.DEVNULL, start_new_session=True
    )
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _wait_for(url: str, processes: Processes) -> None:
    deadline = time.monotonic() + _START_SECONDS
    with httpx.Client(trust_env=False, verify=False) as client:  # noqa: S501 - loopback, no TLS
        while time.monotonic() < deadline:
            for name in processes.ended():
                message = f"{name} could not be started: it says why above"
                raise StackError(message)
            with suppress(httpx.HTTPError):
                if client.get(url).is_success:
                    return
            time.sleep(_POLL_SECONDS)
    message = f"{url} did not answer within {_START_SECONDS:.0f} s"
    raise StackError(message)


def _check_port(port: int) -> None:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((_HOST, port))
        except OSError as error:
            message = f"port {port} is in use: choose another --port"
            raise StackError(message) from error


def free_port() -> int:
    """Return a free port outside the range that connections are given.

    Raises:
        StackError: There is none.
    """
    for port in random.sample(_PORTS, len(_PORTS)):
        with socket.socket() as probe, suppress(OSError):
            probe.bind((_HOST, port))
            return port
    message = f"every port from {_PORTS.start} to {_PORTS.stop - 1} is in use"
    raise StackError(message)


def _write_ready(path: Path, stack: Stack) -> None:
    """Write the file under another name and rename it: readers see it whole."""
    content = {
        "url": stack.url,
        "token": stack.token,
        "database_url": stack.database_url,
        "sandbox_url": stack.sandbox_url,
        "pid": os.getpid(),
        "env": dict(stack.env),
    }
    draft = path.with_suffix(".draft")
    draft.unlink(missing_ok=True)
    draft.touch(mode=0o600)
    draft.write_text(json.dumps(content, indent=2))
    draft.rename(path)


def _greet(stack: Stack, sandbox: SandboxRequest | None, ready: Path) -> None:
    if not sandbox and not sys.stdout.isatty():
        # What is written to a file or a journal may be read by others.
        print(f"Serving at {stack.url}; its token is in {ready.resolve()}.", flush=True)  # noqa: T201 - for its user
        return
    symbol = _unreplayed_symbol(sandbox.data if sandbox else None)
    print(  # noqa: T201 - this is what the user waits for
        f"Serving at {stack.url} (interface: {stack.url}/docs).\n\n"
        f"Look around:\n{stack.url}/#token={stack.token}\n\n"
        "For programs and the Python client:\n"
        f"export MDP_URL={stack.url}\nexport MDP_TOKEN={stack.token}\n\n"
        f"curl -H 'Authorization: Bearer {stack.token}' "
        f"'{stack.url}/candles/binance/perp/{symbol}/1m?limit=5'\n\n"
        "Ctrl-C stops it.",
        flush=True,
    )


def _unreplayed_symbol(data: Path | None) -> str:
    """Choose a symbol that has candles up to now: replayed files end some day."""
    for base in ("BTC", "ETH", "SOL"):
        if not data or not (data / f"binance__perp__{base}USDT__1m.csv.gz").exists():
            return f"{base}-USDT"
    return "XRP-USDT"
