"""Bodies of jobs and estimates; times in epoch ms."""

from collections.abc import Sequence
from datetime import datetime

from fastapi.responses import JSONResponse

from api.errors import kind_of
from api.responses import job_bodies
from mdp_core.backfill.estimate import Estimate
from mdp_core.backfill.jobs import JobStatus
from mdp_core.backfill.planning import PlannedFill, RejectedFill
from mdp_core.domain.clock import to_ms
from mdp_core.domain.windows import Window
from mdp_core.storage.jobs.backfills import UnavailableWindow

# How often a client should look, whatever the estimate says.
_SHORTEST_SECONDS, _LONGEST_SECONDS = 1, 5


def describe_estimate(estimate: Estimate) -> job_bodies.EstimateBody:
    """Show what it takes: `eta_s` includes the wait for what is queued ahead."""
    return {
        "candles": estimate.candles,
        "pages": estimate.pages,
        "weight": estimate.weight,
        "eta_s": round(estimate.seconds, 1),
        "cached_share": round(estimate.cached_share, 6),
    }


def describe_planned(planned: PlannedFill) -> job_bodies.PlannedBody:
    """Show what a job would be, and what the exchange can't give any more."""
    symbol = planned.series.symbol
    return {
        "exchange": symbol.exchange,
        "market_type": symbol.market_type,
        "symbol": symbol.name,
        "interval": planned.series.interval.value,
        **_bounds(planned.window),
        "beyond_memory": _windows(planned.outlook.forgotten),
        "begins_known": planned.begins_known,
        "estimate": describe_estimate(planned.estimate),
    }


def describe_failed(failed: RejectedFill) -> job_bodies.FailedBody:
    """Show of which series nothing is to be filled, and why."""
    return {
        "exchange": failed.name.exchange,
        "market_type": failed.name.market_type,
        "symbol": failed.name.symbol,
        "interval": failed.name.interval,
        "code": kind_of(failed.error).code,
        "detail": str(failed.error),
    }


def describe_job(followed: JobStatus) -> job_bodies.JobBody:
    """Show a job: its progress is read from coverage, its estimate is of what is left."""
    job, left = followed.job, followed.left
    return {
        **_made(followed),
        "state": job.state.value,
        "progress": None if left is None else _progress(left, followed.unconfirmed),
        "estimate": None if left is None else describe_estimate(left),
        "created_at": to_ms(job.created_at),
        "started_at": _ms(job.started_at),
        "ended_at": _ms(job.ended_at),
        "error": job.error,
        "missing": [_lost(loss) for loss in job.unavailable],
    }


def accepted(followed: JobStatus) -> job_bodies.AcceptedBody:
    """Show a job that was just asked for."""
    return {**_made(followed), "estimate": describe_estimate(followed.left or Estimate())}


def _made(followed: JobStatus) -> job_bodies.MadeBody:
    job = followed.job
    return {
        "job": job.id,
        "status_url": _status_url(followed),
        "exchange": job.exchange,
        "market_type": job.market_type,
        "symbol": job.symbol,
        "interval": job.interval,
        **_bounds(job.window),
        "beyond_memory": _windows(followed.forgotten),
        "begins_known": followed.begins_known,
    }


def _lost(loss: UnavailableWindow) -> job_bodies.LostBody:
    return {**_bounds(loss.window), "reason": loss.code, "detail": loss.detail}


def _progress(left: Estimate, unconfirmed: int) -> job_bodies.ProgressBody:
    return {
        "slots": left.slots,
        "covered": left.slots - left.candles,
        "unconfirmed": unconfirmed,
        "share": round(left.cached_share, 6),
    }


def answer_accepted(followed: JobStatus) -> JSONResponse:
    """Answer 202: the job, the estimate, and when to come back."""
    seconds = round(followed.left.seconds) if followed.left else 0
    seconds = min(max(seconds, _SHORTEST_SECONDS), _LONGEST_SECONDS)
    headers = {
        "Retry-After": str(seconds),
        "Location": _status_url(followed),
        "Cache-Control": "no-store",
    }
    return JSONResponse(accepted(followed), 202, headers)


def _status_url(followed: JobStatus) -> str:
    return f"/backfills/{followed.job.id}"


def _bounds(window: Window) -> job_bodies.BoundsBody:
    return {"start": to_ms(window.start), "end": to_ms(window.end)}


def _windows(windows: Sequence[Window]) -> list[job_bodies.BoundsBody]:
    return [_bounds(window) for window in windows]


def _ms(time: datetime | None) -> int | None:
    return None if time is None else to_ms(time)
