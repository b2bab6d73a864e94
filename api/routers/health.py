"""`GET /health`: public, for load balancers and for people."""

from typing import Any

from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse

from db.upgrade import newest_revision
from mdp_core.clock import to_ms
from mdp_core.errors import StoreUnavailable
from mdp_core.health import Health, read_health
from mdp_core.job_runs import JobRuns, Run
from mdp_core.wiring import Services

router = APIRouter(tags=["health"])

_UNAVAILABLE = 503
_RUNS_SHOWN = 3


@router.get(
    "/health",
    summary="Whether this service can serve",
    responses={_UNAVAILABLE: {"description": "It can't; the body says why."}},
)
async def get_health(request: Request) -> Response:
    """Tell the state of the database, its extension, its schema and the exchanges."""
    services: Services = request.state.services
    expected = newest_revision()
    try:
        health = await read_health(services.database)
        ready = health.migration == expected
        syncer = await _syncer(services.runs) if ready else None
    except StoreUnavailable as error:
        body = {"status": "unavailable", "database": {"reachable": False, "problem": str(error)}}
        return JSONResponse(body, _UNAVAILABLE)
    body = {
        "status": "ok" if ready else "unavailable",
        "database": _describe(health, expected),
        "exchanges": _exchanges(health, services.metadata.exchanges()),
        "syncer": syncer,
    }
    return JSONResponse(body, 200 if ready else _UNAVAILABLE)


async def _syncer(runs: JobRuns) -> dict[str, Any]:
    """Show who lives, what waits for want of budget, and the latest runs of every job."""
    syncers, latest = await runs.syncers(), await runs.latest(_RUNS_SHOWN)
    newest = {run.job: run for run in reversed(latest)}
    return {
        "alive": any(syncer.is_alive for syncer in syncers),
        "heartbeat_at": to_ms(syncers[0].heartbeat_at) if syncers else None,
        "syncers": [
            {"name": each.name, "alive": each.is_alive, "heartbeat_at": to_ms(each.heartbeat_at)}
            for each in syncers
        ],
        "series_waiting": sum(run.waiting or 0 for run in newest.values()),
        "runs": [_run(run) for run in latest],
    }


def _run(run: Run) -> dict[str, Any]:
    return {
        "job": run.job,
        "due_at": to_ms(run.due_at),
        "worker": run.worker,
        "started_at": to_ms(run.started_at),
        "ended_at": None if run.ended_at is None else to_ms(run.ended_at),
        "rows": run.rows,
        "waiting": run.waiting,
        "error": run.error,
    }


def _describe(health: Health, expected: str) -> dict[str, Any]:
    return {
        "reachable": True,
        "kind": "timescaledb" if health.timescaledb else "postgres",
        "postgres": health.postgres,
        "timescaledb": health.timescaledb,
        "migration": health.migration,
        "expected_migration": expected,
    }


def _exchanges(health: Health, names: list[str]) -> dict[str, Any]:
    blocks: dict[str, list[dict[str, Any]]] = {name: [] for name in names}
    for block in health.blocks:
        blocks.setdefault(block.exchange, []).append(
            {"egress": block.egress, "until": to_ms(block.until), "why": block.why}
        )
    return {name: {"blocked": blocked} for name, blocked in blocks.items()}
