"""The rights of each role, and upgrades by users who may not make roles."""

import logging
import secrets
from collections.abc import Generator
from contextlib import contextmanager

import psycopg
import pytest
from psycopg import errors
from pydantic import SecretStr
from support.postgres import fresh_database, url_as
from support.sandbox import Sandbox
from support.services import serving

from db.roles import ANALYST, SERVICE
from db.upgrade import UpgradeError, upgrade
from mdp_core.settings import Settings

pytestmark = pytest.mark.every_kind_of_database

_FAR_APART = {"start": "2023-01-01", "end": "2024-01-01"}
_CANDLES = "/candles/binance/perp/BTC-USDT/1d"
_NOBODYS = ("CREATE TEMP TABLE mine (n int)", "SELECT lo_create(0)", "SELECT lo_from_bytea(0, 'x')")
_ONLY_READ = f"ALTER ROLE {ANALYST} SET default_transaction_read_only = on"
_INSERT_CANDLE = "INSERT INTO candles VALUES (1, now(), 1, 1, 1, 1, 1)"


@contextmanager
def _on_the_server(url: str, before: str, after: str) -> Generator[None]:
    """Change what belongs to the whole server, and change it back."""
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(before.encode())
        try:
            yield
        finally:
            connection.execute(after.encode())


async def test_services_fill_and_serve_as_their_role(
    logins: dict[str, str], sandbox: Sandbox, database: psycopg.Connection
) -> None:
    """The catalog, budgets, coverage, candles of a year: new chunks are made for them."""
    settings = Settings(database_url=logins[SERVICE], jwt_secret=SecretStr(secrets.token_hex(32)))
    async with serving(settings, sandbox) as client:
        miss = await client.get(_CANDLES, params=_FAR_APART)
        hit = await client.get(_CANDLES, params=_FAR_APART)
        health = await client.get("/health")

    assert (miss.status_code, miss.json()["count"]) == (200, 365)
    assert (hit.status_code, hit.headers["X-Cache"]) == (200, "hit")
    assert health.status_code == 200
    stored = database.execute("SELECT count(*) FROM candles").fetchone()
    assert stored
    assert stored[0] >= 365
    with psycopg.connect(logins[ANALYST]) as connection:  # chunks that the services' role has made
        assert connection.execute("SELECT count(*) FROM candles").fetchone() == stored
        assert connection.execute("SELECT count(*) FROM candle_rows").fetchone() == stored


@pytest.mark.parametrize(
    "statement",
    [
        "CREATE TABLE mine (n int)",
        "ALTER TABLE candles ADD COLUMN surprise int",
        "DROP TABLE rejected_rows",
        "TRUNCATE candles",
        "UPDATE alembic_version SET version_num = '0'",
        *_NOBODYS,
    ],
)
def test_services_cannot_change_the_schema(logins: dict[str, str], statement: str) -> None:
    """Their role reads and writes rows, nothing else."""
    with (
        psycopg.connect(logins[SERVICE]) as connection,
        pytest.raises(errors.InsufficientPrivilege),
    ):
        connection.execute(statement.encode())


@pytest.mark.parametrize(
    "statement",
    [
        _INSERT_CANDLE,
        "UPDATE candles SET open = 0",
        "DELETE FROM candle_rows",
        "CREATE TABLE mine (n int)",
        "SELECT * FROM rate_budgets",
        *_NOBODYS,
    ],
)
def test_analysts_cannot_write_nor_read_what_is_not_theirs(
    logins: dict[str, str], statement: str
) -> None:
    """Not even through the view, nor in a transaction that they let write."""
    with psycopg.connect(logins[ANALYST]) as connection:
        connection.read_only = False
        with pytest.raises(errors.Error) as refused:
            connection.execute(statement.encode())

    assert isinstance(
        refused.value, errors.InsufficientPrivilege | errors.ObjectNotInPrerequisiteState
    )


def test_analysts_read_candles_by_name(
    logins: dict[str, str], database: psycopg.Connection
) -> None:
    """The view shows names; coverage tells an absent candle from an unknown one."""
    database.execute(
        "INSERT INTO exchanges VALUES ('x', 'X');"
        "INSERT INTO symbols (exchange, market_type, name, native, base, quote, multiplier, active)"
        " VALUES ('x', 'spot', 'A-B', 'AB', 'A', 'B', 1, true);"
        "INSERT INTO series (symbol_id, interval) SELECT id, '1d' FROM symbols;"
        "INSERT INTO candles SELECT id, '2024-05-01Z', 1, 2, 0.5, 1.5, 10 FROM series"
    )
    with psycopg.connect(logins[ANALYST]) as connection:
        row = connection.execute("SELECT exchange, symbol, interval, close FROM candle_rows")
        coverage = connection.execute("SELECT coverage FROM series").fetchall()

        assert row.fetchall() == [("x", "A-B", "1d", 1.5)]
        assert len(coverage) == 1


def test_analysts_sessions_only_read_and_end(logins: dict[str, str]) -> None:
    """A slip writes nothing, and a query that was forgotten holds nothing for ever."""
    with psycopg.connect(logins[ANALYST]) as connection:
        settings = connection.execute(
            "SELECT current_setting('transaction_read_only'), current_setting('statement_timeout')"
        ).fetchone()

    assert settings == ("on", "5min")


def test_what_an_administrator_set_for_analysts_is_left(
    database_url: str, logins: dict[str, str]
) -> None:
    """An upgrade sets what is not set, nothing else."""
    alter = f"ALTER ROLE {ANALYST} SET statement_timeout = '{{}}'".format
    with _on_the_server(database_url, alter("1h"), alter("5min")):
        upgrade(database_url)
        with psycopg.connect(logins[ANALYST]) as connection:
            found = connection.execute("SHOW statement_timeout").fetchone()

    assert found == ("1h",)


def test_upgrade_with_every_right_asks_for_nothing(
    database_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    """The log names the statements that an administrator must run."""
    with caplog.at_level(logging.WARNING, "db.roles"):
        upgrade(database_url)

    assert [record.getMessage() for record in caplog.records if record.name == "db.roles"] == []


def test_who_may_not_make_roles_upgrades_all_the_same(
    database_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    """An administrator's statements are logged; the next upgrade grants the rights."""
    user, password = f"owner_{secrets.token_hex(4)}", secrets.token_hex(16)
    hidden = f"hidden_{secrets.token_hex(4)}"
    made = f"CREATE ROLE {user} LOGIN PASSWORD '{password}'"
    with (
        _on_the_server(database_url, made, f"DROP ROLE {user}"),
        fresh_database(database_url, owner=user) as url,
        caplog.at_level(logging.WARNING, "db.roles"),
    ):
        own_url = url_as(url, user, password)
        rename = "ALTER ROLE {} RENAME TO {}".format
        with (
            _on_the_server(url, rename(SERVICE, hidden), rename(hidden, SERVICE)),
            _on_the_server(url, f"ALTER ROLE {ANALYST} RESET ALL", _ONLY_READ),
        ):
            upgrade(own_url, {ANALYST: secrets.token_hex(16)})
        told = [record.getMessage() for record in caplog.records]
        with psycopg.connect(url, autocommit=True) as connection:
            before = _may_insert(connection)
            upgrade(own_url)
            after = _may_insert(connection)

    assert not any("SCRAM" in line for line in told)
    assert any(f"CREATE ROLE {SERVICE}" in line for line in told)
    assert any(f"ALTER ROLE {ANALYST} LOGIN" in line for line in told)
    assert any("SET default_transaction_read_only" in line for line in told)
    assert any("SET statement_timeout" in line for line in told)
    assert any("REVOKE EXECUTE ON FUNCTION lo_creat(" in line for line in told)
    assert not any("REVOKE TEMPORARY" in line for line in told)  # the database is its own
    assert (before, after) == (False, True)


def test_what_had_no_effect_is_told_to_an_administrator(
    database_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    """A right on the database that the upgrader can't revoke: the server only warns."""
    user, password = f"owner_{secrets.token_hex(4)}", secrets.token_hex(16)
    made = f"CREATE ROLE {user} LOGIN PASSWORD '{password}'"
    with (
        _on_the_server(database_url, made, f"DROP ROLE {user}"),
        fresh_database(database_url) as url,
        caplog.at_level(logging.WARNING, "db.roles"),
    ):
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute(f"GRANT CREATE ON SCHEMA public TO {user}".encode())
            (name,) = connection.execute("SELECT current_database()").fetchone() or ("",)
            connection.execute(f"GRANT CREATE ON DATABASE {name} TO {user}".encode())
        upgrade(url_as(url, user, password))
    told = [record.getMessage() for record in caplog.records]

    assert any("REVOKE TEMPORARY ON DATABASE" in line for line in told)
    assert any("GRANT CONNECT ON DATABASE" in line for line in told)


def test_no_password_reaches_a_log(
    database_url: str, caplog: pytest.LogCaptureFixture, database: psycopg.Connection
) -> None:
    """Neither ours, where setting it is refused, nor the server's: it gets a verifier."""
    password = secrets.token_hex(16)
    with caplog.at_level(logging.DEBUG):
        upgrade(database_url, {ANALYST: password})
    stored = database.execute(
        "SELECT rolpassword FROM pg_authid WHERE rolname = %s", [ANALYST]
    ).fetchone()
    database.execute(f"ALTER ROLE {ANALYST} NOLOGIN".encode())

    assert stored
    assert stored[0].startswith("SCRAM-SHA-256$")
    assert password not in caplog.text


def test_upgrade_says_what_the_server_says(database_url: str) -> None:
    """A role that doesn't exist is told in a line, not in a stack of frames."""
    with pytest.raises(UpgradeError, match="nobody_of_that_name"):
        upgrade(url_as(database_url, "nobody_of_that_name", "none"))


def _may_insert(connection: psycopg.Connection) -> bool:
    query = "SELECT has_table_privilege(%s, 'candles', 'INSERT')"
    row = connection.execute(query, [SERVICE]).fetchone()
    return bool(row and row[0])
