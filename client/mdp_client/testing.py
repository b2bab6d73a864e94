"""A whole service for other programs' tests: `from mdp_client.testing import mdp`.

It is `mdp demo`: a database, a sandbox that stands for the exchanges, and the API, in a folder of
its own. The command is the `mdp` of the PATH, or what `MDP_COMMAND` says; where there is none, the
tests are skipped.
"""

import json
import os
import random
import shlex
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import pytest

COMMAND_VARIABLE = "MDP_COMMAND"
_START_SECONDS, _STOP_SECONDS = 300.0, 30.0
_POLL_SECONDS = 0.1
_LAST_LINES = 20
# What a demo must not take over from the environment of the tests.
_OF_SERVICES = ("DATABASE_URL", "DATABASE_READ_URL", "JWT_SECRET", "MDP_CLOCK", "MDP_LAKE")
# Linux gives connections their ports from 32768 on (ip_local_port_range).
_PORTS = range(20_000, 32_768)


@dataclass(frozen=True, slots=True)
class Service:
    """A service that runs.

    Attributes:
        url: As `Client` takes it.
        token: With every scope.
        sandbox_url: Of the exchanges' stand-in: `{sandbox_url}/binance` and so on.
    """

    url: str
    token: str
    sandbox_url: str


@pytest.fixture(scope="session")
def mdp() -> Generator[Service]:
    """Run a service for the whole run of the tests.

    Example:
        >>> from mdp_client import Client
        >>> def test_my_bot_sees_a_day(mdp):
        ...     with Client(mdp.url, token=mdp.token) as client:
        ...         day = client.candles("binance", "perp", "BTC-USDT", "1h", limit=24)
        ...     assert len(day) == 24
    """
    command = find_command()
    if command is None:
        pytest.skip(f"there is no command `mdp` in the PATH, and {COMMAND_VARIABLE} names none")
    with running_service(command) as service:
        yield service


def find_command() -> list[str] | None:
    """Return the words that run `mdp`; None where there is no such command."""
    if given := os.environ.get(COMMAND_VARIABLE):
        return shlex.split(given)
    found = shutil.which("mdp")
    return [found] if found else None


@contextmanager
def running_service(command: Sequence[str], *options: str) -> Generator[Service]:
    """Run `mdp demo` in a folder of its own until the context is left.

    Args:
        command: The words that run `mdp`.
        options: Further options of `demo`.

    Raises:
        RuntimeError: It ends, or does not serve in time; the text holds its last lines.
    """
    folder = Path(tempfile.mkdtemp(prefix="mdp-testing-"))
    folder.chmod(0o755)  # the database of root runs as another user
    try:
        with (folder / "output").open("wb") as output:
            arguments = ["demo", "--port", str(_free_port()), "--data-dir", str(folder / "data")]
            process = subprocess.Popen(  # noqa: S603 - the caller's own command
                [*command, *arguments, *options],
                env=_environment(),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
            )
            try:
                ready = _wait_until_ready(process, folder)
                yield Service(ready["url"], ready["token"], ready["sandbox_url"])
            finally:
                _stop(process)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _wait_until_ready(process: subprocess.Popen[bytes], folder: Path) -> Mapping[str, str]:
    ready = folder / "data" / "ready.json"
    deadline = time.monotonic() + _START_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        if ready.exists():
            return json.loads(ready.read_text())
        time.sleep(_POLL_SECONDS)
    lines = (folder / "output").read_text(errors="replace").splitlines()[-_LAST_LINES:]
    message = "\n".join(["mdp demo does not serve:", *lines])
    raise RuntimeError(message)


def _stop(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(_STOP_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _environment() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if name not in _OF_SERVICES}


def _free_port() -> int:
    for port in random.sample(_PORTS, len(_PORTS)):
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
    message = "every port is in use"
    raise RuntimeError(message)
