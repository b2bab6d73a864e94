"""`mdp sandbox` as a command: the interface that it listens on."""

import subprocess
import sys
from collections.abc import Generator
from contextlib import contextmanager

import pytest
from support.http import answers
from support.places import PROJECT
from support.waiting import wait_until

from scripts.demo.ports import free_port


@contextmanager
def running_sandbox_command(*options: str) -> Generator[int]:
    """Run `mdp sandbox` on a free port until the context is left; give the port."""
    port = free_port()
    arguments = ["-m", "scripts.cli.entry", "sandbox", "--port", str(port), *options]
    process = subprocess.Popen([sys.executable, *arguments], cwd=PROJECT)  # noqa: S603 - our own
    try:
        yield port
    finally:
        process.kill()
        process.wait()


@pytest.mark.parametrize(
    ("options", "there", "not_there"),
    [((), "127.0.0.1", "127.0.0.2"), (("--host", "127.0.0.2"), "127.0.0.2", "127.0.0.1")],
    ids=["default", "--host"],
)
def test_sandbox_listens_where_it_is_told(
    options: tuple[str, ...], there: str, not_there: str
) -> None:
    """By default on the loopback address, with `--host` on that one alone."""
    with running_sandbox_command(*options) as port:
        wait_until(lambda: answers(f"http://{there}:{port}/binance/fapi/v1/ping"))
        assert not answers(f"http://{not_there}:{port}/binance/fapi/v1/ping")
