"""Measures the service in one run, prints the table and keeps it in docs/performance.md."""

import asyncio
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Generator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Annotated

import httpx
import psutil
import psycopg
import typer

from db.local import open_local_database
from scripts.bench.client import Target, fetch
from scripts.bench.data import SERIES, Base, fill
from scripts.bench.figures import Figure, table
from scripts.bench.fills import measure_fills, measure_writes
from scripts.bench.large import measure_depth, measure_memory
from scripts.bench.reads import measure_reads
from scripts.stack import SandboxRequest, Stack, open_stack

_PAGE = Path("docs/performance.md")
_MARK = "<!-- measured -->\n"
_API_PORT, _REMEMBERING_PORT, _FORGETFUL_PORT = 18793, 18794, 18795
_START_SECONDS = 60
_QUIET = {"shared_buffers": "1GB", "max_wal_size": "4GB", "checkpoint_timeout": "1h"}
Large = Annotated[bool, typer.Option(help="100,000,000 rows, 5,000,000 candles: half an hour.")]


def main(*, large: Large = False) -> None:
    """Measure everything; the large cases take longer and more disk."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        folder.chmod(0o755)  # the server of root runs as somebody else
        database = stack.enter_context(open_local_database(folder, settings=_QUIET))
        os.environ |= {"DATABASE_URL": database.url, "MDP_BINANCE_SHARE": "1.0"}
        running, processes = stack.enter_context(open_stack(folder, _API_PORT, SandboxRequest()))
        api = psutil.Process(processes["the API"].pid)
        figures = _measure(running, api, database.bin_dir / "psql", large=large)
    page = table(figures, database.kind)
    kept, _, _ = _PAGE.read_text().partition(_MARK)
    _PAGE.write_text(f"{kept}{_MARK}\n{page}")
    print(page)  # noqa: T201 - the point of it


def _measure(stack: Stack, api: psutil.Process, psql: Path, *, large: bool) -> list[Figure]:
    target = Target(stack.url, {"Authorization": f"Bearer {stack.token}"})
    fetch(target, f"{SERIES}?limit=1")
    base = Base(stack.database_url, psql, _series_id(stack.database_url))
    assert stack.sandbox_url, "there is one"  # noqa: S101
    figures = asyncio.run(measure_fills(stack.sandbox_url, target, api))
    figures.append(asyncio.run(measure_writes(base.url)))
    fill(base.url, [base.series_id], 5_000_000 if large else 1_000_000)
    with (
        _server(stack, _REMEMBERING_PORT, {"MDP_BLOCK_MEMORY_MB": "512"}) as remembering,
        _server(stack, _FORGETFUL_PORT, {"MDP_BLOCK_MEMORY_MB": "0"}) as forgetful,
    ):
        figures[:0] = measure_reads(base, remembering[0], forgetful[0])
        if large:
            figures += measure_memory(*forgetful)
            figures.append(measure_depth(base, forgetful[0]))
    return figures


def _series_id(url: str) -> int:
    with psycopg.connect(url) as connection:
        row = connection.execute("SELECT id FROM series WHERE interval = '1m'").fetchone()
    assert row, "a request made the series"  # noqa: S101
    return int(row[0])


@contextmanager
def _server(
    stack: Stack, port: int, settings: Mapping[str, str]
) -> Generator[tuple[Target, psutil.Process]]:
    """Run the server of the bench as `mdp api` runs the service's."""
    command = [sys.executable, "-m", "uvicorn", "scripts.bench.server:create_server", "--factory"]
    command += ["--port", str(port), "--log-level", "warning"]
    env = {**os.environ, **stack.env, "MDP_MAX_ROWS": "5000000", **settings}
    target = Target(
        f"http://127.0.0.1:{port}",
        {"Authorization": f"Bearer {stack.token}", "Accept-Encoding": "identity"},
    )
    process = subprocess.Popen(command, env=env)  # noqa: S603 - our own program
    try:
        _wait_for(target)
        yield target, psutil.Process(process.pid)
    finally:
        process.terminate()
        process.wait()


def _wait_for(target: Target) -> None:
    deadline = time.monotonic() + _START_SECONDS
    while time.monotonic() < deadline:
        with suppress(httpx.TransportError):
            httpx.get(f"{target.url}/health", trust_env=False).raise_for_status()
            return
        time.sleep(0.1)
    message = f"{target.url} did not answer"
    raise RuntimeError(message)


if __name__ == "__main__":
    typer.run(main)
