"""`GET /health`: public, for load balancers and for people."""

from typing import Literal, NotRequired, TypeAlias

from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse
from typing_extensions import TypedDict

from api.auth import TokenVerifier, Unauthorized
from api.openapi.problems import problem_responses
from db.upgrade import newest_revision, schema_problem
from mdp_core.domain.clock import to_ms
from mdp_core.errors import StoreUnavailable
from mdp_core.storage.database.diagnostics import Health, read_health
from mdp_core.storage.jobs.job_runs import JobRuns, Run
from mdp_core.wiring import Services

router = APIRouter(tags=["health"])

_UNAVAILABLE = 503
_RUNS_SHOWN = 3

_Replica: TypeAlias = Literal["used", "away", "foreign"] | None


class DatabaseBody(TypedDict):
    """The database; `problem` says why the service can't serve from it.

    `replica` is null if none is configured; `away` and `foreign` (of another database, or promoted)
    cost no answer: the primary is read.
    """

    reachable: bool
    replica: _Replica
    problem: NotRequired[str]
    kind: NotRequired[Literal["timescaledb", "postgres"]]
    postgres: NotRequired[str]
    timescaledb: NotRequired[str | None]
    migration: NotRequired[str | None]
    expected_migration: NotRequired[str]


class BlockBody(TypedDict):
    """Until when (epoch ms) an exchange lets an egress wait, and why."""

    egress: str
    until: int
    why: str


class ExchangeHealthBody(TypedDict):
    """An exchange, and where it is blocked."""

    blocked: list[BlockBody]


class SyncerBody(TypedDict):
    """A syncer, and when it was last heard of."""

    name: str
    alive: bool
    heartbeat_at: int


class RunBody(TypedDict):
    """A run of a job."""

    job: str
    due_at: int
    worker: str
    started_at: int
    ended_at: int | None
    rows: int | None
    waiting: int | None
    error: str | None


class SyncersBody(TypedDict):
    """The syncers, the series that wait for budget, and the latest runs of each job."""

    alive: bool
    heartbeat_at: int | None
    syncers: list[SyncerBody]
    series_waiting: int
    runs: list[RunBody]


class CountersBody(TypedDict):
    """Candles that the nightly checks compared with exchanges, and how many differed."""

    verified: int
    differing: int


class HealthBody(TypedDict):
    """The service's state and that of what it depends on; times in epoch ms."""

    status: Literal["ok", "unavailable"]
    database: DatabaseBody
    exchanges: NotRequired[dict[str, ExchangeHealthBody]]
    syncer: NotRequired[SyncersBody | None]
    counters: NotRequired[CountersBody]


@router.get(
    "/health",
    summary="Whether this service can serve",
    responses={
        200: {"model": HealthBody},
        _UNAVAILABLE: {
            "model": HealthBody,
            "description": "It can't; the body says why.",
        },
        **problem_responses(),
    },
)
async def get_health(request: Request) -> Response:
    """Return the state of the database, its extension, its schema and the exchanges."""
    services: Services = request.state.services
    state = services.servers.state
    replica = state.value if state else None
    try:
        async with services.database.connection() as connection:
            health = await read_health(connection)
        problem = schema_problem(health.migration)
        syncer = None if problem else await _syncer(services.runs)
        counters = None if problem or not _is_admin(request) else await _counters(services.runs)
    except StoreUnavailable as error:
        body: HealthBody = {
            "status": "unavailable",
            "database": {"reachable": False, "replica": replica, "problem": str(error)},
        }
        return JSONResponse(body, _UNAVAILABLE)
    body = {
        "status": "unavailable" if problem else "ok",
        "database": _describe(health, problem, replica),
        "exchanges": _exchanges(health, services.resolver.directory.exchanges()),
        "syncer": syncer,
    }
    if counters:
        body["counters"] = counters
    return JSONResponse(body, _UNAVAILABLE if problem else 200)


def _is_admin(request: Request) -> bool:
    """Return whether the request has a token that may see details; it needs none."""
    scheme, _, token = request.headers.get("Authorization", "").partition(" ")
    verifier: TokenVerifier = request.state.verifier
    try:
        return scheme.lower() == "bearer" and "admin" in verifier.verify(token).scopes
    except Unauthorized:
        return False


async def _counters(runs: JobRuns) -> CountersBody:
    verified, differing = await runs.verified()
    return {"verified": verified, "differing": differing}


async def _syncer(runs: JobRuns) -> SyncersBody:
    """Return the syncers, waiting series and the latest runs of every job."""
    syncers, latest = await runs.syncers(), await runs.latest(_RUNS_SHOWN)
    waiting = {run.job: run.waiting for run in reversed(latest) if run.waiting is not None}
    return {
        "alive": any(syncer.is_alive for syncer in syncers),
        "heartbeat_at": to_ms(syncers[0].heartbeat_at) if syncers else None,
        "syncers": [
            {
                "name": _public(each.name),
                "alive": each.is_alive,
                "heartbeat_at": to_ms(each.heartbeat_at),
            }
            for each in syncers
        ],
        "series_waiting": sum(waiting.values()),
        "runs": [_run(run) for run in latest],
    }


def _public(syncer: str) -> str:
    """Return a syncer's public name, without that of its machine."""
    return syncer.partition(":")[2]


def _run(run: Run) -> RunBody:
    return {
        "job": run.job,
        "due_at": to_ms(run.due_at),
        "worker": _public(run.worker),
        "started_at": to_ms(run.started_at),
        "ended_at": None if run.ended_at is None else to_ms(run.ended_at),
        "rows": run.rows,
        "waiting": run.waiting,
        "error": run.error,
    }


def _describe(health: Health, problem: str | None, replica: _Replica) -> DatabaseBody:
    described: DatabaseBody = {
        "reachable": True,
        "replica": replica,
        "kind": "timescaledb" if health.timescaledb else "postgres",
        "postgres": health.postgres,
        "timescaledb": health.timescaledb,
        "migration": health.migration,
        "expected_migration": newest_revision(),
    }
    return {**described, "problem": problem} if problem else described


def _exchanges(health: Health, names: list[str]) -> dict[str, ExchangeHealthBody]:
    blocks: dict[str, list[BlockBody]] = {name: [] for name in names}
    for block in health.blocks:
        blocks.setdefault(block.exchange, []).append(
            {"egress": block.egress, "until": to_ms(block.until), "why": block.why}
        )
    return {name: {"blocked": blocked} for name, blocked in blocks.items()}
