"""Backups as docs/backup.md describes: taken, dropped, restored, compared."""

import os
import subprocess
import sys
from pathlib import Path

import httpx
import psycopg
import pytest
from psycopg import sql
from support.backups import (
    base_backup,
    content_of,
    documented_commands,
    programs_of,
    running,
    store_number,
)
from support.postgres import Server
from support.sandbox import Sandbox
from support.services import serving

from mdp_core.settings import Settings

pytestmark = pytest.mark.every_kind_of_database

_EXTENSION = 'psql "$DATABASE_URL" --command="CREATE EXTENSION timescaledb"'
_ASKED = {
    "/candles/binance/perp/BTC-USDT/1d": {"start": "2023-01-01", "end": "2024-01-01"},
    "/candles/coinbase/spot/BTC-USD/1h": {"start": "2024-05-01", "end": "2024-05-08"},
}


@pytest.mark.parametrize("has_extension", [False, True], ids=["empty", "of a full template"])
async def test_dump_brings_everything_back(
    settings: Settings,
    sandbox: Sandbox,
    server: Server,
    tmp_path: Path,
    *,
    has_extension: bool,
) -> None:
    """The same rows in every table, coverage too; a stored window is a hit again.

    A new database has the extension where template1 has it, as that of the image.
    """
    if has_extension and not server.has_timescaledb:
        pytest.skip("plain Postgres has no extension that could be there already")
    url = settings.database_url
    dump, restore = documented_commands("One database: pg_dump")
    if not server.has_timescaledb:
        restore = _without_timescaledb(restore)
    before = await _fill(settings, sandbox)
    content, number = content_of(url), store_number(url)
    _run(server, dump, tmp_path, url)
    _recreate(server, url)
    if has_extension:
        _run(server, _EXTENSION, tmp_path, url)
    _run(server, restore, tmp_path, url)

    assert content["candles"]
    assert content["series"]
    assert content_of(url) == content
    assert store_number(url) != number
    await _assert_all_hits(settings, sandbox, before)


async def test_base_backup_brings_everything_back(
    settings: Settings, sandbox: Sandbox, server: Server, tmp_path: Path
) -> None:
    """A server on the backup's files has the rows of the first one at the time."""
    url = settings.database_url
    before = await _fill(settings, sandbox)
    content, number = content_of(url), store_number(url)
    backup, renumber = documented_commands("The whole server: pg_basebackup")
    with base_backup(server, backup) as cluster:
        _recreate(server, url)
        with running(cluster, server) as second:
            assert content["candles"]
            _run(server, renumber, tmp_path, second.url(url))
            assert content_of(second.url(url)) == content
            assert store_number(second.url(url)) != number
            elsewhere = settings.model_copy(update={"database_url": second.url(url)})
            await _assert_all_hits(elsewhere, sandbox, before)


async def _fill(settings: Settings, sandbox: Sandbox) -> list[httpx.Response]:
    async with serving(settings, sandbox) as client:
        answers = [await client.get(path, params=asked) for path, asked in _ASKED.items()]
    assert [answer.status_code for answer in answers] == [200] * len(_ASKED)
    return answers


async def _assert_all_hits(
    settings: Settings, sandbox: Sandbox, before: list[httpx.Response]
) -> None:
    async with serving(settings, sandbox) as client:
        again = [await client.get(path, params=asked) for path, asked in _ASKED.items()]

    assert [answer.headers["X-Cache"] for answer in again] == ["hit"] * len(_ASKED)
    assert [answer.content for answer in again] == [answer.content for answer in before]


def _recreate(server: Server, url: str) -> None:
    """Drop a database with all that is in it, and make an empty one of that name."""
    name = sql.Identifier(url.rpartition("/")[2])
    with psycopg.connect(f"{server.url.rpartition('/')[0]}/postgres", autocommit=True) as admin:
        admin.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(name))
        admin.execute(sql.SQL("CREATE DATABASE {}").format(name))


def _without_timescaledb(commands: str) -> str:
    return "\n".join(line for line in commands.splitlines() if "timescaledb" not in line)


def _run(server: Server, commands: str, folder: Path, url: str) -> None:
    """Run commands as an operator would, with the programs of the server's version."""
    programs = f"{programs_of(server)}:{Path(sys.executable).parent}:{os.environ['PATH']}"
    done = subprocess.run(  # noqa: S603 - of a page of ours
        ["/bin/sh", "-euxc", commands],
        cwd=folder,
        env={**os.environ, "PATH": programs, "DATABASE_URL": url},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
