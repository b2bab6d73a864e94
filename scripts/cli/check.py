"""Check whether a service could start with this environment, a line per problem."""

import asyncio
import os
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from itertools import chain
from typing import Annotated

import psycopg
import typer
from psycopg import AsyncConnection
from pydantic import ValidationError

from api.tokens import MissingKey, TokenVerifier
from db.connecting import in_a_line, session_conninfo
from db.upgrade import newest_revision, schema_problem
from mdp_core.errors import InvalidParameter
from mdp_core.exchanges.network import proxy_problem
from mdp_core.settings import ExchangeSettings, Settings, problems_of
from mdp_core.storage.database.diagnostics import Health, read_health
from mdp_core.storage.database.reaching import connection_problem
from mdp_core.storage.database.replica import Identity, read_identity
from mdp_core.wiring import installed_adapters
from scripts.cli.environment import unread_variables
from scripts.cli.options import command_app
from syncer.configured import read_hot, read_keep

# A service that starts may be earlier than its database.
_PATIENCE_SECONDS = 10.0

app = command_app()


class CheckedService(StrEnum):
    """A service; other programs that fill the store need what the syncer needs."""

    API = "api"
    SYNCER = "syncer"


class Verdict(StrEnum):
    """Fine, something to look at, or something that has to be mended."""

    OK = "ok"
    WARN = "WARN"
    WRONG = "WRONG"


@dataclass(frozen=True, slots=True)
class CheckFinding:
    """One thing that was looked at."""

    text: str
    verdict: Verdict = Verdict.OK

    @property
    def is_wrong(self) -> bool:
        """True where the service can't start with it."""
        return self.verdict is Verdict.WRONG


@app.command()
def check(
    service: Annotated[
        CheckedService | None, typer.Argument(help="Only what this one needs.")
    ] = None,
) -> None:
    """Say whether services could start with this environment, and why not."""
    is_wrong = False
    for finding in chain(findings(service), remarks()):
        is_wrong |= finding.is_wrong
        typer.echo(f"{finding.verdict:<5} {finding.text}")
    if is_wrong:
        raise typer.Exit(1)


def require(service: CheckedService) -> None:
    """Exit with a line on stderr for each problem, unless the service can start."""
    found = findings(service, patience_seconds=_PATIENCE_SECONDS)
    if wrong := [finding.text for finding in found if finding.is_wrong]:
        for text in wrong:
            typer.echo(f"mdp: {text}", err=True)
        raise typer.Exit(1)


def findings(
    service: CheckedService | None = None, *, patience_seconds: float = 0.0
) -> Iterator[CheckFinding]:
    """Look at the settings, then at the keys and the database that they name.

    Args:
        service: Who would start; None for all of them.
        patience_seconds: How long the database may take to answer.
    """
    addresses = {name: kind.facts.base_url for (name, _), kind in installed_adapters().items()}
    for exchange, address in sorted(addresses.items()):
        yield from _exchange(exchange, address)
    try:
        settings = Settings()  # pyright: ignore[reportCallIssue]
    except ValidationError as error:
        yield from map(_wrong, problems_of(error))
        return
    yield CheckFinding("settings: can be read")
    if service is not CheckedService.API:
        yield from _selections(settings)
    if service is not CheckedService.SYNCER:
        yield _tokens(settings)
    yield from _database(_conninfo(settings.database_url, settings), patience_seconds)


def remarks() -> Iterator[CheckFinding]:
    """Return remarks on settings that a service starts without, perhaps by mistake.

    Variables that no program reads, and the replica: one that is away may come back, one of another
    database has to be mended. Where the settings can't be read there is nothing to say of it.
    """
    for name, resembled in unread_variables(os.environ).items():
        hint = f": is {resembled} meant?" if resembled else ""
        yield CheckFinding(f"{name}: nothing reads it{hint}", Verdict.WARN)
    try:
        settings = Settings()  # pyright: ignore[reportCallIssue]
    except ValidationError:
        return
    if settings.database_read_url:
        primary, replica = settings.database_url, settings.database_read_url
        yield asyncio.run(_replica(_conninfo(primary, settings), _conninfo(replica, settings)))


def _wrong(text: str) -> CheckFinding:
    return CheckFinding(text, Verdict.WRONG)


def _conninfo(url: str, settings: Settings) -> str:
    timeout_seconds = settings.statement_timeout_seconds
    return session_conninfo(url, name="mdp-check", statement_timeout_seconds=timeout_seconds)


def _exchange(exchange: str, address: str) -> Iterator[CheckFinding]:
    try:
        own = ExchangeSettings.from_environment(exchange)
    except ValidationError as error:
        for problem in problems_of(error, f"MDP_{exchange.upper()}_"):
            yield _wrong(problem)
        return
    if problem := proxy_problem(own.url or address):
        yield _wrong(f"{exchange}: {problem}")
        return
    yield CheckFinding(
        f"{exchange}: {own.share:.0%} of its limit, at {own.url or 'its own address'}"
    )


def _selections(settings: Settings) -> Iterator[CheckFinding]:
    markets = [kind.facts for kind in installed_adapters().values()]
    for read, text in ((read_hot, settings.hot), (read_keep, settings.keep)):
        try:
            read(text, markets)
        except InvalidParameter as error:
            yield _wrong(str(error))


def _tokens(settings: Settings) -> CheckFinding:
    try:
        TokenVerifier(settings)
    except MissingKey as error:
        return _wrong(str(error))
    return CheckFinding(
        f"tokens: {settings.jwt_algorithm}, for the audience {settings.jwt_audience}"
    )


def _database(conninfo: str, patience_seconds: float) -> Iterator[CheckFinding]:
    if problem := asyncio.run(connection_problem(conninfo, patience_seconds=patience_seconds)):
        yield _wrong(f"DATABASE_URL: {problem}")
        return
    try:
        health = asyncio.run(_read_health(conninfo))
    except psycopg.Error as error:  # most likely a user without rights
        yield _wrong(f"database: {in_a_line(error)}: is it upgraded, and this its user?")
        return
    yield CheckFinding(f"database: Postgres {health.postgres}, {_extension(health)}")
    if problem := schema_problem(health.migration):
        yield _wrong(f"database: {problem}")
    else:
        yield CheckFinding(f"schema: {_schema(health)}")


def _schema(health: Health) -> str:
    if health.migration == newest_revision():
        return f"{health.migration}, the newest"
    return f"{health.migration}, of a later version than this one"


def _extension(health: Health) -> str:
    if health.timescaledb:
        return f"TimescaleDB {health.timescaledb}"
    return "without TimescaleDB: long histories will be slower"


async def _replica(primary: str, replica: str) -> CheckFinding:
    if problem := await connection_problem(replica, must_write=False):
        return CheckFinding(f"DATABASE_READ_URL: {problem}: the primary is read", Verdict.WARN)
    try:
        there, here = await _identity(replica), await _identity(primary)
    except psycopg.Error as error:
        return CheckFinding(f"DATABASE_READ_URL: is it a replica? {in_a_line(error)}", Verdict.WARN)
    if not there.may_answer_for(here):
        text = "names no replica of DATABASE_URL, or one that was promoted: it is not read"
        return _wrong(f"DATABASE_READ_URL: {text}")
    return CheckFinding(
        f"replica: {'follows the primary' if there.is_in_recovery else 'the primary'}"
    )


async def _identity(conninfo: str) -> Identity:
    async with await AsyncConnection.connect(conninfo, autocommit=True) as connection:
        return await read_identity(connection)


async def _read_health(conninfo: str) -> Health:
    async with await AsyncConnection.connect(conninfo, autocommit=True) as connection:
        return await read_health(connection)
