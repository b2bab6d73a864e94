"""The caller as an owner of jobs."""

from fastapi import Request

from api.auth import principal_of
from api.tokens import Principal
from mdp_core.storage.jobs.backfills import Owner
from mdp_core.wiring import Services

# A token that may start jobs for many series starts many.
_MOST_OF_WRITERS = 10_000
_WRITE = "backfill:write"
_SEE_ALL = frozenset({_WRITE, "admin"})


def owner_of(request: Request) -> Owner:
    """Return the caller and how many open jobs it may have."""
    principal, services = principal_of(request), request.state.services
    return Owner(principal.subject, _most_jobs(principal, services))


def seen_by(principal: Principal) -> str | None:
    """Return the subject whose jobs alone the caller sees; None: it sees all."""
    return None if principal.scopes & _SEE_ALL else principal.subject


def _most_jobs(principal: Principal, services: Services) -> int:
    few = services.settings.subject_jobs
    return max(few, _MOST_OF_WRITERS) if _WRITE in principal.scopes else few
