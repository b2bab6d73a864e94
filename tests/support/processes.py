"""The service in separate processes, for tests that kill, load or share it."""

import os
import subprocess
import sys
from collections.abc import Generator, Mapping
from contextlib import contextmanager, suppress

import psutil

from mdp_core.settings import Settings
from scripts.demo.ports import free_port
from support.http import HOST, answers
from support.places import PROJECT
from support.sandbox import Sandbox
from support.waiting import wait_until


def environment_of(settings: Settings, sandbox: Sandbox) -> dict[str, str]:
    """Give the variables with which a process joins a test's database and sandbox."""
    assert settings.jwt_secret is not None
    names = ("binance", "hyperliquid", "coinbase")
    return {
        "DATABASE_URL": settings.database_url,
        "JWT_SECRET": settings.jwt_secret.get_secret_value(),
        "MDP_SECOND_LOOK_SECONDS": str(settings.second_look_seconds),
        **{f"MDP_{name.upper()}_URL": f"{sandbox.url}/{name}" for name in names},
        **{f"MDP_{name.upper()}_SHARE": "1.0" for name in names},
    }


@contextmanager
def running_mdp(
    environment: Mapping[str, str], *arguments: str
) -> Generator[subprocess.Popen[bytes]]:
    """Run an `mdp` command as another process until the context is left."""
    process = subprocess.Popen(  # noqa: S603 - our own program
        [sys.executable, "-m", "scripts.cli.entry", *arguments],
        cwd=PROJECT,
        env={**os.environ, **environment},
        stdout=subprocess.DEVNULL,
    )
    try:
        yield process
    finally:
        with suppress(psutil.NoSuchProcess):
            for worker in psutil.Process(process.pid).children(recursive=True):
                worker.kill()
        process.kill()
        process.wait()


@contextmanager
def running_api(
    environment: Mapping[str, str], *options: str
) -> Generator[tuple[subprocess.Popen[bytes], str]]:
    """Run `mdp api` as another process until the context is left; give it and its URL."""
    port = free_port()
    url = f"http://{HOST}:{port}"
    with running_mdp(environment, "api", "--port", str(port), *options) as process:
        wait_until(lambda: answers(f"{url}/health"))
        yield process, url
