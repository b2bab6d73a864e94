"""Audit the locked dependencies: `python -m scripts.dev.audit`.

Fails where one is known. Where the vulnerability service can't be reached nothing is found, and
nothing is proved: then that is said, and `--strict` fails.
"""

import json
import subprocess
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

LOCK = Path(__file__).parents[2] / "requirements.lock"
_TIMEOUT_SECONDS = 120


def main(
    *, strict: Annotated[bool, typer.Option(help="Fail if nothing could be audited.")] = False
) -> None:
    """Audit what `requirements.lock` names."""
    found = audit(LOCK)
    if not found:
        typer.echo("audit: NOTHING WAS AUDITED, the vulnerability service can't be asked from here")
        raise typer.Exit(1 if strict else 0)
    vulnerable = {result["name"]: result["vulns"] for result in found if result["vulns"]}
    for name, vulnerabilities in vulnerable.items():
        typer.echo(
            f"audit: {name}: {', '.join(vulnerability['id'] for vulnerability in vulnerabilities)}"
        )
    typer.echo(f"audit: {len(vulnerable)} of {len(found)} packages have known vulnerabilities")
    raise typer.Exit(1 if vulnerable else 0)


def audit(lock: Path) -> list[dict[str, Any]]:
    """Return the known vulnerabilities of each package that can be looked up."""
    command = [sys.executable, "-m", "pip_audit", "--format", "json", "--progress-spinner", "off"]
    command += ["--disable-pip", "--no-deps", "--requirement", str(lock)]
    try:
        done = subprocess.run(  # noqa: S603 - our own arguments
            command, capture_output=True, text=True, timeout=_TIMEOUT_SECONDS, check=False
        )
        looked_up = json.loads(done.stdout)["dependencies"]
    except (subprocess.TimeoutExpired, json.JSONDecodeError):
        return []
    return [package for package in looked_up if "skip_reason" not in package]


if __name__ == "__main__":
    typer.run(main)
