"""`mdp sandbox`: a local stand-in for the exchanges."""

from enum import StrEnum
from typing import Annotated

import typer
import uvicorn

from mdp_core.domain.clock import Clock
from scripts.cli.options import (
    KEEP_ALIVE_SECONDS,
    Host,
    Now,
    Port,
    SandboxData,
    Speed,
    command_app,
    set_clock,
)
from scripts.sandbox.app import SandboxOptions, create_sandbox

app = command_app()


class Switch(StrEnum):
    """On or off."""

    ON = "on"
    OFF = "off"


def _clock(text: str) -> Clock:
    try:
        return Clock.parse(text)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error


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
        clock=clock or set_clock(now, speed),
        data=data,
        latency_ms=latency,
        limits=limits is Switch.ON,
    )
    uvicorn.run(
        create_sandbox(options),
        host=host,
        port=port,
        log_level="warning",
        timeout_keep_alive=KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=1,
    )
