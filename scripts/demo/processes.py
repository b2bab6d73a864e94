"""The processes of a stack: started, watched, started again, ended."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress

import httpx

from db.local import launch as local_launch
from scripts.demo.errors import StackError

_START_SECONDS = 60.0
_STOP_SECONDS = 15.0
_POLL_SECONDS = 0.1

# What ends by itself is started again after so long; without anything else nothing works.
# Of a syncer's runs another one, if there is one, has taken over what this one ran by then.
API, SYNCER, SANDBOX = "the API", "the syncer", "the sandbox"
_RESTART_SECONDS = {API: 1.0, SYNCER: 15.0}


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


def wait_for(url: str, processes: Processes) -> None:
    """Wait until a URL answers.

    Raises:
        StackError: A process ended, or no answer came in time.
    """
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
