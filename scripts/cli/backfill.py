"""The command `mdp backfill`."""

import asyncio
from typing import Annotated

import typer

from mdp_core.domain.patterns import split_names
from mdp_core.series.selection import Selection
from mdp_core.settings import LogSettings, Settings
from scripts.cli.backfill_display import choose_display
from scripts.cli.backfill_run import BackfillRequest, backfill
from scripts.cli.check import CheckedService, require
from scripts.cli.options import Time, clear_errors, command_app, hush

app = command_app()


@app.command("backfill")
def backfill_command(  # noqa: PLR0913, PLR0917 - each is an argument or an option
    exchange: str,
    market: Annotated[str, typer.Argument(help="perp or spot")],
    symbols: Annotated[str, typer.Argument(help="Comma-separated; globs, * for all active.")],
    intervals: Annotated[str, typer.Argument(help="Comma-separated, e.g. 1m,1h")],
    start: Time = None,
    end: Time = None,
    *,
    dry_run: Annotated[bool, typer.Option(help="Only tell what it would take.")] = False,
    newest_first: Annotated[bool, typer.Option(help="From the end back.")] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="For machines: a JSON object per line.")
    ] = False,
) -> None:
    """Fetch what is missing of many series; run it again and only the rest is fetched.

    Without --start from where each history begins, or from where the exchange still has it; without
    --end until now. The exit code is 0 if everything asked for was got, else 1.
    """
    for what, names in (("symbols", symbols), ("intervals", intervals)):
        if not split_names(names):
            message = f"no {what}: name some, separated by commas"
            raise typer.BadParameter(message)
    selection = Selection(exchange, market, split_names(symbols), split_names(intervals))
    request = BackfillRequest(selection, start, end, dry_run, newest_first)
    display = choose_display(as_json=as_json)
    require(CheckedService.SYNCER)
    with clear_errors():
        hush(LogSettings())
        settings = Settings()  # pyright: ignore[reportCallIssue]
        got_all = asyncio.run(backfill(settings, request, display))
    raise typer.Exit(0 if got_all else 1)
