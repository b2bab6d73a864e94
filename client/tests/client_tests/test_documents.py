"""Each Python block of the client's pages and docstrings runs, and prints as told."""

import asyncio
import doctest
import os
import re
import subprocess
import sys
from pathlib import Path

import mdp_client.async_client
import mdp_client.ccxt
import mdp_client.client
import pytest
from mdp_client import AsyncClient, Client
from mdp_client.testing import COMMAND_VARIABLE, Service

REPOSITORY = Path(__file__).parents[3]
PAGES = [REPOSITORY / "docs" / "client.md", REPOSITORY / "client" / "README.md"]
_BLOCK = re.compile(r"(?ms)^```(\S+)[ ]?([^\n]*)\n(.*?)^```$")


def blocks(page: Path) -> list[tuple[str, str, str]]:
    """Give language, purpose and text of each fenced block."""
    return [(found[1], found[2], found[3]) for found in _BLOCK.finditer(page.read_text())]


def run(program: str, mdp: Service, *arguments: str) -> str:
    """Run a program as a reader would, with the two variables that the demo prints."""
    variables = {**os.environ, "MDP_URL": mdp.url, "MDP_TOKEN": mdp.token}
    command = [sys.executable, *arguments, program]
    done = subprocess.run(command, env=variables, capture_output=True, text=True, check=False)  # noqa: S603 - our own
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.timeout(300)
@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_blocks_print_what_the_page_says(page: Path, mdp: Service) -> None:
    """One after the other, as a reader would paste them."""
    printed, count = "", 0
    for language, purpose, text in blocks(page):
        if (language, purpose) == ("python", "demo"):
            printed, count = run(text, mdp, "-c"), count + 1
        elif purpose == "output":
            assert printed == text
        else:
            assert purpose in ("", "bot-test")
            assert language in ("sh", "text") or purpose == "bot-test"
    assert count


@pytest.mark.timeout(300)
def test_test_of_a_bot_runs_offline(tmp_path: Path, command: list[str], mdp: Service) -> None:
    """It starts a service of its own, and passes; without the command it is skipped."""
    ((_, _, text),) = [block for block in blocks(PAGES[0]) if block[1] == "bot-test"]
    test = tmp_path / "test_bot.py"
    test.write_text(text)
    options = ["-m", "pytest", "-q", "-rs", "-p", "no:cacheprovider", "--rootdir", str(tmp_path)]

    assert "1 passed" in run(str(test), mdp, *options)
    missing = {**os.environ, "PATH": str(tmp_path)}
    missing.pop(COMMAND_VARIABLE, None)
    skipped = subprocess.run(  # noqa: S603 - our own
        [sys.executable, *options, str(test)],
        env=missing,
        capture_output=True,
        text=True,
        check=False,
    )
    assert "1 skipped" in skipped.stdout
    assert "there is no command `mdp` in the PATH" in skipped.stdout


@pytest.mark.parametrize(
    "module",
    [mdp_client.client, mdp_client.async_client, mdp_client.ccxt],
    ids=lambda it: it.__name__,
)
def test_examples_of_docstrings(
    module: object, mdp: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They run as they stand, with a client of the environment."""
    monkeypatch.setenv("MDP_URL", mdp.url)
    monkeypatch.setenv("MDP_TOKEN", mdp.token)
    with Client() as client:
        names = {"client": client, "Client": Client, "AsyncClient": AsyncClient, "asyncio": asyncio}
        finder, runner = doctest.DocTestFinder(), doctest.DocTestRunner()
        for example in finder.find(module, globs=names):
            runner.run(example)

    assert runner.tries > 0
    assert runner.failures == 0
