"""Tries programs of others, in a virtual environment of their own, on a demo."""

import subprocess
import sys
import tempfile
from datetime import timedelta
from pathlib import Path

from pydantic import SecretStr

from api.tokens import URL_SCOPE, issue_token
from mdp_core.settings import TokenSettings
from scripts.demo.ports import free_port
from scripts.demo.stack import SandboxRequest, open_stack

_PROBE = Path(__file__).with_name("bots_probe.py")


def main(python: str) -> int:
    """Run the probe with the interpreter of the other environment."""
    with (
        tempfile.TemporaryDirectory(prefix="mdp-bots-") as name,
        open_stack(_opened(name), free_port(), SandboxRequest()) as (stack, _),
    ):
        tokens = TokenSettings(jwt_secret=SecretStr(stack.env["JWT_SECRET"]))
        token = issue_token(tokens, "trial", frozenset({URL_SCOPE}), timedelta(hours=1))
        bases = [f"{stack.url}/dialect/{token}", str(stack.sandbox_url)]
        return subprocess.run([python, _PROBE, *bases], check=False).returncode  # noqa: S603


def _opened(name: str) -> Path:
    """Open a folder to the user that the database of root runs as."""
    folder = Path(name)
    folder.chmod(0o755)
    return folder


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
