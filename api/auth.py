"""Authorization: the token of a request, and the scopes that its route needs."""

from fastapi import Request
from fastapi.security import HTTPBearer, SecurityScopes
from typing_extensions import override

from api.tokens import URL_SCOPE, Forbidden, Principal, TokenVerifier, Unauthorized
from mdp_core.logs import note

# Open to every client. Every other route needs a token, whether or not it says so.
PUBLIC_PATHS = frozenset({"/health", "/health/live", "/docs", "/openapi.json"})

_PRINCIPAL = "mdp.principal"


class _Authorize(HTTPBearer):
    """The check of the token that every request has to pass, as OpenAPI describes it.

    The application depends on it, so that a new route is closed by default, and each route again
    with its scopes: the token is verified once a request. A coroutine, because FastAPI sends plain
    functions to a thread at many times their cost.
    """

    @override
    async def __call__(  # pyright: ignore[reportIncompatibleMethodOverride]
        self, request: Request, needed: SecurityScopes
    ) -> Principal | None:
        """Check that the token is good and holds the scopes that the route needs.

        Raises:
            Unauthorized, Forbidden: It is not, or it doesn't.
        """
        if request.scope["path"] in PUBLIC_PATHS:
            return None
        principal: Principal | None = request.scope.get(_PRINCIPAL)
        if principal is None:
            principal = request.scope[_PRINCIPAL] = await self._verified(request)
        lacking = [scope for scope in needed.scopes if scope not in principal.scopes]
        if lacking:
            message = f"the token lacks the scope {' '.join(lacking)}"
            raise Forbidden(message)
        return principal

    async def _verified(self, request: Request) -> Principal:
        credentials = await super().__call__(request)
        if credentials is None:
            message = "this needs a token: send the header `Authorization: Bearer <token>`"
            raise Unauthorized(message)
        verifier: TokenVerifier = request.state.verifier
        principal = verifier.verify(credentials.credentials)
        note(sub=principal.subject, jti=principal.token_id)
        return principal


authorize = _Authorize(
    scheme_name="HTTPBearer", auto_error=False, description="A JWT; `mdp token` makes one."
)


def verify_url_token(request: Request, token: str) -> Principal:
    """Return the principal of a token that stands in a URL.

    Raises:
        Unauthorized: It proves nothing, or is of other scopes too: URLs are copied and logged.
    """
    verifier: TokenVerifier = request.state.verifier
    principal = verifier.verify(token)
    note(sub=principal.subject, jti=principal.token_id)
    if principal.scopes != frozenset({URL_SCOPE}):
        message = f"a token that stands in a URL has the scope {URL_SCOPE}, and no other"
        raise Unauthorized(message)
    request.scope[_PRINCIPAL] = principal
    return principal


def principal_of(request: Request) -> Principal:
    """Return the caller whose token was checked for a route that is not public."""
    principal: Principal = request.scope[_PRINCIPAL]
    return principal
