"""The roles of the services and of analysts, and what each of them may do.

Roles belong to the server, not to a database, and may come and go without a migration: so this is
no migration, but is made sure of after the migrations, each time. The owner of the tables is
the user who upgrades. Where that user may not make roles, an administrator has to, and is told how.
"""

import logging
from collections.abc import Mapping, Sequence
from typing import LiteralString

from psycopg import Connection, errors, sql
from psycopg.rows import TupleRow

from db.schema import metadata

SERVICE = "mdp_service"
ANALYST = "mdp_analyst"
ROLES = (SERVICE, ANALYST)

_log = logging.getLogger(__name__)

_OF_ANALYSTS = ("candle_rows", "candles", "exchanges", "series", "supported_intervals", "symbols")

# Which of these roles does the server have?
_EXISTING: LiteralString = "SELECT rolname FROM pg_roles WHERE rolname = ANY(%s)"

# Where are the tables?
_PLACE: LiteralString = "SELECT current_database(), current_schema()"

# May every role make temporary tables in this database?
_PUBLIC_MAKES_TABLES: LiteralString = """
SELECT EXISTS (
    SELECT FROM pg_database, aclexplode(coalesce(datacl, acldefault('d', datdba))) AS given
    WHERE datname = current_database() AND grantee = 0 AND given.privilege_type = 'TEMPORARY')
"""

# May every role make large objects in this database?
_PUBLIC_MAKES_OBJECTS: LiteralString = """
SELECT EXISTS (
    SELECT FROM pg_proc, aclexplode(coalesce(proacl, acldefault('f', proowner))) AS given
    WHERE pronamespace = 'pg_catalog'::regnamespace AND grantee = 0
      AND proname IN ('lo_creat', 'lo_create', 'lo_from_bytea', 'lo_import'))
"""

# Which settings has this role of its own, in all databases?
_SET: LiteralString = """
SELECT split_part(setting, '=', 1) FROM pg_db_role_setting, unnest(setconfig) AS setting
WHERE setrole = %s::regrole AND setdatabase = 0
"""

_CREATE = sql.SQL("CREATE ROLE {role} NOLOGIN")
_LET_LOGIN = sql.SQL("ALTER ROLE {role} LOGIN PASSWORD {verifier}")
_GRANTS = (
    sql.SQL("GRANT CONNECT ON DATABASE {database} TO {roles}"),
    sql.SQL("GRANT USAGE ON SCHEMA {schema} TO {roles}"),
)
_LET_WRITE = sql.SQL("GRANT SELECT, INSERT, UPDATE, DELETE ON {tables} TO {role}")
_LET_READ = sql.SQL("GRANT SELECT ON {tables} TO {role}")

# Rights of every role in a new database that no role needs here: both fill disks.
_REVOKES: tuple[tuple[LiteralString, sql.SQL], ...] = (
    (_PUBLIC_MAKES_TABLES, sql.SQL("REVOKE TEMPORARY ON DATABASE {database} FROM PUBLIC")),
    (
        _PUBLIC_MAKES_OBJECTS,
        sql.SQL(
            "REVOKE EXECUTE ON FUNCTION lo_creat(integer), lo_create(oid),"
            " lo_from_bytea(oid, bytea), lo_import(text), lo_import(text, oid) FROM PUBLIC"
        ),
    ),
)
# So that a slip writes nothing, and a query that was forgotten ends; a session can set them anew.
_OF_ANALYSTS_SESSIONS = {
    "default_transaction_read_only": sql.SQL(
        "ALTER ROLE {role} SET default_transaction_read_only = on"
    ),
    "statement_timeout": sql.SQL("ALTER ROLE {role} SET statement_timeout = '5min'"),
}
# What the server says of a GRANT or REVOKE that had no effect, for want of the right to it.
_WITHOUT_EFFECT = ("01006", "01007")


def ensure_roles(connection: Connection[TupleRow], passwords: Mapping[str, str]) -> None:
    """Have the roles, with their rights on the newest schema and with nothing beyond.

    What the user of this connection may not do is left out with a warning; nothing is raised.

    Args:
        connection: Inside a transaction, with the newest schema.
        passwords: Of the roles that may log in; the others keep what they have.
    """
    for role in ROLES:
        if not _exists(connection, role):
            _try(connection, _CREATE.format(role=sql.Identifier(role)), f"CREATE ROLE {role}")
    roles = [role for role in ROLES if _exists(connection, role)]
    for role in passwords.keys() & set(roles):
        _let_log_in(connection, role, passwords[role])
    if roles:
        _grant_use(connection, roles)
        _revoke_public(connection)
    if SERVICE in roles:
        _grant(connection, _LET_WRITE, [table.name for table in metadata.sorted_tables], SERVICE)
        _grant(connection, _LET_READ, ["alembic_version", "candle_rows"], SERVICE)
    if ANALYST in roles:
        _grant(connection, _LET_READ, _OF_ANALYSTS, ANALYST)
        _set_what_is_not_set(connection, ANALYST)


def _exists(connection: Connection[TupleRow], role: str) -> bool:
    return connection.execute(_EXISTING, [[role]]).fetchone() is not None


def _let_log_in(connection: Connection[TupleRow], role: str, password: str) -> None:
    # A verifier, not the password: the statement may end up in the server's log.
    verifier = connection.pgconn.encrypt_password(
        password.encode(), role.encode(), b"scram-sha-256"
    )
    params = {"role": sql.Identifier(role), "verifier": sql.Literal(verifier.decode())}
    _try(connection, _LET_LOGIN.format(**params), f"ALTER ROLE {role} LOGIN PASSWORD ...")


def _grant_use(connection: Connection[TupleRow], roles: list[str]) -> None:
    names, where = sql.SQL(", ").join(map(sql.Identifier, roles)), _place(connection)
    for pattern in _GRANTS:
        statement = pattern.format(roles=names, **where)
        _try(connection, statement, statement.as_string(connection))


def _revoke_public(connection: Connection[TupleRow]) -> None:
    """Revoke from PUBLIC the rights that are not for these roles."""
    where = _place(connection)
    for question, pattern in _REVOKES:
        if connection.execute(question).fetchone() == (True,):
            statement = pattern.format(**where)
            _try(connection, statement, statement.as_string(connection))


def _set_what_is_not_set(connection: Connection[TupleRow], role: str) -> None:
    """Leave what an administrator has set: another time-out, or none."""
    found = {name for (name,) in connection.execute(_SET, [role]).fetchall()}
    for name, pattern in _OF_ANALYSTS_SESSIONS.items():
        if name not in found:
            statement = pattern.format(role=sql.Identifier(role))
            _try(connection, statement, statement.as_string(connection))


def _place(connection: Connection[TupleRow]) -> dict[str, sql.Identifier]:
    place = connection.execute(_PLACE).fetchone()
    assert place, "a select without from has one row"  # noqa: S101 - for the type checker
    return {"database": sql.Identifier(place[0]), "schema": sql.Identifier(place[1])}


def _grant(
    connection: Connection[TupleRow], pattern: sql.SQL, tables: Sequence[str], role: str
) -> None:
    names = sql.SQL(", ").join(map(sql.Identifier, tables))
    statement = pattern.format(tables=names, role=sql.Identifier(role))
    _try(connection, statement, statement.as_string(connection))


def _try(connection: Connection[TupleRow], statement: sql.Composed, action: str) -> None:
    """Execute a statement; where it is not allowed, log what an operator must run."""
    refused: list[str | None] = []

    def collect(notice: errors.Diagnostic) -> None:
        if notice.sqlstate in _WITHOUT_EFFECT:
            refused.append(notice.message_primary)

    connection.add_notice_handler(collect)
    try:
        with connection.transaction():  # a savepoint, so that the rest goes on
            connection.execute(statement)
    except errors.InsufficientPrivilege as error:
        refused.append(error.diag.message_primary)
    except (errors.DuplicateObject, errors.UniqueViolation):
        pass  # made by another database's upgrade at the same moment
    finally:
        connection.remove_notice_handler(collect)
    if refused:
        _log.warning(
            "let an administrator do this, then upgrade again: %s (%s)", action, refused[0]
        )
