"""Measure the service in one run; print the table, keep it in docs/performance.md."""

import asyncio
import os
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated

import psutil
import typer

from db.local.server import open_local_database, remove_local_database
from scripts.bench.client import Target, fetch
from scripts.bench.data import SERIES, forget, minutes, open_base, save, settle, versions
from scripts.bench.explorer import measure_explorer
from scripts.bench.figures import Figure, table
from scripts.bench.fills import measure_fills, measure_writes
from scripts.bench.large import measure_depth, measure_memory
from scripts.bench.process import Launch, dialect_path, serving
from scripts.bench.reads import measure_reads, measure_workers
from scripts.demo.ports import free_port
from scripts.demo.processes import Processes
from scripts.demo.stack import SandboxRequest, Stack, open_stack

_PAGE = Path("docs/performance.md")
_MARK = "<!-- measured -->\n"
# No checkpoint and no vacuum amid a measurement.
_QUIET = {
    "shared_buffers": "1GB",
    "max_wal_size": "16GB",
    "checkpoint_timeout": "1h",
    "autovacuum": "off",
}
Large = Annotated[bool, typer.Option(help="100,000,000 rows, 5,000,000 candles: half an hour.")]


def main(*, large: Large = False) -> None:
    """Measure everything; the large cases take longer and 20 GB of disk."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        folder.chmod(0o755)  # the server of root runs as another user
        stack.callback(remove_local_database, folder)
        database = stack.enter_context(open_local_database(folder, settings=_QUIET))
        os.environ |= {"DATABASE_URL": database.url, "MDP_BINANCE_SHARE": "1.0"}
        running, processes = stack.enter_context(open_stack(folder, free_port(), SandboxRequest()))
        filled = _fill(running, processes)
        read = _read(running, folder, database.bin_dir / "psql", large=large)
        page = table(read + filled, versions(database.url))
    kept, _, _ = _PAGE.read_text().partition(_MARK)
    _PAGE.write_text(f"{kept}{_MARK}\n{page}")
    print(page)  # noqa: T201 - the point of it


def _fill(stack: Stack, processes: Processes) -> list[Figure]:
    """Measure the rows that need the running service, then stop it."""
    target = Target(stack.url, {"Authorization": f"Bearer {stack.token}"})
    fetch(target, f"{SERIES}?limit=1")
    assert stack.sandbox_url, "there is one"  # noqa: S101 - for the type checker
    api = psutil.Process(processes["the API"].pid)
    figures = asyncio.run(measure_fills(stack.sandbox_url, target, api))
    figures.append(asyncio.run(measure_writes(stack.database_url)))
    figures += measure_explorer(target, stack.token)
    for name in ("the syncer", "the API"):
        processes[name].terminate()
        processes[name].wait()
    return figures


def _read(stack: Stack, folder: Path, psql: Path, *, large: bool) -> list[Figure]:
    base = open_base(stack.database_url, psql)
    launch = Launch(stack, folder / "server.log")
    forget(base.url)
    asyncio.run(save(base.url, base.series_id, minutes(1_000_000)))
    settle(base.url)
    with (
        serving(launch, {"MDP_BLOCK_MEMORY_MB": "512"}) as (remembering, _),
        serving(launch, {"MDP_BLOCK_MEMORY_MB": "0"}) as (forgetful, _),
    ):
        figures = measure_reads(base, remembering, forgetful, dialect_path(stack))
        with serving(launch, {"MDP_BLOCK_MEMORY_MB": "512"}, workers=2) as (two, _):
            figures.append(asyncio.run(measure_workers(remembering, two)))
        if large:
            figures.append(measure_depth(base, forgetful))
    return figures + (measure_memory(base, launch) if large else [])


if __name__ == "__main__":
    typer.run(main)
