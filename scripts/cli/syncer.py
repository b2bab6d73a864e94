"""`mdp syncer`: what goes on without a caller."""

import asyncio

from mdp_core.settings import Settings
from scripts.cli.check import CheckedService, require
from scripts.cli.options import clear_errors, command_app
from syncer.app import serve_syncer

app = command_app()


@app.command()
def syncer() -> None:
    """Refresh symbols, keep hot series warm and work on fill jobs, until SIGTERM."""
    require(CheckedService.SYNCER)
    with clear_errors():
        asyncio.run(serve_syncer(Settings()))  # pyright: ignore[reportCallIssue]
