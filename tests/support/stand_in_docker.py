"""Run as a program: `docker` for the pages' commands, where no engine is.

What compose would run in a container is run here, with the environment that the compose file gives
it. What is not known here ends with an error: the pages use nothing else.
"""

import argparse
import json
import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

_DATA = "/var/lib/postgresql/data"  # of the image


def main() -> int:
    """Do what the command line says; the file that `STAND_IN` names says where."""
    stand = json.loads(Path(os.environ["STAND_IN"]).read_text())
    return _compose(stand, sys.argv[2:]) if sys.argv[1] == "compose" else _engine(stand, sys.argv)


def _compose(stand: Mapping[str, Any], words: Sequence[str]) -> int:
    match words:
        case ["exec", "-T", "postgres", *command]:
            return _in_database(stand, command)
        case ["run", *rest]:
            return _run(stand, rest)
        case ["stop", *services] if set(services) <= set(stand["services"]):
            return 0  # of the services nothing runs here
        case ["down"]:
            return _control(stand, "stop")
        case ["up", "--detach"]:
            return _up(stand)
        case _:
            return _unknown(words)


def _engine(stand: Mapping[str, Any], words: Sequence[str]) -> int:
    if words[1:] != ["volume", "rm", stand["volume"]]:
        return _unknown(words)
    shutil.rmtree(stand["data"])
    return 0


def _unknown(words: Sequence[str]) -> int:
    sys.stderr.write(f"the stand-in for docker does not know: {shlex.join(words)}\n")
    return 64


def _in_database(stand: Mapping[str, Any], command: Sequence[str]) -> int:
    """Run a command as in the database's container, with its socket and programs."""
    given = {"PGHOST": stand["socket"], "PGPORT": stand["port"], "PGDATA": stand["data"]}
    path = f"{stand['bin_dir']}:{os.defpath}"
    return _call([word.replace(_DATA, stand["data"]) for word in command], {**given, "PATH": path})


def _run(stand: Mapping[str, Any], words: Sequence[str]) -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rm", action="store_true", required=True)
    parser.add_argument("-T", action="store_true")
    parser.add_argument("--entrypoint")
    parser.add_argument("service")
    parser.add_argument("command", nargs=argparse.REMAINDER)
    asked = parser.parse_args(words)
    if asked.service == "postgres":
        Path(stand["data"]).mkdir(mode=0o700)  # an engine makes the volume that is not there
        return _in_database(stand, [asked.entrypoint, *asked.command])
    if problem := _start(stand):
        return problem
    service = stand["services"][asked.service]
    return _call([stand["mdp"], *(asked.command or service["command"])], service["environment"])


def _up(stand: Mapping[str, Any]) -> int:
    """Start what the compose file starts: the database, then `migrate`."""
    return _run(stand, ["--rm", "migrate"])


def _start(stand: Mapping[str, Any]) -> int:
    """Start the database as the image does, which gives its account what it finds."""
    if _control(stand, "status") == 0:
        return 0
    if stand["account"]:
        _call(["chown", "-R", stand["account"], stand["data"]], dict(os.environ))
    return _control(stand, "start")


def _control(stand: Mapping[str, Any], what: str) -> int:
    environment = {"PATH": os.defpath, "LC_ALL": "C"}
    command = [*stand["control"], what]
    return subprocess.run(command, env=environment, check=False, stdout=sys.stderr).returncode  # noqa: S603 - of the tests


def _call(command: Sequence[str], environment: Mapping[str, str]) -> int:
    return subprocess.run(command, env=environment, check=False).returncode  # noqa: S603 - of the pages


if __name__ == "__main__":
    sys.exit(main())
