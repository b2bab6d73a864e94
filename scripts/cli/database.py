"""`mdp db`: upgrade the schema, and tell the database's server, contents and size."""

import asyncio
import logging
from collections.abc import Iterator
from typing import Annotated

import typer

from db.roles import ANALYST, SERVICE
from db.upgrade import UpgradeError, newest_revision, schema_problem, upgrade
from mdp_core.settings import DatabaseSettings, UpgradeSettings
from mdp_core.storage.database.database import open_database
from mdp_core.storage.database.diagnostics import Chunk, Status, read_status
from scripts.cli.options import clear_errors, command_app

_log = logging.getLogger(__name__)

_NO_TIMEOUT = 0.0
_MIB = 1024 * 1024

app = command_app("The database schema.")


@app.command("upgrade")
def upgrade_database(
    *,
    restored: Annotated[
        bool, typer.Option(help="After a restore: versions of the time since the backup end.")
    ] = False,
) -> None:
    """Upgrade the database of DATABASE_URL to the newest schema; make its roles.

    MDP_SERVICE_PASSWORD and MDP_ANALYST_PASSWORD let the roles mdp_service and mdp_analyst log in.
    """
    with clear_errors(UpgradeError):
        settings = UpgradeSettings()  # pyright: ignore[reportCallIssue]
        given = {SERVICE: settings.service_password, ANALYST: settings.analyst_password}
        passwords = {role: it.get_secret_value() for role, it in given.items() if it}
        upgrade(settings.database_url, passwords, is_restored=restored)
    _log.info("the database is upgraded", extra={"schema": newest_revision()})


@app.command("status")
def show_database_status() -> None:
    """Say what the database of DATABASE_URL is, holds, and how big it is."""
    with clear_errors(UpgradeError):
        settings = DatabaseSettings()  # pyright: ignore[reportCallIssue]
        typer.echo(asyncio.run(report(settings)))


async def report(settings: DatabaseSettings) -> str:
    """Ask the database that the settings name; give what it says as text.

    Raises:
        StoreUnavailable: It does not answer.
    """
    async with open_database(
        settings.database_url,
        name="mdp status",
        size=1,
        statement_timeout_seconds=_NO_TIMEOUT,
        must_write=False,
    ) as database:
        return "\n".join(_lines(await read_status(database)))


def _lines(status: Status) -> Iterator[str]:
    yield f"server    PostgreSQL {status.postgres}, {_extension(status)}"
    yield f"schema    {_schema(status)}"
    yield f"roles     {', '.join(_role(*role) for role in status.logins.items()) or 'none'}"
    yield f"size      {status.size_bytes / _MIB:,.1f} MiB"
    candles = sum(chunk.candles for chunk in status.chunks)
    size = sum(chunk.size_bytes for chunk in status.chunks)
    yield f"candles   {candles:,} in {size / _MIB:,.1f} MiB{_each(size, candles)}"
    if status.chunks:
        yield ""
        yield f"{'from':<12}{'to':<12}{'candles':>15}{'MiB':>12}{'bytes each':>12}  stored in"
        yield from map(_row, status.chunks)


def _extension(status: Status) -> str:
    if status.timescaledb is None:
        return "without TimescaleDB"
    edition = "columnstore" if status.license == "timescale" else "no columnstore"
    return f"TimescaleDB {status.timescaledb}, license {status.license} ({edition})"


def _schema(status: Status) -> str:
    if status.revision == status.newest_revision:
        return f"{status.revision}, the newest"
    if schema_problem(status.revision):
        return f"{status.revision or 'none'}, not {status.newest_revision}: run `mdp db upgrade`"
    return f"{status.revision}, of a later version than this one"


def _role(name: str, can_login: bool) -> str:  # noqa: FBT001 - of a dictionary's item
    return f"{name} ({'may' if can_login else 'may not'} log in)"


def _each(size_bytes: int, candles: int) -> str:
    return f", {size_bytes / candles:.1f} bytes each" if candles else ""


def _row(chunk: Chunk) -> str:
    where = "columns" if chunk.is_in_columns else "rows"
    return (
        f"{chunk.start:%Y-%m-%d}  {chunk.end:%Y-%m-%d}  {chunk.candles:>15,}"
        f"{chunk.size_bytes / _MIB:>12,.1f}{chunk.size_bytes / chunk.candles:>12.1f}  {where}"
    )
