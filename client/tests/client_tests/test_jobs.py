"""Jobs of a scripted service: polls, pauses, terminal progress, interruptions."""

import json
import os
import pty
import signal
import subprocess
import sys
import time
from itertools import pairwise
from typing import Any

import pytest
from mdp_client import JobFailed, JobStalled, MdpError, UpstreamUnavailable
from mdp_client.testing import Service

from client_tests.conftest import Connect
from client_tests.scripted import Asked, Reply, ScriptedServer
from client_tests.store import MINUTE, START, StoreServer, encode

SERIES = ("binance", "perp", "BTC-USDT", "1m")
END = START + 100 * MINUTE
JSON = {"Content-Type": "application/json"}


class Backfills:
    """A cold window: 202 until its job has covered all slots, some at each poll."""

    def __init__(self, server: ScriptedServer, store: StoreServer, *covered: int) -> None:
        self.store = store
        self.covered = list(covered)
        self.state = "queued"
        self.polls = list[float]()
        self.retry_after = "1"
        server.answer = self._answer

    def _answer(self, asked: Asked) -> Reply:
        if asked.path.startswith("/backfills/"):
            self.polls.append(time.monotonic())
            return Reply(200, JSON, json.dumps(self._status()).encode())
        if self.state == "done":
            return Reply(200, self.store.headers(START, END), encode([]))
        self.polls.append(time.monotonic())
        headers = {**JSON, "Retry-After": self.retry_after, "Location": "/backfills/5"}
        body = {**self._made(), "estimate": {"candles": 100, "eta_s": 3.0}}
        return Reply(202, headers, json.dumps(body).encode())

    def _made(self) -> dict[str, Any]:
        names = {"exchange": "binance", "market_type": "perp", "symbol": "X", "interval": "1m"}
        return {**names, "job": 5, "status_url": "/backfills/5", "start": START, "end": END}

    def _status(self) -> dict[str, Any]:
        covered = self.covered.pop(0) if len(self.covered) > 1 else self.covered[0]
        if self.state in ("queued", "running"):
            self.state = "done" if covered == 100 else "running"
        progress = {"slots": 100, "covered": covered, "share": covered / 100}
        return {**self._made(), "state": self.state, "progress": progress, "error": "why"}


def test_job_is_polled_after_its_retry_after(
    scripted: ScriptedServer, store: StoreServer, connect: Connect
) -> None:
    """And the window is asked for again when it is done."""
    jobs = Backfills(scripted, store, 10, 50, 100)
    got = connect(scripted.url).candles(*SERIES, start=START, end=END)

    assert got.complete
    assert len(jobs.polls) == 4
    assert all(later - earlier >= 1 for earlier, later in pairwise(jobs.polls))


def test_progress_renews_the_patience(
    scripted: ScriptedServer, store: StoreServer, connect: Connect
) -> None:
    """A job that comes on may take longer than the patience."""
    Backfills(scripted, store, 10, 20, 30, 30, 100)
    got = connect(scripted.url, patience=2.5).candles(*SERIES, start=START, end=END)

    assert got.complete


def test_job_that_stands_still_is_told(
    scripted: ScriptedServer, store: StoreServer, connect: Connect
) -> None:
    """The error names it, and says how to go on."""
    Backfills(scripted, store, 10)

    with pytest.raises(JobStalled, match=r"client\.job\(5\)"):
        connect(scripted.url, patience=1.5).candles(*SERIES, start=START, end=END)


def test_job_that_fails_is_told(
    scripted: ScriptedServer, store: StoreServer, connect: Connect
) -> None:
    """With the service's reason."""
    jobs = Backfills(scripted, store, 10)
    jobs.state = "failed"

    with pytest.raises(JobFailed, match=r"job 5 .* failed: why"):
        connect(scripted.url).candles(*SERIES, start=START, end=END)


def test_stream_waits_for_its_job_too(
    scripted: ScriptedServer, store: StoreServer, connect: Connect
) -> None:
    """Before its first batch."""
    jobs = Backfills(scripted, store, 100)

    assert connect(scripted.url).stream(*SERIES, start=START, end=END) == []
    assert jobs.state == "done"


def test_series_without_a_job_is_an_error_in_the_end(
    scripted: ScriptedServer, connect: Connect
) -> None:
    """Its class is that of the code that the service gives."""
    names = {"exchange": "binance", "market_type": "perp", "symbol": "X", "interval": "1m"}
    failed = {**names, "code": "upstream_unavailable", "detail": "away"}
    body = json.dumps({"jobs": [], "failed": [failed], "estimate": {}})
    scripted.script(Reply(202, JSON, body.encode()))
    client = connect(scripted.url)
    jobs = client.backfill("binance", "perp", "X", "1m", start="2024")

    assert [failure.code for failure in jobs.failed] == ["upstream_unavailable"]
    with pytest.raises(UpstreamUnavailable, match="X 1m has no job: away"):
        client.resolved(jobs.wait())
    sent = json.loads(scripted.asked[0].body)
    assert (sent["symbols"], sent["intervals"], sent["start"]) == (["X"], ["1m"], 1704067200000)


def test_answer_without_jobs_is_an_error(scripted: ScriptedServer, connect: Connect) -> None:
    """Not a KeyError."""
    scripted.script(Reply(202, JSON, b"{}"))

    with pytest.raises(MdpError):
        connect(scripted.url).backfill("binance", "perp", "X", "1m")


_PROGRAM = {
    "sync": """
import sys
from mdp_client import Client
client = Client(sys.argv[1], token=sys.argv[2])
got = client.candles(*sys.argv[3:7], start=sys.argv[7], end=sys.argv[8])
print(len(got), flush=True)
""",
    "async": """
import asyncio, sys
from mdp_client import AsyncClient
async def main():
    async with AsyncClient(sys.argv[1], token=sys.argv[2]) as client:
        got = await client.candles(*sys.argv[3:7], start=sys.argv[7], end=sys.argv[8])
        print(len(got), flush=True)
asyncio.run(main())
""",
}


def program(kind: str, url: str, token: str, *window: str) -> list[str]:
    return [sys.executable, "-c", _PROGRAM[kind], url, token, *window]


def read_terminal(fd: int, until: str) -> str:
    """Read what a terminal shows, until it shows a text or is closed."""
    shown = ""
    while until not in shown:
        try:
            data = os.read(fd, 4096)
        except OSError:  # the other side is closed
            break
        if not data:
            break
        shown += data.decode(errors="replace")
    return shown


def test_terminal_shows_a_bar(kind: str, mdp: Service) -> None:
    """A cold month, on a real service: the job's number, its series, its state."""
    symbol = {"sync": "AVAX-USDT", "async": "LINK-USDT"}[kind]
    window = ("binance", "perp", symbol, "1m", "2023-01-01", "2023-02-10")
    ours, theirs = pty.openpty()
    running = subprocess.Popen(  # noqa: S603 - our own
        program(kind, mdp.url, mdp.token, *window), stdout=subprocess.PIPE, stderr=theirs
    )
    os.close(theirs)
    shown = read_terminal(ours, until="done")
    output, _ = running.communicate(timeout=60)
    os.close(ours)

    assert output.split() == [b"57600"]
    assert symbol in shown
    assert "done" in shown
    assert "100%" in shown


def test_interrupt_leaves_the_job_and_says_how_to_go_on(
    kind: str, scripted: ScriptedServer, store: StoreServer
) -> None:
    """On a pipe too; the program ends as one that was interrupted."""
    jobs = Backfills(scripted, store, 10)
    window = (*SERIES, str(START), str(END))
    running = subprocess.Popen(  # noqa: S603 - our own
        program(kind, scripted.url, "t", *window), stderr=subprocess.PIPE, text=True
    )
    while len(jobs.polls) < 2:
        time.sleep(0.01)
    running.send_signal(signal.SIGINT)
    _, told = running.communicate(timeout=60)

    assert "client.job(5).wait()" in told
    assert "KeyboardInterrupt" in told
    assert running.returncode != 0
    assert all(request.method == "GET" for request in scripted.asked)
