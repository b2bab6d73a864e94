"""Figures, and the table that they make."""

import os
import platform
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version

ROUNDS = 5

_SHOWN = ("fastapi", "uvicorn", "uvloop", "psycopg", "polars", "pyarrow", "numpy")


@dataclass(frozen=True, slots=True)
class Figure:
    """A line of the table: what was measured, its aim, and the times that it comes from."""

    name: str
    value: str
    aim: str
    detail: str = ""


def seconds_of(action: Callable[[], object]) -> float:
    """Time an action: the median of several, after one that does not count."""
    action()
    return statistics.median(_timed(action) for _ in range(ROUNDS))


def _timed(action: Callable[[], object]) -> float:
    begun = time.perf_counter()
    action()
    return time.perf_counter() - begun


def ratio(name: str, aim: str, ours: float, theirs: float) -> Figure:
    """Divide two times in seconds."""
    detail = f"{ours * 1000:,.1f} ms / {theirs * 1000:,.1f} ms"
    return Figure(name, f"{ours / theirs:.3f}", aim, detail)


def table(figures: Sequence[Figure], database: str) -> str:
    """Write a page: the machine, the versions, a line for each figure."""
    versions = ", ".join(f"{name} {version(name)}" for name in _SHOWN)
    rows = [f"| {each.name} | {each.aim} | {each.value} | {each.detail} |" for each in figures]
    load = os.getloadavg()[0]
    measured = f"Measured {datetime.now(UTC):%Y-%m-%d %H:%M} UTC; medians of {ROUNDS} if not said"
    machine = f"{os.cpu_count()} cores ({platform.machine()}, load {load:.1f} at the end)"
    server = f"Python {platform.python_version()}, {database}"
    return "\n".join(
        [
            f"{measured}. {machine}, {server}; {versions}.",
            "",
            "| figure | aim | measured | from |",
            "|---|---|---|---|",
            *rows,
            "",
        ]
    )
