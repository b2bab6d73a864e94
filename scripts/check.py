"""Whether a service could start with this environment; if not, what is wrong, in a line each."""

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum

import psycopg
import typer
from psycopg import AsyncConnection
from pydantic import ValidationError

from api.auth import MissingKey, TokenVerifier
from db.upgrade import newest_revision, schema_problem
from mdp_core.database import connection_problem
from mdp_core.errors import InvalidParameter
from mdp_core.health import Health, read_health
from mdp_core.selection import parse_selections
from mdp_core.settings import ExchangeSettings, Settings, problems_of
from mdp_core.wiring import installed_adapters

# A service that starts may be earlier than its database.
_PATIENCE_SECONDS = 10.0


class Service(StrEnum):
    """Who would start; anything else that fills the store needs what the syncer needs."""

    API = "api"
    SYNCER = "syncer"


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at; `is_wrong` if no service should start like this."""

    text: str
    is_wrong: bool = False


def require(service: Service) -> None:
    """End the process, with a line on stderr for each thing that is wrong, unless it can start."""
    found = findings(service, patience_seconds=_PATIENCE_SECONDS)
    if wrong := [finding.text for finding in found if finding.is_wrong]:
        for text in wrong:
            typer.echo(f"mdp: {text}", err=True)
        raise typer.Exit(1)


def findings(service: Service | None = None, *, patience_seconds: float = 0.0) -> Iterator[Finding]:
    """Look at the settings, then at the keys and the database that they name.

    Args:
        service: Who would start; None for all of them.
        patience_seconds: How long the database may take to answer.
    """
    for exchange in sorted({exchange for exchange, _ in installed_adapters()}):
        yield from _exchange(exchange)
    try:
        settings = Settings()  # pyright: ignore[reportCallIssue]
    except ValidationError as error:
        yield from (Finding(problem, is_wrong=True) for problem in problems_of(error))
        return
    yield Finding("settings: can be read")
    if service is not Service.API:
        yield from _selections(settings)
    if service is not Service.SYNCER:
        yield _tokens(settings)
    yield from _database(settings.database_url, patience_seconds)


def _exchange(exchange: str) -> Iterator[Finding]:
    try:
        own = ExchangeSettings.from_environment(exchange)
    except ValidationError as error:
        for problem in problems_of(error, f"MDP_{exchange.upper()}_"):
            yield Finding(problem, is_wrong=True)
        return
    yield Finding(f"{exchange}: {own.share:.0%} of its limit, at {own.url or 'its own address'}")


def _selections(settings: Settings) -> Iterator[Finding]:
    for name, text in (("MDP_HOT", settings.hot), ("MDP_KEEP", settings.keep)):
        try:
            parse_selections(text)
        except InvalidParameter as error:
            yield Finding(f"{name}: {error}", is_wrong=True)


def _tokens(settings: Settings) -> Finding:
    try:
        TokenVerifier(settings)
    except MissingKey as error:
        return Finding(str(error), is_wrong=True)
    return Finding(f"tokens: {settings.jwt_algorithm}, for the audience {settings.jwt_audience}")


def _database(url: str, patience_seconds: float) -> Iterator[Finding]:
    if problem := asyncio.run(connection_problem(url, patience_seconds=patience_seconds)):
        yield Finding(f"DATABASE_URL: {problem}", is_wrong=True)
        return
    try:
        health = asyncio.run(_read_health(url))
    except psycopg.Error as error:  # most likely a user without rights
        text = str(error).strip().partition("\n")[0]
        yield Finding(f"database: {text}: is it upgraded, and this its user?", is_wrong=True)
        return
    yield Finding(f"database: Postgres {health.postgres}, {_extension(health)}")
    if problem := schema_problem(health.migration):
        yield Finding(f"database: {problem}", is_wrong=True)
    else:
        yield Finding(f"schema: {_schema(health)}")


def _schema(health: Health) -> str:
    if health.migration == newest_revision():
        return f"{health.migration}, the newest"
    return f"{health.migration}, of a later version than this one"


def _extension(health: Health) -> str:
    if health.timescaledb:
        return f"TimescaleDB {health.timescaledb}"
    return "without TimescaleDB: long histories will be slower"


async def _read_health(url: str) -> Health:
    async with await AsyncConnection.connect(url, autocommit=True) as connection:
        return await read_health(connection)
