"""Options that commands share: times in the API's forms, errors in one line."""

import logging
from collections.abc import Generator
from contextlib import contextmanager
from datetime import datetime
from typing import Annotated

import typer
from pydantic import ValidationError

from api.requests.times import parse_time
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
