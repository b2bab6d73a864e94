"""`GET /health`: public, for load balancers and for people."""

from typing import Any

from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse

from db.upgrade import newest_revision
from mdp_core.clock import to_ms
from mdp_core.errors import StoreUnavailable
from mdp_core.health import Health, read_health

router = APIRouter(tags=["health"])

_UNAVAILABLE = 503


@router.get(
    "/health",
    summary="Whether this service can serve",
    responses={_UNAVAILABLE: {"description": "It can't; the body says why."}},
)
async def get_health(request: Request) -> Response:
    """Tell the state of the database, its extension, its schema and the exchanges."""
    services = request.state.services
    expected = newest_revision()
    try:
        health = await read_health(services.database)
    except StoreUnavailable as error:
        body = {"status": "unavailable", "database": {"reachable": False, "problem": str(error)}}
        return JSONResponse(body, _UNAVAILABLE)
    ready = health.migration == expected
    body = {
        "status": "ok" if ready else "unavailable",
        "database": _describe(health, expected),
        "exchanges": _exchanges(health, services.metadata.exchanges()),
    }
    return JSONResponse(body, 200 if ready else _UNAVAILABLE)


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
