"""`/backfills`: jobs that fill large windows."""

from datetime import datetime
from typing import Annotated, Literal

from fastapi import APIRouter, Path, Query, Request, Response, Security
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict, Field

from api.auth import authorize, principal_of
from api.deadline import TimedRoute
from api.openapi.problems import UNKNOWN_SERIES, problem_responses
from api.requests.owners import owner_of, seen_by
from api.requests.parameters import optional_time, path_with
from api.responses.job_bodies import AcceptedJobsBody, JobBody, JobsBody, PlannedJobsBody
from api.responses.jobs import (
    accepted,
    describe_estimate,
    describe_failed,
    describe_job,
    describe_planned,
)
from api.tokens import Forbidden, Principal
from mdp_core.backfill.jobs import Backfills
from mdp_core.backfill.planning import Planning
from mdp_core.errors import InvalidParameter, InvalidWindow, StoreUnavailable, UnknownBackfill
from mdp_core.series.selection import Selection
from mdp_core.storage.jobs.backfills import OWN_COMMANDS

_MOST_SERIES = 1000
_MOST_PATTERNS = 100
# How long an answer waits for exchanges to tell where histories begin; the worker of the job finds
# out the rest.
_PATIENCE_SECONDS = 10.0
_LARGEST_ID = 2**63 - 1
_JobId = Annotated[int, Path(ge=1, le=_LARGEST_ID, description="As `job` of an answer.")]
_READ = [Security(authorize, scopes=["candles:read"])]

router = APIRouter(
    prefix="/backfills",
    route_class=TimedRoute,
    tags=["backfills"],
    responses=problem_responses(401, 403, InvalidParameter, StoreUnavailable),
)

_Names = Annotated[
    list[Annotated[str, Field(min_length=1)]], Field(min_length=1, max_length=_MOST_PATTERNS)
]


class NewBackfills(BaseModel):
    """Which series to fill, and from when to when."""

    model_config = ConfigDict(extra="forbid")

    exchange: str
    market_type: str | None = None
    symbols: _Names = Field(description="Names, or globs over active symbols; `*` is all of them.")
    intervals: _Names
    start: str | int | None = Field(
        default=None, description="First open time; default: where each history begins."
    )
    end: str | int | None = Field(default=None, description="Open times before this; default now.")
    dry_run: bool = Field(default=False, description="Only tell what it would take.")


class JobFilter(BaseModel):
    """Which jobs."""

    model_config = ConfigDict(extra="forbid")

    state: Literal["open", "ended"] | None = Field(default=None, description="Default: all.")
    limit: int = Field(default=100, ge=1, le=1000, description="Jobs at most.")
    before: int | None = Field(
        default=None, ge=1, le=_LARGEST_ID, description="Jobs with a smaller id only."
    )


@router.post(
    "",
    summary="Have windows of many series filled",
    responses={
        200: {
            "model": PlannedJobsBody,
            "description": "dry_run: what it would take",
        },
        202: {
            "model": AcceptedJobsBody,
            "description": "Jobs; what is open already is that job.",
        },
        **problem_responses(413, *UNKNOWN_SERIES, InvalidParameter, InvalidWindow, 429, 502, 503),
    },
)
async def post_backfills(
    request: Request,
    wanted: NewBackfills,
    principal: Annotated[Principal, Security(authorize)],
) -> Response:
    """Open a job for each series; the same series and window is the same job.

    For an estimate (`dry_run`) the scope `candles:read` is enough.
    """
    _require(principal, "candles:read" if wanted.dry_run else "backfill:write")
    backfills: Backfills = request.state.services.backfills
    selection = Selection(
        wanted.exchange, wanted.market_type, tuple(wanted.symbols), tuple(wanted.intervals)
    )
    start, end = _time("start", wanted.start), _time("end", wanted.end)
    planning: Planning = request.state.services.planning
    names = await planning.names(selection)
    if len(names) > _MOST_SERIES:
        message = f"{len(names)} series are selected, and one call takes {_MOST_SERIES}"
        raise InvalidParameter(message)
    plan = await planning.plan(names, start, end, patience_seconds=_PATIENCE_SECONDS)
    plan = await backfills.behind_the_queue(plan.worth_a_job(), owner_of(request))
    more = {
        "failed": [describe_failed(failure) for failure in plan.failed],
        "estimate": describe_estimate(plan.total),
    }
    if wanted.dry_run:
        return JSONResponse({"jobs": [describe_planned(fill) for fill in plan.planned], **more})
    opened = await backfills.open(plan.planned, owner_of(request))
    return JSONResponse({"jobs": [accepted(job) for job in opened], **more}, 202)


@router.get("", dependencies=_READ, summary="Jobs, the newest first")
async def get_backfills(request: Request, wanted: Annotated[JobFilter, Query()]) -> JobsBody:
    """List jobs with how far they have come.

    A token with neither `backfill:write` nor `admin` sees those that its subject asked for.
    """
    backfills: Backfills = request.state.services.backfills
    is_open = None if wanted.state is None else wanted.state == "open"
    jobs = await backfills.jobs(
        before=wanted.before,
        is_open=is_open,
        limit=wanted.limit,
        subject=seen_by(principal_of(request)),
    )
    last = str(jobs[-1].job.id) if len(jobs) == wanted.limit else None
    following = path_with(request, {"before": last}) if last else None
    return {"backfills": [describe_job(job) for job in jobs], "next": following}


@router.get(
    "/{job}", dependencies=_READ, summary="One job", responses=problem_responses(UnknownBackfill)
)
async def get_backfill(request: Request, job: _JobId) -> JobBody:
    """Return a job's progress, read from coverage, and the estimate of the rest."""
    backfills: Backfills = request.state.services.backfills
    return describe_job(await backfills.get(job, seen_by(principal_of(request))))


@router.delete(
    "/{job}",
    summary="Cancel a job",
    responses=problem_responses(UnknownBackfill),
)
async def delete_backfill(
    request: Request, job: _JobId, principal: Annotated[Principal, Security(authorize)]
) -> JobBody:
    """Cancel a job: fetched candles stay, a job that has ended stays as it is.

    A job that other subjects asked for as well goes on for them; `admin` cancels any.
    """
    backfills: Backfills = request.state.services.backfills
    if "admin" in principal.scopes:
        return describe_job(await backfills.cancel(job))
    _require(principal, "candles:read")
    seen = await backfills.get(job, seen_by(principal))
    if not {principal.subject, OWN_COMMANDS.subject} & set(seen.job.subjects):
        message = f"job {job} is another subject's: the scope admin cancels any"
        raise Forbidden(message)
    return describe_job(await backfills.leave(job, principal.subject))


def _require(principal: Principal, scope: str) -> None:
    if not principal.scopes & {scope, "backfill:write"}:
        message = f"the token lacks the scope {scope}"
        raise Forbidden(message)


def _time(name: str, value: str | int | None) -> datetime | None:
    return optional_time(name, None if value is None else str(value))
