"""`mdp run`: the whole service on one machine, against the live exchanges."""

from pathlib import Path

from scripts.cli.options import DataDir, Port, clear_errors, command_app
from scripts.demo.stack import STACK_ERRORS, serve

app = command_app()


@app.command()
def run(port: Port = 8000, data_dir: DataDir = Path(".mdp")) -> None:
    """Serve the live exchanges, from a local database or that of DATABASE_URL."""
    with clear_errors(*STACK_ERRORS):
        serve(data_dir, port, None)
