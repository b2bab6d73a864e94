"""The program `mdp`: finds the commands, and loads no more of them than it takes.

What is there, and who lives, are quick questions; serving, sandbox and scheduling take seconds to
load.
"""

import importlib
import sys

_ALL = "scripts.cli.main"
_QUICK = {"alive": "scripts.cli.alive", "coverage": "scripts.cli.coverage"}


def print_everything() -> None:
    """Escape letters that the output's encoding lacks, as stderr does."""
    if reconfigure := getattr(sys.stdout, "reconfigure", None):
        reconfigure(errors="backslashreplace")


def main() -> None:
    """Run the command line."""
    print_everything()
    command = sys.argv[1] if len(sys.argv) > 1 else ""
    if command in _QUICK:
        # Alone it would take the command's name for an argument.
        sys.argv = [f"{sys.argv[0]} {command}", *sys.argv[2:]]
    importlib.import_module(_QUICK.get(command, _ALL)).main()


if __name__ == "__main__":
    main()
