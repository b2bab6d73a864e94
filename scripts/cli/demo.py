"""`mdp demo`: the whole service on one machine, against the sandbox."""

from pathlib import Path

from scripts.cli.options import (
    DataDir,
    Now,
    Port,
    SandboxData,
    Speed,
    clear_errors,
    command_app,
    set_clock,
)
from scripts.demo.stack import STACK_ERRORS, SandboxRequest, serve

app = command_app()


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
    with clear_errors(*STACK_ERRORS):
        serve(data_dir, port, SandboxRequest(data, set_clock(now, speed)))
