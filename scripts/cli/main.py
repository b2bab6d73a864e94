"""The command line, `mdp`: each command parses, and makes one call."""

import asyncio
import logging.config
import math
import sys
from datetime import datetime
from enum import StrEnum
from itertools import chain
from pathlib import Path
from typing import Annotated, Any

import typer
import uvicorn
from pydantic import ValidationError

from api.auth import MissingKey
from db.local.errors import LocalDatabaseError
from db.roles import ANALYST, SERVICE
from db.upgrade import UpgradeError, newest_revision, upgrade
from mdp_core.domain.clock import Clock
from mdp_core.logs import log_config
from mdp_core.settings import (
    DatabaseSettings,
    LogSettings,
    Settings,
    UpgradeSettings,
)
from scripts.cli import alive, coverage, repair, token, verify
from scripts.cli import backfill as backfill_command
from scripts.cli.check import CheckedService, findings, remarks, require
from scripts.cli.db_status import report
from scripts.cli.entry import print_everything
from scripts.cli.options import clear_errors, parse_cli_time
from scripts.demo.stack import SandboxRequest, StackError, serve
from scripts.sandbox.app import SandboxOptions, create_sandbox
from syncer.app import serve_syncer

# What is the user's or the machine's to mend, besides what the core says.
_EXPECTED = (MissingKey, StackError, LocalDatabaseError, UpgradeError)

_log = logging.getLogger(__name__)

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
database = typer.Typer(help="The database schema.", no_args_is_help=True)
app.add_typer(database, name="db")
app.add_typer(backfill_command.app)
app.add_typer(coverage.app)
app.add_typer(alive.app)
app.add_typer(repair.app)
app.add_typer(verify.app)
app.add_typer(token.app, name="token")


@app.callback()
def configure(context: typer.Context) -> None:
    """Historical candles of many exchanges through one API."""
    with clear_errors(*_EXPECTED):
        try:
            settings = LogSettings()
        except ValidationError:
            if context.invoked_subcommand not in _TELL_ALL:
                raise
            settings = LogSettings.model_construct()  # the command tells it with what else is wrong
        logging.config.dictConfig(_logging(settings))


# Commands that begin with telling all that is wrong, a line each.
_TELL_ALL = ("check", "api", "syncer", "repair", "verify", "backfill")
# Longer than clients keep idle connections: else one is closed while a request is on its way.
_KEEP_ALIVE_SECONDS = 75
# A worker that has not answered for so long is replaced; on a busy machine it begins slowly.
_WORKER_SECONDS = 60


class Switch(StrEnum):
    """On or off."""

    ON = "on"
    OFF = "off"


def _clock(text: str) -> Clock:
    try:
        return Clock.parse(text)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error


Port = Annotated[int, typer.Option(min=1, max=65535, help="On the loopback interface.")]
Host = Annotated[str, typer.Option(help="The interface to listen on.")]
DataDir = Annotated[Path, typer.Option(help="Where everything is kept.")]
Now = Annotated[
    datetime | None,
    typer.Option(
        parser=parse_cli_time, help="Start the clocks here: ISO-8601 or epoch ms.", metavar="TIME"
    ),
]
Time = Annotated[
    datetime | None,
    typer.Option(parser=parse_cli_time, help="ISO-8601 or epoch ms.", metavar="TIME"),
]
Workers = Annotated[int, typer.Option(min=1, help="Processes that serve the port together.")]
Speed = Annotated[float, typer.Option(min=0.001, help="How fast the clocks run.")]
SandboxData = Annotated[
    Path | None,
    typer.Option(exists=True, file_okay=False, help="Folder of candles that the sandbox replays."),
]


@app.command()
def demo(
    port: Port = 8000,
    data_dir: DataDir = Path(".demo"),
    sandbox_data: SandboxData = None,
    now: Now = None,
    speed: Speed = 1.0,
) -> None:
    """Serve from a local database and a sandbox of the exchanges. No network."""
    data = sandbox_data.resolve() if sandbox_data else None
    with clear_errors(*_EXPECTED):
        serve(data_dir, port, SandboxRequest(data, _set_clock(now, speed)))


@app.command()
def run(port: Port = 8000, data_dir: DataDir = Path(".mdp")) -> None:
    """Serve the live exchanges, from a local database or that of DATABASE_URL."""
    with clear_errors(*_EXPECTED):
        serve(data_dir, port, None)


@app.command()
def api(
    port: Port = 8000,
    host: Host = "127.0.0.1",
    workers: Workers = 1,
) -> None:
    """Serve the API as the environment says (see .env.example)."""
    require(CheckedService.API)
    settings = Settings()  # pyright: ignore[reportCallIssue]
    uvicorn.run(
        "api.app:create_app",
        factory=True,
        host=host,
        port=port,
        workers=workers,
        access_log=False,  # a line of our own says more
        log_config=_logging(settings),
        timeout_keep_alive=_KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=math.ceil(settings.request_deadline_seconds),
        timeout_worker_healthcheck=_WORKER_SECONDS,
    )


@app.command()
def syncer() -> None:
    """Refresh symbols, keep hot series warm and work on fill jobs, until SIGTERM."""
    require(CheckedService.SYNCER)
    with clear_errors(*_EXPECTED):
        asyncio.run(serve_syncer(Settings()))  # pyright: ignore[reportCallIssue]


@app.command()
def sandbox(  # noqa: PLR0913, PLR0917 - each is an option
    port: Port = 8900,
    host: Host = "127.0.0.1",
    data: SandboxData = None,
    now: Now = None,
    speed: Speed = 1.0,
    clock: Annotated[
        Clock | None,
        typer.Option(parser=_clock, help="Instead of --now and --speed.", metavar="CLOCK"),
    ] = None,
    latency: Annotated[float, typer.Option(min=0, help="Milliseconds before each answer.")] = 0,
    limits: Annotated[Switch, typer.Option(help="Whether rate limits bite.")] = Switch.ON,
) -> None:
    """Serve a local stand-in for the exchanges' REST interfaces."""
    options = SandboxOptions(
        clock=clock or _set_clock(now, speed),
        data=data,
        latency_ms=latency,
        limits=limits is Switch.ON,
    )
    uvicorn.run(
        create_sandbox(options),
        host=host,
        port=port,
        log_level="warning",
        timeout_keep_alive=_KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=1,
    )


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


@database.command("upgrade")
def upgrade_database(
    *,
    restored: Annotated[
        bool, typer.Option(help="After a restore: versions of the time since the backup end.")
    ] = False,
) -> None:
    """Upgrade the database of DATABASE_URL to the newest schema; make its roles.

    MDP_SERVICE_PASSWORD and MDP_ANALYST_PASSWORD let the roles mdp_service and mdp_analyst log in.
    """
    with clear_errors(*_EXPECTED):
        settings = UpgradeSettings()  # pyright: ignore[reportCallIssue]
        given = {SERVICE: settings.service_password, ANALYST: settings.analyst_password}
        passwords = {role: it.get_secret_value() for role, it in given.items() if it}
        upgrade(settings.database_url, passwords, is_restored=restored)
    _log.info("the database is upgraded", extra={"schema": newest_revision()})


@database.command("status")
def show_database_status() -> None:
    """Say what the database of DATABASE_URL is, holds, and how big it is."""
    with clear_errors(*_EXPECTED):
        settings = DatabaseSettings()  # pyright: ignore[reportCallIssue]
        typer.echo(asyncio.run(report(settings)))


def _set_clock(now: datetime | None, speed: float) -> Clock:
    real = Clock()
    return real if now is None and speed == 1.0 else Clock.starting_at(now or real(), speed)


def main() -> None:
    """Run the command line."""
    print_everything()
    app()


def _logging(settings: LogSettings) -> dict[str, Any]:
    return log_config(settings.log_level, settings.log_format, is_terminal=sys.stderr.isatty())


if __name__ == "__main__":
    main()
