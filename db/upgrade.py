"""Brings a database to the newest schema, and tells which one that is."""

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import cast

import psycopg
from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory
from alembic.util import CommandError
from psycopg.rows import TupleRow
from sqlalchemy import Connection, create_engine, pool, text
from sqlalchemy.exc import DBAPIError

from db.columnstore import ensure_columnstore
from db.connecting import READ_SERVER_STATE, ServerState, in_a_line, session_conninfo
from db.roles import ensure_roles

_MIGRATIONS = Path(__file__).parent / "migrations"
# The upgrade holds this lock: services that start together upgrade once.
_LOCK = text("SELECT pg_advisory_xact_lock(hashtext('mdp.upgrade'))")
# The store has another number than ever before, and one that every JSON parser reads exactly.
_RENUMBER = text("""
UPDATE store SET id = mod(id + 1 + floor(random() * (2 ^ 48 - 1))::bigint, (2 ^ 48)::bigint)
""")


class UpgradeError(Exception):
    """The database can't be had, or its user may not do that."""


def upgrade(
    url: str,
    passwords: Mapping[str, str] = MappingProxyType({}),
    *,
    is_restored: bool = False,
) -> None:
    """Upgrade the database at a `postgresql://` URL to the newest schema.

    Then, in the same transaction, give it what depends on the server and may change without a
    migration: the columnstore and the roles.

    Args:
        url: Of the user who owns the tables, or will.
        passwords: Of the roles (`db.roles`) that may log in.
        is_restored: Whether the data come from a backup: no version of what was stored since it was
            made may be met again, so the store gets another number.

    Raises:
        UpgradeError: The server says no, or nothing; the database is as it was.
    """
    try:
        conninfo = session_conninfo(url, name="mdp-upgrade")
    except ValueError as error:
        message = f"DATABASE_URL {error}"
        raise UpgradeError(message) from error
    engine = create_engine(
        "postgresql+psycopg://", creator=lambda: _connect(conninfo), poolclass=pool.NullPool
    )
    try:
        with engine.begin() as connection:
            _upgrade(connection, passwords)
            if is_restored:
                connection.execute(_RENUMBER)
    except (DBAPIError, psycopg.Error) as error:
        message = f"the database can't be upgraded: {in_a_line(error.__cause__ or error)}"
        raise UpgradeError(message) from error
    except CommandError as error:
        message = f"the database can't be upgraded: {error}; is it a later version's?"
        raise UpgradeError(message) from error


def _connect(conninfo: str) -> psycopg.Connection[TupleRow]:
    connection = psycopg.connect(conninfo)
    row = connection.execute(READ_SERVER_STATE).fetchone()
    assert row, "a select without from has one row"  # noqa: S101 - for the type checker
    if problem := ServerState(*row).problem():
        connection.close()
        message = f"the database can't be upgraded: {problem}"
        raise UpgradeError(message)
    connection.rollback()
    return connection


def _upgrade(connection: Connection, passwords: Mapping[str, str]) -> None:
    connection.execute(_LOCK)
    config = alembic_config()
    config.attributes["connection"] = connection
    command.upgrade(config, "head")
    driver = cast("psycopg.Connection[TupleRow]", connection.connection.driver_connection)
    ensure_columnstore(driver)
    ensure_roles(driver, passwords)


@cache
def newest_revision() -> str:
    """Give the revision that the code expects."""
    head = ScriptDirectory.from_config(alembic_config()).get_current_head()
    assert head, "there is at least one migration"  # noqa: S101 - for the type checker
    return head


def schema_problem(revision: str | None) -> str | None:
    """Say why this code can't work with a schema, and what to do; None if it can.

    A revision that it does not know is of a later version: an upgrade begins with the database,
    and leaves to the version before it what that one uses, so that services can follow in turn.
    """
    expected = newest_revision()
    if revision == expected or (revision is not None and revision not in _known_revisions()):
        return None
    return f"its schema is {revision or 'none'}, not {expected}: run `mdp db upgrade`"


@cache
def _known_revisions() -> frozenset[str]:
    script = ScriptDirectory.from_config(alembic_config())
    return frozenset(revision.revision for revision in script.walk_revisions())


def alembic_config() -> Config:
    """Return the configuration under which Alembic runs the migrations."""
    config = Config()
    config.set_main_option("script_location", str(_MIGRATIONS).replace("%", "%%"))
    return config
