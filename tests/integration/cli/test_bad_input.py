"""Senseless arguments to `mdp verify` and `mdp repair`, as processes of their own."""

import asyncio
import os
import subprocess
import sys

import pytest
from support.command_line import is_setting
from support.places import PROJECT
from support.processes import environment_of
from support.sandbox import Sandbox

from mdp_core.settings import Settings

_FORGOTTEN = ("--start", "2023-05-01", "--end", "2023-05-02")
_SENSELESS = {
    "NOPE": ("binance", "perp", "NOPE-USDT", "1h"),
    "2024-05-02": (
        *("binance", "perp", "BTC-USDT", "1h"),
        *("--start", "2024-05-02", "--end", "2024-05-01"),
    ),
    "no longer has": ("hyperliquid", "perp", "BTC-USDC", "1m", *_FORGOTTEN),
}


@pytest.mark.parametrize("command", ["verify", "repair"])
async def test_senseless_arguments_are_one_line_and_exit_code_2(
    command: str, settings: Settings, sandbox: Sandbox
) -> None:
    """An unknown symbol, a reversed window, one that the exchange has forgotten."""
    environment = environment_of(settings, sandbox)
    done = await asyncio.gather(
        *(
            asyncio.to_thread(_mdp, environment, command, *arguments)
            for arguments in _SENSELESS.values()
        )
    )

    for named, outcome in zip(_SENSELESS, done, strict=True):
        assert (outcome.returncode, outcome.stdout) == (2, ""), outcome
        (line,) = outcome.stderr.splitlines()
        assert line.startswith("mdp: "), line
        assert named in line


def _mdp(environment: dict[str, str], *arguments: str) -> subprocess.CompletedProcess[str]:
    others = {name: text for name, text in os.environ.items() if not is_setting(name)}
    return subprocess.run(  # noqa: S603 - our own program
        [sys.executable, "-m", "scripts.cli.entry", *arguments],
        cwd=PROJECT,
        env={**others, **environment},
        capture_output=True,
        text=True,
        check=False,
    )
