"""The progress of jobs on a terminal, and the words to a user who interrupts."""

# rich is imported by name, where it is installed.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false

import sys
from collections.abc import Sequence
from typing import Any, Literal, Protocol, TypeAlias

from mdp_client.optional import find
from mdp_client.records import JobStatus

Progress: TypeAlias = Literal["auto"] | bool
"""`auto` shows a bar on a terminal only."""


class _Bar(Protocol):
    def update(self, share: float, text: str) -> None: ...

    def close(self) -> None: ...


class ProgressDisplay:
    """Shows jobs while they are followed; nothing where progress is not wanted."""

    def __init__(self, progress: Progress) -> None:
        self._is_wanted = sys.stderr.isatty() if progress == "auto" else progress
        self._bar: _Bar | None = None
        self._open: Sequence[JobStatus] = ()

    def show(self, jobs: Sequence[JobStatus]) -> None:
        """Show how far jobs have come; the display ends with the last of them."""
        self._open = [job for job in jobs if not job.has_ended]
        if not self._is_wanted:
            return
        if self._bar is None:
            self._bar = _bar()
        self._bar.update(_share(jobs), _text(jobs))
        if not self._open:
            self.close()

    def close(self) -> None:
        """End the display."""
        if self._bar:
            self._bar.close()
            self._bar = None

    def interrupt(self) -> None:
        """Tell a user who interrupts that the jobs go on, and how to come back to them."""
        self.close()
        for job in self._open:
            print(  # noqa: T201 - for the user at the terminal
                f"job {job.job} ({job.series}) goes on in the service: "
                f"client.job({job.job}).wait() waits for it, .cancel() ends it",
                file=sys.stderr,
                flush=True,
            )


class _Plain:
    """One line that is written over again."""

    def update(self, share: float, text: str) -> None:
        sys.stderr.write(f"\r{text} {share:4.0%}\033[K")
        sys.stderr.flush()

    def close(self) -> None:
        sys.stderr.write("\n")


class _Rich:
    """A bar of the library rich."""

    def __init__(self, rich: Any, console: Any) -> None:
        columns = (
            rich.TextColumn("{task.description}"),
            rich.BarColumn(),
            rich.TaskProgressColumn(),
            rich.TimeElapsedColumn(),
        )
        self._progress = rich.Progress(*columns, console=console.Console(stderr=True))
        self._task = self._progress.add_task("", total=1.0)
        self._progress.start()

    def update(self, share: float, text: str) -> None:
        self._progress.update(self._task, completed=share, description=text)

    def close(self) -> None:
        self._progress.stop()


def _bar() -> _Bar:
    rich, console = find("rich.progress"), find("rich.console")
    return _Rich(rich, console) if rich and console else _Plain()


def _share(jobs: Sequence[JobStatus]) -> float:
    """Return the covered share of all slots; jobs of unknown size count as none."""
    known = [job.progress for job in jobs if job.progress]
    slots = sum(job.slots for job in known)
    if all(job.state == "done" for job in jobs):
        return 1.0
    return sum(job.covered for job in known) / slots if slots else 0.0


def _text(jobs: Sequence[JobStatus]) -> str:
    ended = sum(entry.has_ended for entry in jobs)
    if len(jobs) > 1:
        return f"{ended} of {len(jobs)} jobs"
    (job,) = jobs
    eta = f", {job.estimate.eta_s:,.0f} s left" if job.estimate and not ended else ""
    return f"job {job.job}: {job.series} {job.state}{eta}"
