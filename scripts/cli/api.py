"""`mdp api`: serve the API as the environment says."""

import math

import uvicorn

from mdp_core.settings import Settings
from scripts.cli.check import CheckedService, require
from scripts.cli.log_setup import log_settings
from scripts.cli.options import KEEP_ALIVE_SECONDS, Host, Port, Workers, command_app

# A worker that has not answered for so long is replaced; on a busy machine it begins slowly.
_WORKER_SECONDS = 60

app = command_app()


@app.command()
def api(
    port: Port = 8000,
    host: Host = "127.0.0.1",
    workers: Workers = 1,
) -> None:
    """Serve the API as the environment says (see .env.example)."""
    require(CheckedService.API)
    settings = Settings()  # pyright: ignore[reportCallIssue]
    uvicorn.run(
        "api.app:create_app",
        factory=True,
        host=host,
        port=port,
        workers=workers,
        access_log=False,  # a line of our own says more
        log_config=log_settings(settings),
        timeout_keep_alive=KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=math.ceil(settings.request_deadline_seconds),
        timeout_worker_healthcheck=_WORKER_SECONDS,
    )
