"""Databases with habits of their own: worked with, or refused in one line.

`mdp check`, the services and upgrades say the same, for they connect in the same way.
"""

import asyncio
import secrets
from collections.abc import Mapping

import psycopg
import pytest
from psycopg import sql
from pydantic import SecretStr
from support.command_line import mdp
from support.http import HOST
from support.pooler import running_pooler
from support.postgres import Server, fresh_database
from support.sandbox import Sandbox
from support.services import serving

from db.upgrade import UpgradeError, upgrade
from mdp_core.settings import Settings
from scripts.demo.ports import free_port

_PATH = "/candles/binance/perp/BTC-USDT/1h?start=2024-05-01&limit=10"
_PASSWORD = "hunter2-of-the-database"  # noqa: S105 - of the tests


def _environment(url: str) -> Mapping[str, str]:
    return {"DATABASE_URL": url, "JWT_SECRET": secrets.token_hex(32)}


def _settings(url: str) -> Settings:
    return Settings(database_url=url, jwt_secret=SecretStr(secrets.token_hex(32)))


def _set(url: str, **defaults: str) -> None:
    """Give a database defaults for the sessions to come."""
    with psycopg.connect(url, autocommit=True) as connection:
        name = sql.Identifier(connection.info.dbname)
        for setting, value in defaults.items():
            alter = sql.SQL("ALTER DATABASE {} SET {} = {}")
            connection.execute(alter.format(name, sql.Identifier(setting), sql.Literal(value)))


def _refusal(url: str) -> str:
    """Return the line by which check and a service refuse a database; the same."""
    checked, started = (
        mdp(words, _environment(url)) for words in (["check", "syncer"], ["syncer"])
    )
    assert checked.exit_code == started.exit_code == 1
    (line,) = started.stderr.splitlines()
    text = line.removeprefix("mdp: ")
    assert f"WRONG {text}\n" in checked.stdout
    return text


async def _assert_serves(url: str, sandbox: Sandbox) -> None:
    async with serving(_settings(url), sandbox) as client:
        caches = []
        for _ in range(2):
            answer = await client.get(_PATH)
            assert answer.json().get("count") == 10, answer.text
            caches.append(answer.headers["X-Cache"])
        assert caches == ["miss", "hit"]
        assert (await client.get("/health")).json()["database"]["reachable"]


async def test_defaults_of_a_database_change_nothing(database_url: str, sandbox: Sandbox) -> None:
    """The connection sets what the services rely on."""
    _set(
        database_url,
        DateStyle="SQL, DMY",
        TimeZone="Asia/Tokyo",
        IntervalStyle="iso_8601",
        client_encoding="LATIN1",
        default_transaction_isolation="serializable",
    )
    await asyncio.to_thread(upgrade, database_url)

    await _assert_serves(database_url, sandbox)


async def test_options_of_the_url_are_added_to(server: Server, sandbox: Sandbox) -> None:
    """Upgrade and services work in the schema that the URL names."""
    with fresh_database(server.url) as url:
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute("CREATE SCHEMA market")
        there = f"{url}?options=-csearch_path%3Dmarket"
        await asyncio.to_thread(upgrade, there)
        await _assert_serves(there, sandbox)
        with psycopg.connect(url) as connection:
            query = "SELECT DISTINCT schemaname FROM pg_tables WHERE tablename = 'candles'"
            schemas = connection.execute(query).fetchall()

    assert schemas == [("market",)]


async def test_first_of_several_hosts_may_be_away(database_url: str, sandbox: Sandbox) -> None:
    """The one that can be written to is found by upgrade, check and services."""
    several = database_url.replace(f"@{HOST}:", f"@{HOST}:{free_port()},{HOST}:")
    several += "?target_session_attrs=read-write"
    await asyncio.to_thread(upgrade, several)

    assert (await asyncio.to_thread(mdp, ["check"], _environment(several))).exit_code == 0
    await _assert_serves(several, sandbox)


@pytest.mark.parametrize("encoding", ["LATIN1", "SQL_ASCII"])
def test_encoding_that_lacks_letters_is_refused(server: Server, encoding: str) -> None:
    """Names of symbols are in any script."""
    name = f"test_{secrets.token_hex(6)}"
    admin = f"{server.url.rpartition('/')[0]}/postgres"
    make = sql.SQL("CREATE DATABASE {} ENCODING {} TEMPLATE template0 LOCALE 'C'")
    with psycopg.connect(admin, autocommit=True) as connection:
        connection.execute(make.format(sql.Identifier(name), sql.Literal(encoding)))
        try:
            url = f"{server.url.rpartition('/')[0]}/{name}"
            assert f"the database's encoding {encoding} can't hold" in _refusal(url)
            with pytest.raises(UpgradeError, match=encoding):
                upgrade(url)
        finally:
            drop = sql.SQL("DROP DATABASE {} WITH (FORCE)")
            connection.execute(drop.format(sql.Identifier(name)))


def test_database_that_only_reads_is_refused_by_what_writes(database_url: str) -> None:
    """Commands that only read work with it."""
    _set(database_url, default_transaction_read_only="on")

    assert "the database only reads" in _refusal(database_url)
    with pytest.raises(UpgradeError, match="only reads"):
        upgrade(database_url)
    assert mdp(["coverage"], _environment(database_url)).exit_code == 0
    assert mdp(["db", "status"], _environment(database_url)).exit_code == 0


@pytest.mark.parametrize(
    ("mode", "settings", "text"),
    [
        ("transaction", ["ignore_startup_parameters = options"], "each transaction another"),
        ("session", ["ignore_startup_parameters = options"], "drops the settings"),
        ("transaction", [], "unsupported startup parameter"),
    ],
)
def test_pooler_that_parts_sessions_is_refused(
    database_url: str, mode: str, settings: list[str], text: str
) -> None:
    """Locks and settings belong to sessions: they would be lost one at a time, later."""
    with running_pooler(database_url, mode, *settings) as url:
        refused = _refusal(url)
        with pytest.raises(UpgradeError, match="name the server itself"):
            upgrade(url)

    assert text in refused
    assert "name the server itself" in refused


def test_url_that_is_none_is_refused_without_repeating_it(database_url: str) -> None:
    """A password with a bare percent sign makes it none."""
    url = f"{database_url}?password={_PASSWORD}%"

    assert "is no URL of a database" in _refusal(url)
    assert _PASSWORD not in _refusal(url)
    with pytest.raises(UpgradeError, match="is no URL"):
        upgrade(url)
