"""Whether a service could start with this environment; if not, what is wrong, in a line each."""

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass

from pydantic import ValidationError

from api.auth import MissingKey, TokenVerifier
from db.upgrade import newest_revision
from mdp_core.database import open_database
from mdp_core.health import Health, connection_problem, read_health
from mdp_core.settings import ExchangeSettings, Settings, problems_of
from mdp_core.wiring import installed_adapters


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at; `is_wrong` if no service should start like this."""

    text: str
    is_wrong: bool = False


def findings() -> Iterator[Finding]:
    """Look at the settings, then at the keys and the database that they name."""
    for exchange in sorted({exchange for exchange, _ in installed_adapters()}):
        yield from _exchange(exchange)
    try:
        settings = Settings()  # pyright: ignore[reportCallIssue]
    except ValidationError as error:
        yield from (Finding(problem, is_wrong=True) for problem in problems_of(error))
        return
    yield Finding("settings: can be read")
    yield _tokens(settings)
    yield from _database(settings)


def _exchange(exchange: str) -> Iterator[Finding]:
    try:
        own = ExchangeSettings.from_environment(exchange)
    except ValidationError as error:
        for problem in problems_of(error, f"MDP_{exchange.upper()}_"):
            yield Finding(problem, is_wrong=True)
        return
    yield Finding(f"{exchange}: {own.share:.0%} of its limit, at {own.url or 'its own address'}")


def _tokens(settings: Settings) -> Finding:
    try:
        TokenVerifier(settings)
    except MissingKey as error:
        return Finding(str(error), is_wrong=True)
    return Finding(f"tokens: {settings.jwt_algorithm}, for the audience {settings.jwt_audience}")


def _database(settings: Settings) -> Iterator[Finding]:
    if problem := asyncio.run(connection_problem(settings.database_url)):
        yield Finding(f"DATABASE_URL: {problem}", is_wrong=True)
        return
    health = asyncio.run(_read_health(settings))
    yield Finding(f"database: Postgres {health.postgres}, {_extension(health)}")
    expected = newest_revision()
    if health.migration != expected:
        text = f"database: its schema is {health.migration or 'none'}, not {expected}"
        yield Finding(f"{text}: run `mdp db upgrade`", is_wrong=True)
    else:
        yield Finding(f"schema: {expected}, the newest")


def _extension(health: Health) -> str:
    if health.timescaledb:
        return f"TimescaleDB {health.timescaledb}"
    return "without TimescaleDB: long histories will be slower"


async def _read_health(settings: Settings) -> Health:
    async with open_database(
        settings.database_url,
        name="mdp-check",
        size=1,
        statement_timeout_seconds=settings.statement_timeout_seconds,
    ) as database:
        return await read_health(database)
