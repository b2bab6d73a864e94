"""A database like the compose file's, and a `docker` for the pages' commands.

The image's pg_hba.conf trusts clients inside the container, for replication too, and lets others
in with a password, but to no replication. Here the inside is the socket, and TCP is the others.
"""

import contextlib
import json
import os
import re
import secrets
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Generator, Mapping
from dataclasses import dataclass
from pathlib import Path

import yaml

from db.local.account import give_to, run_as, server_account
from db.local.cluster import Cluster, ensure_cluster
from db.local.process import server_command
from db.local.programs import find_programs
from scripts.demo.stack import free_port
from support.backups import programs_of
from support.compose_programs import NEW, find_compose
from support.http import HOST
from support.places import PROJECT
from support.postgres import SERVER_SETTINGS, Server

_PASSWORDS = ("POSTGRES_PASSWORD", "MDP_SERVICE_PASSWORD", "MDP_ANALYST_PASSWORD", "JWT_SECRET")
_ACCESS = """\
local all all trust
local replication all trust
host all all all scram-sha-256
"""


@dataclass(frozen=True, slots=True)
class ComposeStand:
    """A place to run the pages' commands as if compose had started everything."""

    folder: Path
    port: int
    env: Mapping[str, str]
    """What `.env` says."""

    def url(self, user: str, password: str) -> str:
        """Return the database's URL for a client of another host."""
        return f"postgresql://{user}:{password}@{HOST}:{self.port}/mdp"

    @property
    def owner_url(self) -> str:
        """The same, for the owner."""
        return self.url("mdp_owner", self.env["POSTGRES_PASSWORD"])

    def run(self, commands: str, **more: str) -> str:
        """Run commands as an operator would; give what they print."""
        done = self.attempt(commands, **more)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def attempt(self, commands: str, **more: str) -> subprocess.CompletedProcess[str]:
        """Run commands that may fail."""
        stand = {"STAND_IN": str(self.folder / "stand.json"), "PATH": self._path}
        return subprocess.run(  # noqa: S603 - of a page of ours
            ["/bin/bash", "-euo", "pipefail", "-c", commands],
            cwd=self.folder,
            env={**stand, **more},
            capture_output=True,
            text=True,
            check=False,
        )

    @property
    def _path(self) -> str:
        return f"{self.folder / 'bin'}:{os.defpath}"


@contextlib.contextmanager
def compose_stand(server: Server, more: Mapping[str, str]) -> Generator[ComposeStand]:
    """Have a server like the image's, with the owner's empty database, in a context.

    Args:
        server: Of the kind of the image's: its programs are used.
        more: What `.env` says beside the passwords, e.g. where the exchanges are.
    """
    bin_dir, account = programs_of(server), server_account([])
    with tempfile.TemporaryDirectory(prefix="mdp-test-") as name:
        folder = Path(name)
        folder.chmod(0o755)
        programs = find_programs("timescaledb", None, account)
        (folder / "db").mkdir()
        cluster = ensure_cluster(folder / "db", account, programs, is_durable=False)
        (cluster.data / "pg_hba.conf").write_text(_ACCESS)
        (folder / "socket").mkdir()
        give_to(account, folder / "socket")
        env = {**{each: secrets.token_hex(32) for each in _PASSWORDS}, **more}
        stand = ComposeStand(folder, free_port(), env)
        control = _control(cluster, stand)
        _write(stand, cluster, bin_dir, control)
        _must(cluster, [*control, "start"])
        try:
            _prepare(stand, cluster)
            yield stand
        finally:
            run_as(account, [*control, "stop", "-m", "immediate"])


def _control(cluster: Cluster, stand: ComposeStand) -> list[str]:
    """Give the command that starts and stops the server."""
    _, _, _, *options = server_command(cluster, SERVER_SETTINGS, stand.port)
    options += ["-c", f"unix_socket_directories={stand.folder / 'socket'}"]
    log = cluster.home / "log"
    where = ["-D", str(cluster.data), "-l", str(log), "-o", shlex.join(options)]
    return [str(cluster.programs.bin_dir / "pg_ctl"), "-w", "-s", *where]


def _prepare(stand: ComposeStand, cluster: Cluster) -> None:
    """Set up a new server as the image does: owner, database, extension in both."""
    password = stand.env["POSTGRES_PASSWORD"]
    socket = f"host={stand.folder / 'socket'} port={stand.port}"
    for database, statement in [
        ("postgres", f"CREATE ROLE mdp_owner SUPERUSER LOGIN PASSWORD '{password}'"),
        ("postgres", "CREATE DATABASE mdp OWNER mdp_owner"),
        ("template1", "CREATE EXTENSION timescaledb"),
        ("mdp", "CREATE EXTENSION timescaledb"),
    ]:
        where = f"{socket} user=mdp dbname={database}"
        _must(cluster, [cluster.programs.bin_dir / "psql", where, "-qc", statement])


def _must(cluster: Cluster, command: list[str | Path] | list[str]) -> None:
    done = run_as(cluster.account, command, cwd=cluster.home)
    assert done.returncode == 0, done.stdout


def _write(stand: ComposeStand, cluster: Cluster, bin_dir: Path, control: list[str]) -> None:
    """Write the `docker` of this stand, and what it has to know."""
    account = cluster.account
    drop = (
        ["setpriv", f"--reuid={account.uid}", f"--regid={account.gid}", "--clear-groups"]
        if account
        else []
    )
    described = {
        **_of_compose(stand),
        "data": str(cluster.data),
        "socket": str(stand.folder / "socket"),
        "port": str(stand.port),
        "bin_dir": str(bin_dir),
        "account": f"{account.uid}:{account.gid}" if account else "",
        "control": [*drop, *control],
        "mdp": str(Path(sys.executable).parent / "mdp"),
    }
    (stand.folder / "stand.json").write_text(json.dumps(described))
    docker = stand.folder / "bin" / "docker"
    docker.parent.mkdir()
    program = PROJECT / "tests" / "support" / "stand_in_docker.py"
    docker.write_text(f'#!/bin/sh\nexec {sys.executable} {program} "$@"\n')
    docker.chmod(0o755)


def _of_compose(stand: ComposeStand) -> dict[str, object]:
    """Give what the compose file says of each service, with the local database URL."""
    (stand.folder / ".env").write_text("".join(f"{k}={v}\n" for k, v in stand.env.items()))
    files = [
        "--file",
        str(PROJECT / "docker-compose.yml"),
        "--env-file",
        str(stand.folder / ".env"),
    ]
    done = subprocess.run(  # noqa: S603 - a compose program, on our own file
        [*find_compose(NEW), *files, "config"],
        env={"PATH": os.defpath},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    text = done.stdout.replace("@postgres:5432/", f"@{HOST}:{stand.port}/")
    described = yaml.safe_load(text)
    services = {
        name: {
            "command": service.get("command") or [],
            "environment": {k: v for k, v in service["environment"].items() if v is not None},
        }
        for name, service in described["services"].items()
    }
    entrypoint = re.search(r'(?m)^ENTRYPOINT \["(\w+)"\]$', (PROJECT / "Dockerfile").read_text())
    assert entrypoint
    assert entrypoint.group(1) == "mdp"
    return {"services": services, "volume": described["volumes"]["postgres-data"]["name"]}
