"""The code blocks of README and docs run, and print what the page says.

Behind the language of a block stands how it is tried:

- `demo`: run against a demo that all share, in order, one folder per page. The block has `$URL`,
  `$TOKEN` and everything with which another process joins the demo (`env` of `ready.json`).
- `output`: the output of the block before it, whatever the white space; `…` stands for anything.
- `tested-by=FILE`: that file holds the text; `…` stands for anything.
"""

import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from support.places import PROJECT
from support.waiting import wait_until
from typer.core import TyperGroup
from typer.main import get_command

from api.app import create_app
from api.errors import every_kind
from mdp_core.wiring import installed_adapters
from scripts.cli import main as cli
from scripts.demo.ports import free_port

PAGES = [
    *(PROJECT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")),
    *sorted(PROJECT.glob("docs/**/*.md")),
]
_BLOCK = re.compile(r"(?ms)^```(\S+)[ ]?([^\n]*)\n(.*?)^```$")
_START_SECONDS = 120
_BLOCK_SECONDS = 60


@dataclass(frozen=True, slots=True)
class Block:
    """A fenced block of a page, and what is said to be done with it."""

    page: str
    line: int
    language: str
    how: str
    text: str


def _blocks(page: Path) -> list[Block]:
    text, name = page.read_text(), str(page.relative_to(PROJECT))
    return [
        Block(name, text.count("\n", 0, found.start()) + 1, *found.groups())
        for found in _BLOCK.finditer(text)
    ]


BLOCKS = [block for page in PAGES for block in _blocks(page)]
DEMO_PAGES = sorted({block.page for block in BLOCKS if block.how == "demo"})


@pytest.fixture(scope="module")
def demo() -> Generator[Mapping[str, str]]:
    """Run `mdp demo`; give the environment of the blocks."""
    with tempfile.TemporaryDirectory(prefix="mdp-test-") as name:
        folder = Path(name)
        folder.chmod(0o755)  # the database of root runs as another user
        arguments = ["demo", "--port", str(free_port()), "--data-dir", str(folder / "demo")]
        process = subprocess.Popen(  # noqa: S603 - our own program
            [sys.executable, "-m", "scripts.cli.entry", *arguments],
            cwd=PROJECT,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            ready = folder / "demo" / "ready.json"
            wait_until(ready.exists)
            yield {**_environment(json.loads(ready.read_text())), "DEMO": str(ready.parent)}
        finally:
            process.terminate()
            process.wait(60)


def _environment(ready: Mapping[str, object]) -> Mapping[str, str]:
    more = ready["env"]
    assert isinstance(more, dict)
    return {
        **os.environ,
        **more,
        "URL": str(ready["url"]),
        "TOKEN": str(ready["token"]),
        "MDP_URL": str(ready["url"]),
        "MDP_TOKEN": str(ready["token"]),
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
    }


@pytest.mark.parametrize("page", DEMO_PAGES)
def test_blocks_run_and_print_what_the_page_says(page: str, demo: Mapping[str, str]) -> None:
    """One after the other, as a reader would paste them."""
    with _folder_of_a_reader(demo) as folder:
        printed = ""
        for block in (block for block in BLOCKS if block.page == page):
            where = f"{page}:{block.line}"
            if block.how == "demo":
                done = _run(block, folder, demo)
                assert done.returncode == 0, f"{where}: {done.stdout}{done.stderr}"
                printed = done.stdout
            elif block.how == "output":
                assert _is_like(printed, block.text), f"{where}: it printed\n{printed}"


def test_first_block_of_the_guide_finds_the_demo(demo: Mapping[str, str]) -> None:
    """From the folder in which it was started, and with nothing else at hand."""
    block = next(block for block in BLOCKS if block.page == "docs/api.md")
    shown = replace(block, text=f'{block.text}echo "$URL $TOKEN"')
    stranger = {name: it for name, it in demo.items() if name not in {"URL", "TOKEN"}}
    with _folder_of_a_reader(demo) as folder:
        done = _run(shown, folder, stranger)

    assert "export URL" in block.text
    assert done.stdout.split() == [demo["URL"], demo["TOKEN"]], done.stderr


@contextmanager
def _folder_of_a_reader(demo: Mapping[str, str]) -> Generator[str]:
    """Give a folder of which the demo could have been started."""
    with tempfile.TemporaryDirectory(prefix="mdp-test-") as folder:
        Path(folder, ".demo").symlink_to(demo["DEMO"])
        yield folder


def _run(
    block: Block, folder: str, environment: Mapping[str, str]
) -> subprocess.CompletedProcess[str]:
    shell = ["bash", "-euo", "pipefail", "-c", block.text]
    python = [sys.executable, "-c", block.text]
    return subprocess.run(  # noqa: S603 - our own pages
        {"sh": shell, "python": python}[block.language],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=_BLOCK_SECONDS,
        check=False,
    )


def _is_like(printed: str, described: str) -> bool:
    parts = ["".join(part.split()) for part in described.split("…")]
    pattern = ".*".join(map(re.escape, parts))
    return re.fullmatch(pattern, "".join(printed.split()), re.DOTALL) is not None


@pytest.mark.parametrize(
    "block", [block for block in BLOCKS if block.how.startswith("tested-by=")], ids=str
)
def test_block_is_what_a_test_runs(block: Block) -> None:
    """The file that is named holds the text."""
    file = PROJECT / block.how.partition("=")[2]
    assert _is_like(file.read_text(), f"…{block.text}…")


def test_make_starts_the_commands_that_have_tests() -> None:
    """Those of `test_demo.py` and `test_run.py`."""
    for target in ("demo", "run"):
        assert _dry_run(target).splitlines()[-1] == f".venv/bin/mdp {target}"


def test_links_between_pages_lead_somewhere() -> None:
    """Every relative link of a page is to a file that exists."""
    for page in PAGES:
        for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text()):
            assert (page.parent / target).exists(), f"{page.name}: {target}"


def test_commands_inside_the_text_have_the_options_they_are_shown_with() -> None:
    """`mdp NAME --option` in a sentence or a table: the options are the command's own."""
    root = get_command(cli.app)
    assert isinstance(root, TyperGroup)
    for page in PAGES:
        for text in re.findall(r"`mdp ([^`\n]+)`", page.read_text()):
            options = set(re.findall(r"--[a-z-]+", text))
            assert _command(root, text.split()), f"{page.name}: there is no mdp {text}"
            assert options <= _options(root, text.split()), f"{page.name}: mdp {text}"


def test_targets_inside_the_text_are_those_of_the_makefile() -> None:
    """`make NAME` in a sentence or a table."""
    named = {
        target for page in PAGES for target in re.findall(r"`make ([a-z-]+)", page.read_text())
    }
    assert named <= _targets()


def test_paths_inside_the_text_are_those_of_the_interface() -> None:
    """`GET /…` and `/…` in a sentence or a table begin as some path of the API does."""
    known = {path.split("/")[1] for path in create_app().openapi()["paths"]} | {
        "docs",
        "openapi.json",
    }
    named = {
        name
        for page in PAGES
        for name in re.findall(r"`(?:(?:GET|POST|DELETE) )?/([a-z.]+)(?=[/`?{])", page.read_text())
    }
    of_exchanges = {"dialect", "udf", "products"}  # their own protocols, not in our description
    assert named - of_exchanges - {"tmp", "_sandbox"} <= known


def test_api_guide_has_every_error() -> None:
    """With its status, and no other."""
    rows = re.findall(r"(?m)^\| (\d{3}) \| `(\w+)` \|", (PROJECT / "docs/api.md").read_text())

    assert set(rows) == {(str(kind.status), kind.code) for kind in every_kind()}


def test_table_of_settings_has_every_variable() -> None:
    """The same as `.env.example`."""
    text = (PROJECT / "docs/operations.md").read_text()
    named = {name for line in _rows(text) for name in re.findall(r"`([A-Z_<>]+_[A-Z]+)`", line)}
    exchanges = {exchange.upper() for exchange, _ in installed_adapters()}
    spelled = {name.replace("<EXCHANGE>", entry) for name in named for entry in exchanges}

    example = (PROJECT / ".env.example").read_text()
    assert spelled == set(re.findall(r"(?m)^(?:# )?([A-Z_]+)=", example))


def _options(group: TyperGroup, words: Sequence[str]) -> set[str]:
    """Give the options of the command that words begin with."""
    found = group.commands.get(words[0]) if words else None
    if isinstance(found, TyperGroup):
        return _options(found, words[1:])
    return {name for option in (found or group).params for name in option.opts}


def _command(group: TyperGroup, words: Sequence[str]) -> bool:
    """Tell whether words begin with a command's name, or are options of the whole."""
    if group.invoke_without_command and (not words or words[0].startswith("-")):
        return True
    found = group.commands.get(words[0])
    if isinstance(found, TyperGroup):
        return _command(found, words[1:])
    return found is not None


def _targets() -> set[str]:
    return set(re.findall(r"(?m)^([a-z-]+):", (PROJECT / "Makefile").read_text()))


def _rows(text: str) -> list[str]:
    """Give the first cell of every row of the last table."""
    return re.findall(r"(?m)^\|([^|]+)\|", text.rpartition("## Settings")[2])


def _dry_run(target: str) -> str:
    """Give the commands that make would run."""
    dry = ["make", "--no-print-directory", "--dry-run", "--always-make", target]
    done = subprocess.run(dry, cwd=PROJECT, capture_output=True, text=True, check=False)  # noqa: S603 - our own program
    assert done.returncode == 0, done.stderr
    return done.stdout
