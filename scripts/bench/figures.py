"""Figures, and the table that they make."""

import os
import platform
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

ROUNDS = 5

_SHOWN = ("fastapi", "uvicorn", "uvloop", "psycopg", "polars", "pyarrow", "numpy", "sqlalchemy")
_PROCESSOR = Path("/proc/cpuinfo")


@dataclass(frozen=True, slots=True)
class Figure:
    """A row of the table: the figure, its aim, and the times behind it."""

    name: str
    value: str
    aim: str
    detail: str = ""


def seconds_of_each(actions: Mapping[str, Callable[[], object]]) -> dict[str, float]:
    """Time each action: the median of several rounds, after one that does not count.

    Every round has each in its turn: what slows the machine down slows all of them.
    """
    rounds = [{name: _timed(action) for name, action in actions.items()} for _ in range(ROUNDS + 1)]
    return {name: statistics.median(taken[name] for taken in rounds[1:]) for name in actions}


def _timed(action: Callable[[], object]) -> float:
    begun = time.perf_counter()
    action()
    return time.perf_counter() - begun


def ratio(name: str, aim: str, ours: float, theirs: float) -> Figure:
    """Divide two times in seconds."""
    detail = f"{ours * 1000:,.1f} ms / {theirs * 1000:,.1f} ms"
    return Figure(name, f"{ours / theirs:.3f}", aim, detail)


def unmeasured(name: str, aim: str, why: str) -> Figure:
    """Say why there is no figure."""
    return Figure(name, "not measured", aim, why)


def table(figures: Sequence[Figure], database: str) -> str:
    """Write a page: the machine, the versions, a line for each figure."""
    versions = ", ".join(f"{name} {version(name)}" for name in _SHOWN)
    rows = [
        f"| {figure.name} | {figure.aim} | {figure.value} | {figure.detail} |" for figure in figures
    ]
    measured = f"Measured {datetime.now(UTC):%Y-%m-%d %H:%M} UTC; medians of {ROUNDS} if not said"
    load = os.getloadavg()[0]
    machine = f"{os.cpu_count()} cores ({_processor()}), load {load:.1f} at the end"
    server = f"Python {platform.python_version()}, {database}"
    return "\n".join(
        [
            f"{measured}. {machine}. {server}; {versions}.",
            "",
            "| figure | aim | measured | from |",
            "|---|---|---|---|",
            *rows,
            "",
        ]
    )


def _processor() -> str:
    if _PROCESSOR.exists():
        for line in _PROCESSOR.read_text().splitlines():
            name, _, value = line.partition(":")
            if name.strip() == "model name":
                return value.strip()
    return platform.processor() or platform.machine()
