"""Runs the server of the bench as `mdp api` runs the service's."""

import os
import subprocess
import sys
import time
from collections.abc import Generator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import httpx
import psutil
from pydantic import SecretStr

from api.tokens import URL_SCOPE, issue_token
from mdp_core.settings import TokenSettings
from scripts.bench.client import Target
from scripts.demo.ports import free_port
from scripts.demo.stack import Stack

_START_SECONDS = 60
_LOG_TAIL = 1500


@dataclass(frozen=True, slots=True)
class Launch:
    """The surroundings of a server: its environment and its log file."""

    stack: Stack
    log: Path


def dialect_path(stack: Stack) -> str:
    """Return the path of Binance's dialect, with a token."""
    settings = TokenSettings(jwt_secret=SecretStr(stack.env["JWT_SECRET"]))
    token = issue_token(settings, "bench", frozenset({URL_SCOPE}), timedelta(hours=1))
    return f"/dialect/{token}/binance"


@contextmanager
def serving(
    launch: Launch, settings: Mapping[str, str], workers: int = 1
) -> Generator[tuple[Target, psutil.Process]]:
    """Run a server until the context is left; gives where it is, and its process."""
    port = free_port()
    command = [sys.executable, "-m", "scripts.bench.server", str(port), str(workers)]
    env = {**os.environ, **launch.stack.env, "MDP_MAX_ROWS": "5000000", **settings}
    authorization = f"Bearer {launch.stack.token}"
    headers = {"Authorization": authorization, "Accept-Encoding": "identity"}
    target = Target(f"http://127.0.0.1:{port}", headers)
    with launch.log.open("ab") as log:
        process = subprocess.Popen(command, env=env, stderr=log)  # noqa: S603 - our own program
    try:
        _wait_for(target, process, launch.log)
        yield target, psutil.Process(process.pid)
    finally:
        process.terminate()
        process.wait()


def _wait_for(target: Target, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + _START_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        with suppress(httpx.TransportError):
            httpx.get(f"{target.url}/health", trust_env=False).raise_for_status()
            return
        time.sleep(0.1)
    message = f"{target.url} did not answer: {log.read_text()[-_LOG_TAIL:]}"
    raise RuntimeError(message)
