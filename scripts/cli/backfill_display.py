"""Displays of a backfill: bars on a terminal, plain lines, JSON lines."""

import json
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from rich.console import Console
from rich.progress import BarColumn, TaskID, TaskProgressColumn, TextColumn
from rich.progress import Progress as Bars
from typing_extensions import override

from api.errors import kind_of
from api.responses.jobs import describe_estimate, describe_failed, describe_planned
from mdp_core.backfill.estimate import Estimate
from mdp_core.backfill.planning import Plan, PlannedFill
from mdp_core.domain.clock import to_ms
from mdp_core.domain.queries import Missing
from mdp_core.domain.windows import Window
from mdp_core.errors import MdpError

_LINE_SECONDS = 5.0


@dataclass(slots=True, eq=False)
class SeriesProgress:
    """The progress of one series."""

    planned: PlannedFill
    left: Estimate = field(init=False)
    reached: datetime | None = None
    lost: list[Missing] = field(default_factory=list[Missing])

    def __post_init__(self) -> None:
        """Begin with nothing done."""
        self.left = self.planned.outlook.estimate

    @property
    def name(self) -> str:
        """The series."""
        return str(self.planned.series)

    @property
    def wanted(self) -> int:
        """Slots that were missing at the start."""
        return self.planned.outlook.estimate.candles

    @property
    def done(self) -> int:
        """Slots of them that are there now."""
        return max(self.wanted - self.left.candles, 0)

    @property
    def date(self) -> str:
        """The date reached."""
        return "" if self.reached is None else _day(self.reached)


class Display(ABC):
    """Shows a backfill."""

    def __init__(self) -> None:
        self.progresses: Sequence[SeriesProgress] = ()
        self.got_all = False
        self._begun_at = time.monotonic()

    def search(self, what: str) -> None:
        """Say what is asked before there is a plan; that may take a while."""
        sys.stderr.write(f"{what}\n")
        sys.stderr.flush()

    @abstractmethod
    def show_plan(self, plan: Plan) -> None:
        """Show what it will take."""

    def start(self, progresses: Sequence[SeriesProgress]) -> None:
        """Begin to fill."""
        self.progresses = progresses
        self._begun_at = time.monotonic()

    @abstractmethod
    def advance(self, progress: SeriesProgress, delay: MdpError | None) -> None:
        """Show that a chunk was tried, and what is in the way, if anything is."""

    @abstractmethod
    def finish(self, progress: SeriesProgress) -> None:
        """Show that a series has come to its end, and what of it could not be had."""

    @abstractmethod
    def stop(self) -> None:
        """Show that all have come to their end, or that it was broken off."""

    def _sum(self) -> tuple[int, int, float, float]:
        """Return slots wanted and done, candles a second, and seconds left, of all."""
        wanted = sum(progress.wanted for progress in self.progresses)
        done = sum(progress.done for progress in self.progresses)
        elapsed = max(time.monotonic() - self._begun_at, 1e-9)
        seconds = sum(progress.left.seconds for progress in self.progresses)
        return wanted, done, done / elapsed, seconds


class JsonDisplay(Display):
    """One JSON object per line: `search`, `plan`, `progress`, `series`, `end`."""

    @override
    def search(self, what: str) -> None:
        """Print what is asked."""
        self._print("search", detail=what)

    @override
    def show_plan(self, plan: Plan) -> None:
        """Print each series' plan and the sum."""
        series = [describe_planned(fill) for fill in plan.planned]
        failed = [describe_failed(failure) for failure in plan.failed]
        self._print("plan", series=series, failed=failed, estimate=describe_estimate(plan.total))

    @override
    def advance(self, progress: SeriesProgress, delay: MdpError | None) -> None:
        """Print how far a series has come."""
        reached = to_ms(progress.reached) if progress.reached else None
        self._print(
            "progress",
            **_series_name(progress),
            wanted=progress.wanted,
            done=progress.done,
            reached=reached,
            eta_s=round(progress.left.seconds, 1),
            delay=str(delay) if delay else None,
        )

    @override
    def finish(self, progress: SeriesProgress) -> None:
        """Print what came of a series."""
        missing = [
            {
                "start": to_ms(loss.window.start),
                "end": to_ms(loss.window.end),
                "reason": kind_of(loss.error).code,
                "detail": str(loss.error),
            }
            for loss in progress.lost
        ]
        self._print("series", **_series_name(progress), done=progress.done, missing=missing)

    @override
    def stop(self) -> None:
        """Print the sums."""
        wanted, done, rate, _ = self._sum()
        rate = round(rate, 1)
        self._print("end", complete=self.got_all, wanted=wanted, done=done, candles_per_s=rate)

    def _print(self, event: str, **more: object) -> None:
        sys.stdout.write(json.dumps({"event": event, **more}) + "\n")
        sys.stdout.flush()


class PlainDisplay(Display):
    """A line now and then."""

    def __init__(self) -> None:
        super().__init__()
        self._said_at = 0.0

    @override
    def show_plan(self, plan: Plan) -> None:
        """Print a table."""
        _say(plan_table(plan))

    @override
    def advance(self, progress: SeriesProgress, delay: MdpError | None) -> None:
        """Print the state of everything, every few seconds."""
        if delay:
            _say(f"{progress.name}: {delay}")
        if time.monotonic() >= self._said_at + _LINE_SECONDS:
            self._said_at = time.monotonic()
            _say(f"{self._line()}  {progress.name} at {progress.date}")

    @override
    def finish(self, progress: SeriesProgress) -> None:
        """Print what came of a series."""
        _say(f"{progress.name}: {progress.done:,} of {progress.wanted:,} fetched")
        for loss in progress.lost:
            _say(f"  missing {loss.window.start:%F %R} - {loss.window.end:%F %R}: {loss.error}")

    @override
    def stop(self) -> None:
        """Print the state of everything."""
        _say(self._line())

    def _line(self) -> str:
        wanted, done, rate, seconds = self._sum()
        share = done / wanted if wanted else 1.0
        return (
            f"{share:6.1%}  {done:,}/{wanted:,}  {rate:,.0f} candles/s  {_duration(seconds)} left"
        )


class BarDisplay(Display):
    """A bar for each series that is being filled, and one for all."""

    def __init__(self, console: Console) -> None:
        super().__init__()
        self._bars = Bars(
            TextColumn("{task.description}"),
            BarColumn(),
            TaskProgressColumn(),
            TextColumn("{task.fields[what]}"),
            console=console,
        )
        self._tasks: dict[SeriesProgress, TaskID] = {}
        self._all: TaskID | None = None

    @override
    def show_plan(self, plan: Plan) -> None:
        """Print a table."""
        self._bars.console.print(plan_table(plan), highlight=False)

    @override
    def start(self, progresses: Sequence[SeriesProgress]) -> None:
        """Show the bars."""
        super().start(progresses)
        self._all = self._bars.add_task("all", total=max(self._sum()[0], 1), what="")
        self._bars.start()

    @override
    def advance(self, progress: SeriesProgress, delay: MdpError | None) -> None:
        """Move the bars."""
        if progress not in self._tasks:
            wanted = max(progress.wanted, 1)
            self._tasks[progress] = self._bars.add_task(progress.name, total=wanted, what="")
        what = str(delay) if delay else progress.date
        self._bars.update(self._tasks[progress], completed=progress.done, what=what)
        if self._all is not None:
            _, done, rate, seconds = self._sum()
            what = f"{rate:,.0f} candles/s  {_duration(seconds)} left"
            self._bars.update(self._all, completed=done, what=what)

    @override
    def finish(self, progress: SeriesProgress) -> None:
        """Take the bar away, and print what could not be had."""
        if progress in self._tasks:
            self._bars.remove_task(self._tasks.pop(progress))
        for loss in progress.lost:
            window = f"{loss.window.start:%F %R} - {loss.window.end:%F %R}"
            self._bars.console.print(f"{progress.name}: missing {window}: {loss.error}")

    @override
    def stop(self) -> None:
        """Leave the last state on the screen, and the sum in a line."""
        self._bars.stop()
        _, done, rate, _ = self._sum()
        elapsed = _duration(time.monotonic() - self._begun_at)
        self._bars.console.print(
            f"{done:,} candles in {elapsed}, {rate:,.0f} candles/s", highlight=False
        )


def choose_display(*, as_json: bool) -> Display:
    """Choose how to show it: JSON if asked for, bars on a terminal, else plain lines."""
    if as_json:
        return JsonDisplay()
    console = Console(stderr=False)
    return BarDisplay(console) if console.is_terminal else PlainDisplay()


def plan_table(plan: Plan) -> str:
    """Print what each series takes, and the sum; then what the exchange does not give."""
    lines = [f"{'series':<40} {'from':<10} {'to':<10} {'candles':>12} {'pages':>8} {'weight':>8}"]
    for fill in plan.planned:
        bounds = f"{_day(fill.window.start)} {_day(fill.window.end)}"
        lines.append(f"{fill.series!s:<40} {bounds} {_amounts(fill.outlook.estimate)}")
    in_all = plan.total
    cached = f"{in_all.cached_share:.1%} is there already"
    lines.append(f"{'all':<40} {'':<21} {_amounts(in_all)}")
    lines.append(f"about {_duration(in_all.seconds)}, {cached}")
    for fill in plan.planned:
        lines += [f"{fill.series}: {_forgotten(window)}" for window in fill.outlook.forgotten]
    lines += [f"{failure.name}: not filled: {failure.error}" for failure in plan.failed]
    return "\n".join(lines)


def _forgotten(window: Window) -> str:
    return f"the exchange no longer has {window.start:%F %R} - {window.end:%F %R}"


def _amounts(estimate: Estimate) -> str:
    return f"{estimate.candles:>12,} {estimate.pages:>8,} {estimate.weight:>8,.0f}"


def _series_name(progress: SeriesProgress) -> dict[str, str]:
    series = progress.planned.series
    return {
        "exchange": series.exchange,
        "market_type": series.symbol.market_type,
        "symbol": series.symbol.name,
        "interval": series.interval.value,
    }


def _day(time_: datetime) -> str:
    return f"{time_:%Y-%m-%d}"


def _duration(seconds: float) -> str:
    return str(timedelta(seconds=round(seconds)))


def _say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()
