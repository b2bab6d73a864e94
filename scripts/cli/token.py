"""`mdp token`: make a token, or revoke one."""

import asyncio
from datetime import timedelta
from typing import Annotated

import typer

from api.tokens import SCOPES, URL_SCOPE, MissingKey, issue_token
from mdp_core.settings import DatabaseSettings, TokenSettings
from mdp_core.storage.catalog.revocations import Revocations
from mdp_core.storage.database.database import open_database
from scripts.cli.options import clear_errors, command_app
from scripts.cli.ready_configuration import ready_configuration

app = command_app("Print a token made with JWT_SECRET, or revoke one.")

_STATEMENT_SECONDS = 10.0


@app.callback(invoke_without_command=True)
def token(
    context: typer.Context,
    subject: Annotated[str, typer.Option(help="Whose token it is.")] = "me",
    scope: Annotated[
        list[str] | None, typer.Option(help=f"May be repeated: {', '.join(SCOPES)}.")
    ] = None,
    hours: Annotated[float, typer.Option(min=0, help="How long it is good.")] = 24 * 30,
    *,
    show: Annotated[
        bool, typer.Option(help=f"A token of {URL_SCOPE}, with what programs are given.")
    ] = False,
) -> None:
    """Print a token made with JWT_SECRET, or revoke one.

    With --show the base URLs that it opens, and the configuration of ccxt, freqtrade and
    python-binance, follow on standard error.
    """
    if context.invoked_subcommand:
        return
    scopes = frozenset(scope or ([URL_SCOPE] if show else ["candles:read", "meta:read"]))
    if unknown := scopes.difference(SCOPES):
        message = f"unknown scope {min(unknown)!r}: one of {', '.join(SCOPES)}"
        raise typer.BadParameter(message)
    if show and scopes != frozenset({URL_SCOPE}):
        message = f"--show is for tokens of {URL_SCOPE} alone"
        raise typer.BadParameter(message)
    with clear_errors(MissingKey):
        made = issue_token(TokenSettings(), subject, scopes, timedelta(hours=hours))
    typer.echo(made)
    for line in ready_configuration(made) if show else ():
        typer.echo(line, err=True)


@app.command()
def revoke(
    jti: Annotated[str, typer.Argument(help="The token's `jti`, as the request log names it.")],
) -> None:
    """Have every API process refuse a token, within 10 s."""
    with clear_errors():
        settings = DatabaseSettings()  # pyright: ignore[reportCallIssue]
        is_new = asyncio.run(_revoke(settings.database_url, jti))
    typer.echo(f"{jti} is revoked" if is_new else f"{jti} was revoked before")


async def _revoke(url: str, jti: str) -> bool:
    opening = open_database(
        url, name="mdp-token", size=1, statement_timeout_seconds=_STATEMENT_SECONDS
    )
    async with opening as database:
        return await Revocations(database).revoke(jti)
