"""Backups as docs/backup.md describes them: taken, the database dropped, brought back, compared."""

import os
import subprocess
import sys
from pathlib import Path

import httpx
import psycopg
from backups import base_backup, documented_commands, programs_of, running
from conftest import Sandbox, Server, serving
from psycopg import sql

from db.schema import metadata
from mdp_core.settings import Settings

_ASKED = {
    "/candles/binance/perp/BTC-USDT/1d": {"start": "2023-01-01", "end": "2024-01-01"},
    "/candles/coinbase/spot/BTC-USD/1h": {"start": "2024-05-01", "end": "2024-05-08"},
}


async def test_dump_brings_everything_back(
    settings: Settings, sandbox: Sandbox, server: Server, tmp_path: Path
) -> None:
    """The same rows in every table, coverage among them; what was asked for is a hit again."""
    url = settings.database_url
    dump, restore = documented_commands("One database: pg_dump")
    if not server.has_timescaledb:
        restore = _without_timescaledb(restore)
    before = await _fill(settings, sandbox)
    content = _content(url)
    _run(server, dump, tmp_path, url)
    _recreate(server, url)
    _run(server, restore, tmp_path, url)

    assert content["candles"]
    assert content["series"]
    assert _content(url) == content
    await _assert_all_hits(settings, sandbox, before)


async def test_base_backup_brings_everything_back(
    settings: Settings, sandbox: Sandbox, server: Server
) -> None:
    """A server that runs on the files of the backup has what the first one had at the time."""
    url = settings.database_url
    before = await _fill(settings, sandbox)
    content = _content(url)
    (backup,) = documented_commands("The whole server: pg_basebackup")
    with base_backup(server, backup) as cluster:
        _recreate(server, url)
        with running(cluster, server) as second:
            assert content["candles"]
            assert _content(second.url(url)) == content
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


def _content(url: str) -> dict[str, list[str]]:
    """Give every row of every table of ours, as text."""
    with psycopg.connect(url) as connection:
        connection.execute("SET timezone = 'UTC'")
        return {
            table.name: [
                row[0]
                for row in connection.execute(
                    sql.SQL("SELECT t::text FROM {} AS t ORDER BY 1").format(
                        sql.Identifier(table.name)
                    )
                )
            ]
            for table in metadata.sorted_tables
        }


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
