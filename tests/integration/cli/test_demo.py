"""`mdp demo`, from its start to its end, whichever end that is."""

import csv
import gzip
import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Generator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psutil
import psycopg
import pytest
from support.http import HOST, answers, ask
from support.places import DATA, PROJECT
from support.sandbox import MINUTE_MS, Sandbox
from support.waiting import wait_until

from scripts.demo.ports import free_port

PATH = "/candles/binance/perp/BTC-USDT/1m"
PAGE_MS = 499 * MINUTE_MS
PAGES = 20

_START_SECONDS = 90
_COVERED_SLOTS = """
SELECT coalesce(sum(extract(epoch FROM upper(w) - lower(w)) / 60), 0)::int
FROM series JOIN symbols ON symbols.id = symbol_id AND native = 'BTCUSDT', unnest(coverage) w
"""
_STORED = """
SELECT count(*), count(*) FILTER (WHERE coverage @> time)
FROM series JOIN symbols ON symbols.id = symbol_id AND native = 'BTCUSDT'
JOIN candles ON series_id = series.id
"""


@dataclass(frozen=True, slots=True)
class Demo:
    """A running `mdp demo`, its output, and the processes that belong to it."""

    process: subprocess.Popen[bytes]
    folder: Path
    ready: dict[str, Any]
    output: Path

    @property
    def headers(self) -> Mapping[str, str]:
        """The parts of a request."""
        return {"Authorization": f"Bearer {self.ready['token']}"}

    def family(self) -> list[psutil.Process]:
        """Give it and everything that it started."""
        first = psutil.Process(self.process.pid)
        return [first, *first.children(recursive=True)]


@pytest.fixture(scope="module", params=["timescaledb", "plain"])
def kind(request: pytest.FixtureRequest) -> str:
    if request.param == "timescaledb" and shutil.which("apt-get") is None:
        pytest.skip("TimescaleDB comes from Debian's packages, and this machine has no apt")
    return request.param


# Processes are started and ended alike, whatever the database can do.
on_plain = pytest.mark.parametrize("kind", ["plain"], indirect=True)


@pytest.fixture(scope="module")
def folder() -> Generator[Path]:
    """A data folder that every account can enter, unlike pytest's own as root."""
    with tempfile.TemporaryDirectory(prefix="mdp-test-") as name:
        Path(name).chmod(0o755)
        yield Path(name)


@pytest.fixture(scope="module")
def demo(folder: Path, kind: str) -> Generator[Demo]:
    with _demo(folder / kind, kind) as running:
        yield running


def test_ready_file_keeps_its_contract(demo: Demo) -> None:
    """Exactly the keys of the contract; once the file exists, the demo serves."""
    ready = demo.ready

    assert set(ready) == {"url", "token", "database_url", "sandbox_url", "pid", "env"}
    assert ready["pid"] == demo.process.pid
    assert ready["database_url"].startswith("postgresql://")
    assert {type(value) for value in ready["env"].values()} == {str}
    assert ready["env"]["DATABASE_URL"] == ready["database_url"]
    assert ready["env"]["JWT_SECRET"]
    assert ready["env"]["MDP_BINANCE_URL"] == f"{ready['sandbox_url']}/binance"
    assert (demo.folder / "ready.json").stat().st_mode & 0o077 == 0
    assert list(demo.folder.glob("*.draft")) == []
    with psycopg.connect(ready["database_url"]) as connection:
        connection.execute("SELECT FROM candles LIMIT 0")


def test_health_says_which_database_it_is(demo: Demo, kind: str) -> None:
    """The kind that was asked for is the kind that serves."""
    database = ask(f"{demo.ready['url']}/health").json()["database"]

    assert database["kind"] == {"timescaledb": "timescaledb", "plain": "postgres"}[kind]
    assert database["migration"] == database["expected_migration"]


def test_printed_curl_line_answers_with_candles(demo: Demo) -> None:
    """The printed command can be pasted: address, token, a symbol with candles."""
    (line,) = [text for text in demo.output.read_text().splitlines() if text.startswith("curl ")]
    curl, flag, header, url = shlex.split(line)
    answer = ask(url, headers=[tuple(header.split(": "))])  # pyright: ignore[reportArgumentType]

    assert (curl, flag) == ("curl", "-H")
    assert answer.status_code == 200, answer.text
    assert answer.json()["count"] == 5


def test_another_api_joins_with_the_environment_of_the_first(demo: Demo) -> None:
    """`mdp api` with `env` and another port serves the same store to the same tokens."""
    window = _window(0, 1)
    first = ask(f"{demo.ready['url']}{PATH}", params=window, headers=demo.headers)
    port = free_port()
    url = f"http://{HOST}:{port}"
    with _mdp(["api", "--port", str(port)], demo.ready["env"]) as _:
        wait_until(lambda: answers(f"{url}/health"))
        joined = ask(f"{url}{PATH}", params=window, headers=demo.headers)

    assert first.json()["candles"] == _file(window)
    assert (joined.status_code, joined.headers["X-Cache"]) == (200, "hit")
    assert joined.content == first.content


@on_plain
@pytest.mark.parametrize("part", ["syncer", "api"])
def test_part_that_dies_is_replaced_and_takes_nothing_with_it(demo: Demo, part: str) -> None:
    """SIGKILL for syncer or API: the others go on, and there is a new one soon."""
    (killed,) = _parts(demo, part)
    killed.kill()

    wait_until(lambda: _parts(demo, part) not in ([], [killed]))
    wait_until(lambda: answers(f"{demo.ready['url']}/health"))
    assert json.loads((demo.folder / "ready.json").read_text()) == demo.ready
    assert demo.process.poll() is None


def _parts(demo: Demo, command: str) -> list[psutil.Process]:
    """Find the processes of a demo that run one command, among those that live."""
    found = list[psutil.Process]()
    for process in demo.family():
        with suppress(psutil.Error):
            if "scripts.cli.entry" in (line := process.cmdline()) and command in line:
                found.append(process)
    return found


@on_plain
def test_second_demo_of_one_folder_is_refused(demo: Demo, kind: str) -> None:
    """A folder has one owner: a second one says so, ends, leaves the first alone."""
    with _mdp(_arguments(demo.folder), {"MDP_LOCAL_DATABASE": kind}) as second:
        assert second.wait(60) == 1

    assert ask(f"{demo.ready['url']}/health").is_success
    assert (demo.folder / "ready.json").exists()


@dataclass(frozen=True, slots=True)
class Killed:
    """The remains of a demo that was killed in the middle of a fill."""

    family: Sequence[psutil.Process]
    covered: int


@pytest.fixture(scope="module")
def killed(demo: Demo) -> Killed:
    """Kill the demo as soon as some of many pages are covered."""
    with closing(Sandbox(demo.ready["sandbox_url"])) as sandbox:
        sandbox.settings(latency_ms=300)
    with psycopg.connect(demo.ready["database_url"], autocommit=True) as database:
        wanted = _number(database) + 2 * 499
        with _asking(demo, _window(2, PAGES)):
            wait_until(lambda: _number(database) >= wanted)
            family = demo.family()
            demo.process.kill()
            demo.process.wait()
    return Killed(family, wanted)


@pytest.fixture(scope="module")
def restarted(demo: Demo, killed: Killed, kind: str) -> Generator[Demo]:
    """Start again at once, in the same folder and on the same port."""
    assert killed.family
    with _demo(demo.folder, kind, urlsplit(demo.ready["url"]).port) as running:
        yield running


@on_plain
def test_killed_demo_starts_again_and_has_lost_nothing(killed: Killed, restarted: Demo) -> None:
    """After SIGKILL amid a fill: covered rows are there, the rest comes on request."""
    window = _window(2, PAGES)
    with psycopg.connect(restarted.ready["database_url"]) as database:
        covered = _number(database)
        stored = database.execute(_STORED).fetchone()
    url = f"{restarted.ready['url']}{PATH}"
    answer = ask(url, params=window, headers=restarted.headers)

    assert killed.covered <= covered < PAGES * 499
    assert stored == (covered, covered)
    assert answer.status_code == 200, answer.text
    assert answer.headers["X-Cache"] == "partial"
    assert answer.json()["candles"] == _file(window)


@on_plain
def test_killed_demo_leaves_no_process(killed: Killed, restarted: Demo) -> None:
    """Everything that it started notices and goes, without disturbing its successor."""
    wait_until(lambda: not any(map(_lives, killed.family)))
    assert answers(f"{restarted.ready['url']}/health")


@on_plain
def test_sigterm_ends_everything(restarted: Demo) -> None:
    """A polite end in seconds: exit code 0, no process, no ready.json; data stay."""
    family = restarted.family()
    assert len(family) >= 4
    restarted.process.send_signal(signal.SIGTERM)

    assert restarted.process.wait(30) == 0
    wait_until(lambda: not any(map(_lives, family)))
    assert not (restarted.folder / "ready.json").exists()


@contextmanager
def _demo(folder: Path, kind: str, port: int | None = None) -> Generator[Demo]:
    """Run `mdp demo` and wait until it serves; on leaving stop it, if it still runs."""
    if not DATA.is_dir():
        pytest.skip(f"{DATA} is not there")
    folder.mkdir(exist_ok=True)
    output = folder.with_suffix(".out")
    with _mdp(_arguments(folder, port), {"MDP_LOCAL_DATABASE": kind}, output) as process:
        ready = folder / "ready.json"
        wait_until(lambda: process.poll() is not None or _is_of(ready, process.pid))
        assert process.poll() is None, output.read_text()
        demo = Demo(process, folder, json.loads(ready.read_text()), output)
        assert ask(f"{demo.ready['url']}/health").is_success
        yield demo


def _is_of(ready: Path, pid: int) -> bool:
    """Tell whether the file is there and not a predecessor's."""
    try:
        return json.loads(ready.read_text())["pid"] == pid
    except FileNotFoundError:
        return False


def _arguments(folder: Path, port: int | None = None) -> list[str]:
    where = ["--port", str(port or free_port()), "--data-dir", str(folder)]
    return ["demo", *where, "--sandbox-data", str(DATA)]


@contextmanager
def _mdp(
    arguments: list[str], environment: Mapping[str, str], output: Path | None = None
) -> Generator[subprocess.Popen[bytes]]:
    with (output or Path(os.devnull)).open("wb") as log:
        process = subprocess.Popen(  # noqa: S603 - our own program
            [sys.executable, "-m", "scripts.cli.entry", *arguments],
            cwd=PROJECT,
            env={**os.environ, **environment},
            stdout=log,
            stderr=log,
        )
    try:
        yield process
    finally:
        process.terminate()
        process.wait(60)


_ASK = """
import sys, httpx
url, authorization, *parameters = sys.argv[1:]
params = dict(parameter.split("=") for parameter in parameters)
httpx.get(url, params=params, headers={"Authorization": authorization}, timeout=60)
"""


@contextmanager
def _asking(demo: Demo, window: dict[str, int]) -> Generator[None]:
    """Keep a request under way whose answer is never read."""
    asking = [sys.executable, "-c", _ASK, f"{demo.ready['url']}{PATH}"]
    parameters = [f"{name}={value}" for name, value in window.items()]
    with subprocess.Popen(  # noqa: S603 - the program above
        [*asking, demo.headers["Authorization"], *parameters], stderr=subprocess.DEVNULL
    ) as client:
        try:
            yield
        finally:
            client.kill()


def _lives(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def _number(database: psycopg.Connection) -> int:
    row = database.execute(_COVERED_SLOTS).fetchone()
    assert row is not None
    return int(row[0])


def _window(first: int, stop: int) -> dict[str, int]:
    """Give the window of some whole pages, counted from the first that the file fills."""
    begin = -(-_rows()[0][0] // PAGE_MS)
    return {"start": int(begin + first) * PAGE_MS, "end": int(begin + stop) * PAGE_MS}


def _file(window: dict[str, int]) -> list[list[float]]:
    return [row for row in _rows() if window["start"] <= row[0] < window["end"]]


def _rows() -> list[list[float]]:
    with gzip.open(DATA / "binance__perp__BTCUSDT__1m.csv.gz", "rt", encoding="ascii") as text:
        _header, *rows = csv.reader(text)
    return [[int(time), *map(float, numbers)] for time, *numbers in rows]
