"""Commands that can't work say why in a line, with an exit code; a syncer's life."""

import asyncio
import os
import secrets
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import psycopg
import pytest
from support.command_line import is_setting, mdp
from support.http import HOST
from support.places import PROJECT
from support.sandbox import Sandbox
from support.services import opened_services

from db.upgrade import UpgradeError, newest_revision, upgrade
from mdp_core.settings import Settings
from scripts.demo.ports import free_port
from syncer.app import running_syncer

SERVICES = (["api", "--port", "1"], ["syncer"])
COMMANDS = (
    *SERVICES,
    ["repair", "binance", "perp", "BTC-USDT", "1h"],
    ["backfill", "binance", "perp", "BTC-USDT", "1h"],
    ["coverage"],
)
LATER = "9999"


def process(arguments: Sequence[str], environment: Mapping[str, str]) -> subprocess.Popen[str]:
    """Run the program as an operator does, with nothing but these settings."""
    inherited = {name: value for name, value in os.environ.items() if not is_setting(name)}
    return subprocess.Popen(  # noqa: S603 - our own program
        [sys.executable, "-m", "scripts.cli.entry", *arguments],
        cwd=PROJECT,
        env={**inherited, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def environment_of(database_url: str) -> dict[str, str]:
    return {"DATABASE_URL": database_url, "JWT_SECRET": secrets.token_hex(32)}


def revise(database_url: str, revision: str) -> None:
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute("UPDATE alembic_version SET version_num = %s", [revision])


def test_database_out_of_reach_is_said_in_a_line() -> None:
    """In the server's words, or the network's; no traceback."""
    nowhere = environment_of(f"postgresql://{HOST}:{free_port()}/mdp")
    for running in [process(command, nowhere) for command in (*SERVICES, ["coverage"])]:
        _, said = running.communicate(timeout=60)
        assert running.returncode == 1
        (line,) = said.splitlines()
        assert line.startswith("mdp: ")
        assert "connection" in line


def test_folder_that_can_not_be_used_is_said_in_a_line(tmp_path: Path) -> None:
    """A file, or a place where nothing can be made."""
    there = tmp_path / "file"
    there.touch()
    folders = [there, Path("/proc/mdp"), there / "below"]
    running = [process(["demo", "--data-dir", str(folder)], {}) for folder in folders]
    for entry, folder in zip(running, folders, strict=True):
        _, said = entry.communicate(timeout=60)
        (line,) = said.splitlines()
        assert (entry.returncode, line.split(" can't be used")[0]) == (1, f"mdp: {folder}")


def test_letters_that_the_output_lacks_are_escaped() -> None:
    """Symbols are in any script, and terminals are not."""
    settings = environment_of(f"postgresql://{HOST}:{free_port()}/mdp")
    printed, said = process(
        ["check"], {**settings, "MDP_币安": "1", "PYTHONIOENCODING": "latin-1"}
    ).communicate(timeout=60)

    assert r"WARN  MDP_\u5e01\u5b89: nothing reads it: is MDP_URL meant?" in printed
    assert said == ""


def test_missing_schema_is_said_with_the_command_that_makes_it(database_url: str) -> None:
    """A database without the schema."""
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute("DROP EXTENSION IF EXISTS timescaledb CASCADE")
        connection.execute("DROP SCHEMA public CASCADE")
        connection.execute("CREATE SCHEMA public")
    for command in COMMANDS:
        done = mdp(command, environment_of(database_url))
        assert done.exit_code == 1
        (line,) = done.stderr.splitlines()
        assert "mdp db upgrade" in line


def test_bad_settings_are_said_by_their_names() -> None:
    """Each in a line, those of an exchange too."""
    mistaken = {"MDP_BINANCE_SHARE": "80", "MDP_POOL_SIZE": "1"}
    for command in COMMANDS[:-1]:
        done = mdp(command, environment_of(f"postgresql://{HOST}/mdp") | mistaken)
        assert done.exit_code == 1
        assert [line.split(":")[1].strip() for line in done.stderr.splitlines()] == [*mistaken]


def test_only_the_api_needs_a_secret(database_url: str) -> None:
    """The syncer's container has none, and its configuration is right."""
    without = {"DATABASE_URL": database_url}

    assert mdp(["check", "syncer"], without).exit_code == 0
    assert mdp(["check", "api"], without).exit_code == 1
    assert "JWT_SECRET" in mdp(["api", "--port", str(free_port())], without).stderr


def test_bad_selection_stops_the_syncer_alone(database_url: str) -> None:
    """The API does nothing with it."""
    mistaken = environment_of(database_url) | {"MDP_HOT": "everything"}
    done = mdp(["syncer"], mistaken)

    assert done.exit_code == 1
    assert done.stderr.startswith("mdp: MDP_HOT: ")
    assert mdp(["check", "api"], mistaken).exit_code == 0


def test_older_schema_is_refused_and_a_later_one_is_not(database_url: str) -> None:
    """An upgrade begins with the database; services of the old version go on with it."""
    environment = environment_of(database_url)
    revise(database_url, "0001")
    older = mdp(["check"], environment)
    refused = mdp(["api", "--port", str(free_port())], environment)
    revise(database_url, LATER)
    later = mdp(["check"], environment)

    assert older.exit_code == refused.exit_code == 1
    assert f"its schema is 0001, not {newest_revision()}: run `mdp db upgrade`" in refused.stderr
    assert later.exit_code == 0
    assert f"schema: {LATER}, of a later version than this one" in later.stdout


def test_old_code_does_not_upgrade_what_is_newer(database_url: str) -> None:
    """It says so, and leaves the database alone."""
    revise(database_url, LATER)
    with pytest.raises(UpgradeError, match=LATER):
        upgrade(database_url)

    done = mdp(["db", "upgrade"], environment_of(database_url))
    assert done.exit_code == 1
    assert done.stderr.startswith("mdp: the database can't be upgraded: ")


async def test_syncer_of_this_host_lives_while_it_runs(
    settings: Settings, sandbox: Sandbox, database: psycopg.Connection
) -> None:
    """By its heartbeat: a syncer that hangs, has left, or is elsewhere doesn't count."""
    environment = {"DATABASE_URL": settings.database_url}
    before = await asyncio.to_thread(mdp, ["alive"], environment)
    async with opened_services(settings, sandbox) as services:
        async with running_syncer(services):
            during = await asyncio.to_thread(mdp, ["alive"], environment)
        after = await asyncio.to_thread(mdp, ["alive"], environment)
    database.execute("INSERT INTO syncers (name) VALUES ('elsewhere:1:abc')")
    elsewhere = await asyncio.to_thread(mdp, ["alive"], environment)
    own = f"{socket.gethostname()}:1:abc"
    database.execute(
        "INSERT INTO syncers (name, heartbeat_at) VALUES (%s, now() - interval '11 s')", [own]
    )
    silent = await asyncio.to_thread(mdp, ["alive"], environment)

    assert (during.exit_code, during.stdout.split()[1]) == (0, "lives")
    for dead in (before, after, elsewhere, silent):
        assert (dead.exit_code, dead.stdout) == (1, "")
        # The sandbox is of this process too: its lines may come before.
        assert dead.stderr.splitlines()[-1].startswith("no syncer of ")
