"""`mdp run`: the demo's service without its sandbox, on the `MDP_*_URL` variables."""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Generator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from support.http import ask
from support.places import PROJECT
from support.sandbox import Sandbox
from support.waiting import wait_until

from db.local.server import remove_local_database
from scripts.demo.ports import free_port

PATH = "/candles/coinbase/spot/BTC-USD/1h?start=2024-05-01&limit=3"
EXCHANGES = ("binance", "hyperliquid", "coinbase")

_START_SECONDS = 120


@dataclass(frozen=True, slots=True)
class Running:
    """A running `mdp run`, its folder, and what it says of itself."""

    process: subprocess.Popen[bytes]
    folder: Path
    ready: Mapping[str, Any]

    def ask(self, path: str) -> Any:  # noqa: ANN401 - JSON
        """Ask its API with its token; give the answer's body."""
        headers = {"Authorization": f"Bearer {self.ready['token']}"}
        return ask(f"{self.ready['url']}{path}", headers=headers).raise_for_status().json()


@pytest.fixture
def running(sandbox: Sandbox) -> Generator[Running]:
    """Run it with the sandbox in the place of every exchange."""
    exchanges = {f"MDP_{name.upper()}_URL": f"{sandbox.url}/{name}" for name in EXCHANGES}
    inherited = {name: it for name, it in os.environ.items() if name != "DATABASE_URL"}
    with tempfile.TemporaryDirectory(prefix="mdp-test-") as name:
        folder = Path(name)
        folder.chmod(0o755)  # the database of root runs as another user
        arguments = ["run", "--port", str(free_port()), "--data-dir", str(folder / "run")]
        with (folder / "said").open("wb") as said:
            process = subprocess.Popen(  # noqa: S603 - our own program
                [sys.executable, "-m", "scripts.cli.entry", *arguments],
                cwd=PROJECT,
                env={**inherited, **exchanges, "MDP_LOCAL_DATABASE": "plain"},
                stdout=said,
                stderr=subprocess.DEVNULL,
            )
        try:
            ready = folder / "run" / "ready.json"
            wait_until(ready.exists)
            yield Running(process, folder / "run", json.loads(ready.read_text()))
        finally:
            process.terminate()
            process.wait(60)
            remove_local_database(folder / "run")


def test_run_serves_what_the_exchanges_have_and_ends_politely(
    running: Running, sandbox: Sandbox
) -> None:
    """Candles come from the environment's URLs, the syncer works; no sandbox starts."""
    first, again = running.ask(PATH), running.ask(PATH)
    rows = sandbox.ask(
        "/coinbase/products/BTC-USD/candles",
        {"granularity": 3600, "start": "2024-05-01T00:00:00Z", "end": "2024-05-01T02:00:00Z"},
    )

    assert running.ready["sandbox_url"] is None
    assert [row[0] for row in first["candles"]] == [row[0] * 1000 for row in reversed(rows)]
    assert first["candles"] == again["candles"]
    wait_until(lambda: any(entry["alive"] for entry in running.ask("/health")["syncers"]))
    running.process.terminate()
    assert running.process.wait(30) == 0
    assert not (running.folder / "ready.json").exists()
    # Where no terminal is, others may read what is written.
    said = (running.folder.parent / "said").read_text()
    assert str(running.folder / "ready.json") in said
    assert running.ready["token"] not in said
