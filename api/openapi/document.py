"""Complete FastAPI's OpenAPI document with what is true of every route."""

from typing import Any

from fastapi import FastAPI

from api.auth import PUBLIC_PATHS
from api.openapi.examples import EXAMPLES

_REQUEST_ID = {
    "required": True,
    "description": "Yours if you sent one, else a new one; as in the log.",
    "schema": {"type": "string"},
}


def complete_description(app: FastAPI) -> None:
    """Add every answer, the request id and the public routes to the document."""
    describe = app.openapi

    def openapi() -> dict[str, Any]:
        document = describe()
        # Here, for what a route is told to show is shown without its nulls.
        for (method, path, status), body in EXAMPLES.items():
            answer = document["paths"][path][method]["responses"][status]
            answer["content"]["application/json"]["example"] = body
        # These look at more to know the scope: at the body (an estimate needs less), at the job.
        document["paths"]["/backfills"]["post"]["security"] = [{"HTTPBearer": ["backfill:write"]}]
        document["paths"]["/backfills/{job}"]["delete"]["security"] = [
            {"HTTPBearer": ["candles:read"]}
        ]
        for path, methods in document["paths"].items():
            for operation in methods.values():
                _complete(path, operation)
        return document

    app.openapi = openapi


def _complete(path: str, operation: dict[str, Any]) -> None:
    if path in PUBLIC_PATHS:
        operation["security"] = []  # the application's own would hold for it else
    for answer in operation["responses"].values():
        answer["headers"] = {"X-Request-Id": _REQUEST_ID} | answer.get("headers", {})
