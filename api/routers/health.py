"""`GET /health` and `/health/live`: public, for load balancers and for people."""

import asyncio

from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse

from api.openapi.problems import problem_responses
from api.responses.health_bodies import HealthBody, LiveBody, describe_details, describe_state
from api.tokens import TokenVerifier, Unauthorized
from mdp_core.wiring import Services

router = APIRouter(tags=["health"])

_UNAVAILABLE = 503


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
    """Return the state of the database and its schema, within three seconds.

    With a token of scope `admin` also that of exchanges and syncers. All who ask within a second
    get the same.
    """
    services: Services = request.state.services
    replica = services.servers.state
    is_admin = _is_admin(request)
    state, details = await asyncio.gather(
        services.health.state(), services.health.details() if is_admin else _nothing()
    )
    body = describe_state(state, replica.value if replica else None, to_admin=is_admin)
    if details:
        body = {**body, **describe_details(details)}
    return JSONResponse(body, _UNAVAILABLE if state.problem else 200)


@router.get(
    "/health/live",
    summary="Whether this process answers",
    responses=problem_responses(),
)
async def get_live() -> LiveBody:
    """Return at once: nothing else is asked, so a frozen database ends no process."""
    return {"status": "ok"}


async def _nothing() -> None:
    """Return nothing."""


def _is_admin(request: Request) -> bool:
    """Return whether the request has a token that may see details; it needs none."""
    scheme, _, token = request.headers.get("Authorization", "").partition(" ")
    verifier: TokenVerifier = request.state.verifier
    try:
        return scheme.lower() == "bearer" and "admin" in verifier.verify(token).scopes
    except Unauthorized:
        return False
