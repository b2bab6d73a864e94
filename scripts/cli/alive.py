"""`mdp alive`: the health check of a syncer's container."""

import asyncio
import socket
from collections.abc import Sequence

import typer

from mdp_core.settings import DatabaseSettings
from mdp_core.storage.database.database import open_database
from mdp_core.storage.jobs.job_runs import SILENT_SECONDS, JobRuns, Syncer
from scripts.cli.options import clear_errors, command_app

_STATEMENT_SECONDS = 5.0

app = command_app()


@app.command()
def alive() -> None:
    """Say by its heartbeat whether a syncer of this host, or container, lives.

    The exit code is 0 if one does, else 1.
    """
    with clear_errors():
        settings = DatabaseSettings()  # pyright: ignore[reportCallIssue]
        syncers = asyncio.run(_syncers(settings))
    host = socket.gethostname()
    for syncer in syncers:
        if syncer.is_alive and syncer.name.startswith(f"{host}:"):
            typer.echo(f"{syncer.name} lives")
            return
    typer.echo(f"no syncer of {host} was heard of for {SILENT_SECONDS:.0f} s", err=True)
    raise typer.Exit(1)


async def _syncers(settings: DatabaseSettings) -> Sequence[Syncer]:
    async with open_database(
        settings.database_url,
        name="mdp-alive",
        size=1,
        statement_timeout_seconds=_STATEMENT_SECONDS,
        must_write=False,
    ) as database:
        return await JobRuns(database).syncers()
