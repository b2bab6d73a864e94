"""Failing runs of jobs: one line for a passing fault, a traceback for a mistake."""

import logging
from collections.abc import Iterator
from datetime import timedelta

import pytest

from mdp_core.domain.clock import Clock
from mdp_core.errors import ExchangeUnavailable
from mdp_core.storage.jobs.job_runs import RunResult
from mdp_core.wiring import Services
from syncer.runner import Runner, ScheduledJob
from syncer.schedule import Schedule


def _job(outcomes: Iterator[Exception | None]) -> ScheduledJob:
    """Make a job each of whose runs fails with the next error, or succeeds."""

    async def run() -> RunResult:
        if error := next(outcomes):
            raise error
        return RunResult()

    return ScheduledJob("tried", Schedule(timedelta(minutes=1), Clock()), 0.0, run)


def _away(seconds: int) -> Exception:
    return ExchangeUnavailable("binance", f"is away ({seconds} s)")


@pytest.mark.parametrize(
    ("outcomes", "levels", "tracebacks"),
    [
        pytest.param([_away(1)], ["WARNING"], 0, id="away"),
        pytest.param([_away(1), _away(2), _away(3)], ["WARNING"], 0, id="still away"),
        pytest.param([_away(1), None, None], ["WARNING", "INFO"], 0, id="back"),
        pytest.param([_away(1), None, _away(1)], ["WARNING", "INFO", "WARNING"], 0, id="away anew"),
        pytest.param([ExceptionGroup("pages", [_away(1)])], ["WARNING"], 0, id="several"),
        pytest.param([ValueError("a mistake")], ["ERROR", "WARNING"], 1, id="mistake"),
        pytest.param([_away(1), ValueError("x")], ["WARNING", "ERROR", "WARNING"], 1, id="another"),
    ],
)
async def test_failure_is_told_once_and_a_traceback_means_a_mistake(
    services: Services,
    caplog: pytest.LogCaptureFixture,
    outcomes: list[Exception | None],
    levels: list[str],
    tracebacks: int,
) -> None:
    """Its end is told too."""
    runner, job = Runner(services.runs, "living"), _job(iter(outcomes))
    with caplog.at_level(logging.INFO, "syncer.runner"):
        for _ in outcomes:
            await runner.run_now(job)
    told = [record for record in caplog.records if record.name == "syncer.runner"]

    assert [record.levelname for record in told] == levels
    assert sum(record.exc_info is not None for record in told) == tracebacks
