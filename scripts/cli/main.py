"""The whole command line: every command, for help and for what is misspelled."""

import typer

from scripts.cli import (
    alive,
    api,
    backfill,
    check,
    coverage,
    database,
    demo,
    repair,
    run,
    sandbox,
    syncer,
    token,
    verify,
)
from scripts.cli.log_setup import configure_logging

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
app.add_typer(demo.app)
app.add_typer(run.app)
app.add_typer(api.app)
app.add_typer(syncer.app)
app.add_typer(sandbox.app)
app.add_typer(check.app)
app.add_typer(backfill.app)
app.add_typer(coverage.app)
app.add_typer(alive.app)
app.add_typer(repair.app)
app.add_typer(verify.app)
app.add_typer(database.app, name="db")
app.add_typer(token.app, name="token")


@app.callback()
def configure(context: typer.Context) -> None:
    """Historical candles of many exchanges through one API."""
    configure_logging(context.invoked_subcommand)
