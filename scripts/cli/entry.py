"""The program `mdp`: finds the command, and loads no more than it takes.

Serving, sandbox, scheduling and migrations take a second or two to load together.
"""

import importlib
import sys

_ALL = "scripts.cli.main"
_MODULES = {"db": "database"}
_COMMANDS = frozenset(
    [
        "alive",
        "api",
        "backfill",
        "check",
        "coverage",
        "db",
        "demo",
        "repair",
        "run",
        "sandbox",
        "syncer",
        "token",
        "verify",
    ]
)


def print_everything() -> None:
    """Escape letters that the output's encoding lacks, as stderr does."""
    if reconfigure := getattr(sys.stdout, "reconfigure", None):
        reconfigure(errors="backslashreplace")


def main() -> None:
    """Run the command line."""
    print_everything()
    command = sys.argv[1] if len(sys.argv) > 1 else ""
    if command not in _COMMANDS:
        importlib.import_module(_ALL).app()
        return
    # Alone it would take the command's name for an argument.
    sys.argv = [f"{sys.argv[0]} {command}", *sys.argv[2:]]
    importlib.import_module("scripts.cli.log_setup").configure_logging(command)
    importlib.import_module(f"scripts.cli.{_MODULES.get(command, command)}").app()


if __name__ == "__main__":
    main()
