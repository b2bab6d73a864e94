"""The whole service on one machine: what `mdp demo` and `mdp run` start.

Database, API, syncer and, for the demo, the sandbox. One process owns the others; when it ends,
however it ends, they end too.
"""

import fcntl
import json
import os
import secrets
import signal
import sys
import threading
from collections.abc import Generator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from types import FrameType

from pydantic import SecretStr

from api.tokens import SCOPES, MissingKey, issue_token
from db.local.cluster import refuse_links_out
from db.local.errors import LocalDatabaseError
from db.local.server import open_local_database
from db.upgrade import UpgradeError, upgrade
from mdp_core.domain.clock import Clock
from mdp_core.settings import TokenSettings
from scripts.demo.errors import StackError
from scripts.demo.ports import HOST, check_port, free_port
from scripts.demo.processes import API, SANDBOX, SYNCER, Processes, wait_for

_TOKEN_LIFETIME = timedelta(days=30)
_POLL_SECONDS = 0.1


STACK_ERRORS = (StackError, LocalDatabaseError, UpgradeError, MissingKey)
"""What the operator or the machine has to mend, besides errors of the core."""


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
    check_port(port)
    env = {**_inherited(), "JWT_SECRET": _secret(data_dir)}
    url, sandbox_url = f"http://{HOST}:{port}", None
    with ExitStack() as stack:
        processes = Processes(stack)
        if sandbox:
            sandbox_port = free_port()
            sandbox_url = f"http://{HOST}:{sandbox_port}"
            processes.start(SANDBOX, _sandbox_arguments(sandbox, sandbox_port), env)
            env |= _sandbox_environment(sandbox_url, sandbox.clock)
        env["DATABASE_URL"] = os.environ.get("DATABASE_URL") or (
            stack.enter_context(open_local_database(data_dir)).url
        )
        upgrade(env["DATABASE_URL"])
        processes.start(SYNCER, ["syncer"], env)
        processes.start(API, ["api", "--port", str(port)], env)
        if sandbox_url:
            wait_for(f"{sandbox_url}/_sandbox/settings", processes)
        wait_for(f"{url}/health", processes)
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
    unproxied = ",".join(filter(None, [os.environ.get("NO_PROXY"), HOST]))
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
