"""The command line inside the process of the tests."""

import os
from collections.abc import Mapping, Sequence

from typer.testing import CliRunner, Result

from scripts.cli import main as cli


def mdp(arguments: Sequence[str], environment: Mapping[str, str]) -> Result:
    """Run a command with these settings and none of the tests' own."""
    others = {name: None for name in os.environ if is_setting(name)}
    return CliRunner().invoke(cli.app, [*arguments], env={**others, **environment})


def is_setting(name: str) -> bool:
    """Tell whether a variable is a setting of the services."""
    return name.startswith(("MDP_", "JWT_", "DATABASE_"))
