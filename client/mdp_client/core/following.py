"""Jobs: started, followed to their end, cancelled."""

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from mdp_client.core.actions import Flow, Head, Show, Wait
from mdp_client.core.asking import (
    JSON_TYPE,
    Call,
    Question,
    as_object,
    ask_json,
    check_type,
    parsed,
    read_body,
    retry_after,
)
from mdp_client.core.listing import ask_pages, list_of
from mdp_client.core.problems import OF_CODE
from mdp_client.errors import JobCancelled, JobFailed, JobStalled, MdpError
from mdp_client.records import FailedSeries, JobStatus, records

_SHORTEST_SECONDS, _LONGEST_SECONDS = 1.0, 10.0
# A round reads every open job, one after another.
_SECONDS_PER_JOB = 0.05
_OF_REMAINING_TIME = 0.1


def open_jobs(
    call: Call, selection: Mapping[str, Any]
) -> Flow[tuple[tuple[JobStatus, ...], tuple[FailedSeries, ...]]]:
    """Have windows of many series filled.

    Returns:
        The jobs, those that were open already among them, and the series that have none.
    """
    body = json.dumps({name: value for name, value in selection.items() if value is not None})
    answer = yield from ask_json(call, Question("POST", "/backfills", body=body.encode()))
    jobs, failed = list_of(answer, "jobs"), list_of(answer, "failed")
    return records(JobStatus, jobs), records(FailedSeries, failed)


def list_jobs(call: Call, state: str | None) -> Flow[tuple[JobStatus, ...]]:
    """Read all jobs, the newest first."""
    path = f"/backfills?state={state}" if state else "/backfills"
    return records(JobStatus, (yield from ask_pages(call, path, "backfills")))


def read_job(call: Call, status_url: str) -> Flow[JobStatus]:
    """Read a job's state."""
    return JobStatus.of((yield from ask_json(call, Question("GET", status_url))))


def cancel_job(call: Call, status_url: str) -> Flow[JobStatus]:
    """Cancel a job; what it has fetched stays. One that has ended stays as it is."""
    return JobStatus.of((yield from ask_json(call, Question("DELETE", status_url))))


def wait_for_window(call: Call, head: Head, *, wait: bool) -> Flow[None]:
    """Follow the job of a 202 to its end; then the window can be asked for again.

    Raises:
        JobStarted: The caller does not wait.
        JobFailed: The job has failed, was cancelled, or makes no progress.
    """
    check_type(head, JSON_TYPE)
    body = yield from read_body()
    status = JobStatus.of(as_object(parsed(body)))
    if not wait:
        raise call.started(status)
    yield from follow(call, [status], retry_after(head))


def follow(
    call: Call, jobs: Sequence[JobStatus], first_pause: float | None = None
) -> Flow[tuple[JobStatus, ...]]:
    """Read jobs again and again until all have ended, in order.

    Progress renews the patience; `first_pause` are the seconds that the service told to wait.

    Raises:
        JobFailed: One has failed, was cancelled, or none makes progress for too long.
    """
    statuses = {job.job: job for job in jobs}
    stall, advances, pause = call.patience.another(), _Advances(), first_pause
    while True:
        yield Show(tuple(statuses.values()))
        unfinished = [status for status in statuses.values() if not status.has_ended]
        if not unfinished:
            break
        yield Wait(_pause(unfinished) if pause is None else pause)
        call.patience.succeed()  # to wait for a job is no failure
        for job in unfinished:
            statuses[job.job] = yield from read_job(call, job.status_url)
        pause = None
        if advances.note(statuses.values()):
            stall.succeed()
        elif not stall.left_seconds:
            raise _stalled(unfinished)
    check_outcomes(statuses.values())
    return tuple(statuses.values())


def check_outcomes(jobs: Iterable[JobStatus]) -> None:
    """Check that jobs have ended well.

    Raises:
        JobFailed: One has failed or was cancelled.
    """
    for job in jobs:
        if job.state == "cancelled":
            raise JobCancelled(detail=f"job {job.job} ({job.series}) was cancelled")
        if job.state == "failed":
            raise JobFailed(detail=f"job {job.job} ({job.series}) failed: {job.error}")


def check_failed(failed: Sequence[FailedSeries]) -> None:
    """Check that every series that was selected has a job.

    Raises:
        MdpError: One has none; the class is that of its code.
    """
    for failure in failed:
        names = f"{failure.exchange} {failure.market_type} {failure.symbol} {failure.interval}"
        kind = OF_CODE.get(failure.code, MdpError)
        raise kind(failure.code, None, f"{names} has no job: {failure.detail}")


class _Advances:
    """The best that was seen of each job so far."""

    def __init__(self) -> None:
        self._best: dict[int, tuple[str, int, float]] = {}

    def note(self, jobs: Iterable[JobStatus]) -> bool:
        """Note the jobs' states; tells whether any has come on since the last time.

        A queued job comes on as those ahead of it do, which its estimate shows.
        """
        has_advanced = False
        for job in jobs:
            covered = job.progress.covered if job.progress else 0
            eta = job.estimate.eta_s if job.estimate else 0.0
            state, most, least = self._best.get(job.job, ("", -1, eta))
            comes_nearer = job.state == "queued" and eta < least
            has_advanced |= job.state != state or covered > most or comes_nearer
            self._best[job.job] = job.state, max(covered, most), min(eta, least)
        return has_advanced


def _pause(jobs: Sequence[JobStatus]) -> float:
    """Return the seconds until the next look: a tenth of what is left, within bounds."""
    left = max(job.estimate.eta_s if job.estimate else 0.0 for job in jobs)
    shortest = _SHORTEST_SECONDS + _SECONDS_PER_JOB * len(jobs)
    return min(max(left * _OF_REMAINING_TIME, shortest), max(_LONGEST_SECONDS, shortest))


def _stalled(jobs: Sequence[JobStatus]) -> JobStalled:
    ids = ", ".join(str(job.job) for job in jobs)
    detail = f"no progress of job {ids}; it goes on: client.job({jobs[0].job}).wait() waits again"
    return JobStalled(detail=detail)
