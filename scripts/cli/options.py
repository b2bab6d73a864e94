"""Options that commands share: times in the API's forms, errors in one line."""

from collections.abc import Generator
from contextlib import contextmanager
from datetime import datetime

import typer
from pydantic import ValidationError

from api.requests.times import parse_time
from mdp_core.errors import InvalidParameter, MdpError
from mdp_core.settings import problems_of

_USAGE_ERROR = 2


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
