"""Shared by commands: options, times in the API's forms, errors in one line."""

import logging
from collections.abc import Generator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Annotated

import typer
from pydantic import ValidationError

from api.requests.times import parse_time
from mdp_core.domain.clock import Clock
from mdp_core.errors import (
    InvalidParameter,
    InvalidQuery,
    MdpError,
    UnknownExchange,
    UnknownMarketType,
    UnknownSymbol,
    UnsupportedInterval,
)
from mdp_core.settings import LogSettings, problems_of

_USAGE_ERROR = 2
# Longer than clients keep idle connections: else one is closed while a request is on its way.
KEEP_ALIVE_SECONDS = 75

BAD_INPUT = (
    InvalidQuery,
    UnknownExchange,
    UnknownMarketType,
    UnknownSymbol,
    UnsupportedInterval,
)
"""Errors of the arguments of a command, found out only by the core."""


def parse_cli_time(text: str) -> datetime:
    """Read a time in the API's forms.

    Raises:
        BadParameter: It is none.
    """
    try:
        return parse_time("time", text)
    except InvalidParameter as error:
        raise typer.BadParameter(str(error)) from error


@contextmanager
def clear_errors(*expected: type[Exception]) -> Generator[None]:
    """Turn errors of settings, core and `expected` kinds into one line on stderr."""
    try:
        yield
    except ValidationError as error:
        for problem in problems_of(error):
            typer.echo(problem, err=True)
        raise typer.Exit(_USAGE_ERROR) from error
    except (MdpError, *expected) as error:
        typer.echo(f"mdp: {error}", err=True)
        raise typer.Exit(1) from error


@contextmanager
def usage_errors() -> Generator[None]:
    """Tell in a line which argument is wrong.

    The exit code is that of a wrong usage.
    """
    try:
        yield
    except BAD_INPUT as error:
        typer.echo(f"mdp: {error}", err=True)
        raise typer.Exit(_USAGE_ERROR) from error


def hush(logs: LogSettings) -> None:
    """Leave the screen to the command.

    Lines for each page are for those who asked for a level.
    """
    if "log_level" not in logs.model_fields_set:
        logging.getLogger("mdp_core").setLevel(logging.WARNING)


Time = Annotated[
    datetime | None,
    typer.Option(parser=parse_cli_time, help="ISO-8601 or epoch ms.", metavar="TIME"),
]
Now = Annotated[
    datetime | None,
    typer.Option(
        parser=parse_cli_time, help="Start the clocks here: ISO-8601 or epoch ms.", metavar="TIME"
    ),
]
Speed = Annotated[float, typer.Option(min=0.001, help="How fast the clocks run.")]
Port = Annotated[int, typer.Option(min=1, max=65535, help="On the loopback interface.")]
Host = Annotated[str, typer.Option(help="The interface to listen on.")]
Workers = Annotated[int, typer.Option(min=1, help="Processes that serve the port together.")]
DataDir = Annotated[Path, typer.Option(help="Where everything is kept.")]
SandboxData = Annotated[
    Path | None,
    typer.Option(exists=True, file_okay=False, help="Folder of candles that the sandbox replays."),
]


def set_clock(now: datetime | None, speed: float) -> Clock:
    """Return a clock that stands at `now` (None: the real time) and runs at `speed`."""
    real = Clock()
    return real if now is None and speed == 1.0 else Clock.starting_at(now or real(), speed)


def command_app(about: str | None = None) -> typer.Typer:
    """Return the application of one command, which runs alone or within `mdp`."""
    return typer.Typer(help=about, pretty_exceptions_enable=False, add_completion=False)
