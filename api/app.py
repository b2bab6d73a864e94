"""The HTTP application; its lifespan opens and closes everything that it uses."""

import asyncio
import gc
from collections.abc import AsyncGenerator, Callable
from contextlib import AbstractAsyncContextManager, aclosing, asynccontextmanager
from importlib.metadata import version
from typing import TypedDict

from fastapi import Depends, FastAPI
from fastapi_offline import FastAPIOffline

from api.auth import authorize
from api.dialects.passing import Passing
from api.dialects.routes import ANSWER_SECONDS, Dialects, add_dialects
from api.dialects.series_rows import SeriesRows
from api.errors import add_error_handlers
from api.middleware.cors import CrossOrigin
from api.middleware.head import HeadRequests
from api.middleware.limits import Guard
from api.middleware.request_id import RequestId
from api.openapi.document import complete_description
from api.page import add_page
from api.responses.block_cache import BodyMemory, split_memory
from api.responses.block_loader import Blocks
from api.responses.formats import warm_up
from api.routers import backfills, candles, coverage, health, inventory, latest, meta
from api.tokens import TokenVerifier
from api.udf import add_udf
from mdp_core.settings import Settings
from mdp_core.storage.catalog.revocations import Revocations
from mdp_core.wiring import Services, open_services

OpenServices = Callable[[], AbstractAsyncContextManager[Services]]

_DESCRIPTION = """
Historical candles (OHLCV) of many exchanges from one place. A 200 is complete: every closed candle
that the exchange has for the window, none invented, none forming. Anything less is an error that
names what is missing. Times are UTC: ISO-8601 or epoch milliseconds in, epoch milliseconds out.

Errors are problem bodies (RFC 9457). Beside those that each operation lists: a path that is not
here is answered 404 `not_found`, a method that a path does not take 405 `method_not_allowed`, with
the header `Allow`.
"""


class RequestState(TypedDict):
    """The objects that every request finds in `request.state`."""

    services: Services
    verifier: TokenVerifier
    blocks: Blocks
    bodies: BodyMemory
    dialects: Dialects


@asynccontextmanager
async def open_from_environment() -> AsyncGenerator[Services]:
    """Open the services that the environment describes, for a dedicated process."""
    async with open_services(Settings(), name="mdp-api") as services:  # pyright: ignore[reportCallIssue]
        # What is there now stays; to look through it for garbage was a fifth of a hit (measured).
        gc.collect()
        gc.freeze()
        yield services


def create_app(open_: OpenServices = open_from_environment) -> FastAPI:
    """Make the application.

    Args:
        open_: Opens what the application works with; tests pass their own.
    """

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncGenerator[RequestState]:
        await asyncio.to_thread(warm_up)
        async with open_() as services:
            settings = services.settings
            of_blocks, of_bodies = split_memory(settings.block_memory_mb << 20)
            at_once = max(settings.pool_size // 2, 1)
            blocks = Blocks(services.candles, of_blocks, at_once=at_once)
            revocations, passing = Revocations(services.database), Passing(ANSWER_SECONDS)
            async with aclosing(blocks), aclosing(passing), revocations.watched():
                yield RequestState(
                    services=services,
                    verifier=TokenVerifier(settings, revoked=revocations),
                    blocks=blocks,
                    bodies=of_bodies,
                    dialects=Dialects(services, SeriesRows(services, blocks), passing),
                )

    app = FastAPIOffline(
        title="Market data platform",
        version=version("mdp"),
        description=_DESCRIPTION,
        lifespan=lifespan,
        redoc_url=None,
        redirect_slashes=False,
        dependencies=[Depends(authorize)],
    )
    app.add_middleware(HeadRequests)
    app.add_middleware(Guard)
    app.add_middleware(CrossOrigin)
    app.add_middleware(RequestId)
    add_error_handlers(app)
    add_dialects(app)  # routes are tried in their order, and bots ask most often
    for module in (candles, latest, coverage, inventory, backfills, meta, health):
        app.include_router(module.router)
    add_page(app)
    add_udf(app)
    complete_description(app)
    return app
