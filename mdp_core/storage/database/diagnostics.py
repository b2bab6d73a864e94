"""The database's state: server, schema, blocks, and sizes for its operator."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import LiteralString

from psycopg import errors
from psycopg.rows import TupleRow

from db.roles import ROLES
from db.upgrade import newest_revision
from mdp_core.storage.database.database import Connection, Database

# Which server is this, which extension has this database and under which license, how big is it?
_SERVER: LiteralString = """
SELECT current_setting('server_version'),
       (SELECT extversion FROM pg_extension WHERE extname = 'timescaledb'),
       current_setting('timescaledb.license', true), pg_database_size(current_database())
"""

# Which exchanges take no requests of an egress for now?
_BLOCKS: LiteralString = """
SELECT exchange, egress, blocked_until, blocked_why FROM rate_budgets
WHERE blocked_until > clock_timestamp() ORDER BY exchange, egress
"""


# Which of our roles are there, and may they log in?
_ROLES: LiteralString = """
SELECT rolname, rolcanlogin FROM pg_roles WHERE rolname = ANY(%s) ORDER BY rolname
"""

# Which server is this, and which extension has this database?
_VERSIONS: LiteralString = """
SELECT current_setting('server_version'),
       (SELECT extversion FROM pg_extension WHERE extname = 'timescaledb')
"""

# By how much was each exchange's clock ahead of the database's when it was last read?
_OFFSETS: LiteralString = "SELECT exchange, offset_ms FROM clock_offsets"

# How many rows were rejected, and how many slots are unconfirmed? An interval is written as
# Postgres writes a length of time, but for months, which are reckoned at their mean length.
_COUNTS: LiteralString = """
SELECT (SELECT count(*) FROM rejected_rows),
       (SELECT coalesce(sum(ceil(extract(epoch FROM upper(slots) - lower(slots))
                   / extract(epoch FROM CASE series.interval WHEN '1M' THEN '31 days'
                                        ELSE series.interval END::interval))), 0)::bigint
        FROM absences JOIN series ON series.id = absences.series_id)
"""

# At which migration is the schema?
_REVISION: LiteralString = "SELECT version_num FROM alembic_version"

# How many candles has each chunk, when do its candles open, how big is it, is it in columns? It
# counts them all: the estimates of a table that was never analysed are wrong.
_CHUNKS: LiteralString = """
SELECT range_start, range_end, rows, total_bytes, is_compressed
FROM timescaledb_information.chunks
JOIN chunks_detailed_size('candles') USING (chunk_schema, chunk_name)
JOIN (SELECT tableoid, count(*) AS rows FROM candles GROUP BY tableoid) AS counted
    ON counted.tableoid = format('%I.%I', chunk_schema, chunk_name)::regclass
ORDER BY range_start
"""

# The same of an ordinary table, which is like a single chunk.
_TABLE: LiteralString = """
SELECT min(time), max(time), count(*), pg_total_relation_size('candles'), false FROM candles
HAVING count(*) > 0
"""

# Is the table of candles parted into chunks?
_IS_HYPERTABLE: LiteralString = """
SELECT EXISTS (SELECT FROM timescaledb_information.hypertables
               WHERE hypertable_schema = current_schema() AND hypertable_name = 'candles')
"""


@dataclass(frozen=True, slots=True)
class ExchangeBlock:
    """An exchange that takes no requests of an egress until a time (UTC)."""

    exchange: str
    egress: str
    until: datetime
    why: str


@dataclass(frozen=True, slots=True)
class Health:
    """The server and its schema; `timescaledb` is None without the extension."""

    postgres: str
    timescaledb: str | None
    migration: str | None


@dataclass(frozen=True, slots=True)
class StoredCounts:
    """The exchanges' blocks and clocks (ms ahead of the database's), slot counts."""

    blocks: Sequence[ExchangeBlock]
    clock_offsets_ms: Mapping[str, int]
    rejected_rows: int
    unconfirmed_slots: int


@dataclass(frozen=True, slots=True)
class Chunk:
    """A part of the stored candles: those that open in `[start, end)`, UTC.

    On plain Postgres there is one, and `end` is its last candle.
    """

    start: datetime
    end: datetime
    candles: int
    size_bytes: int
    is_in_columns: bool


@dataclass(frozen=True, slots=True)
class Status:
    """The server, the schema, the roles and the chunks of the database.

    `timescaledb` and `license` are None without the extension, `revision` without the schema;
    `logins` tells of each of our roles that exists whether it may log in.
    """

    postgres: str
    timescaledb: str | None
    license: str | None
    size_bytes: int
    revision: str | None
    newest_revision: str
    logins: dict[str, bool]
    chunks: Sequence[Chunk]


async def read_health(connection: Connection) -> Health:
    """Read the state of the database, on a connection that commits each statement."""
    postgres, timescaledb = await _row(connection, _VERSIONS)
    try:
        migration = await (await connection.execute(_REVISION)).fetchone()
    except errors.UndefinedTable:
        return Health(postgres, timescaledb, None)
    return Health(postgres, timescaledb, migration[0] if migration else None)


async def read_counts(connection: Connection) -> StoredCounts:
    """Read what an administrator wants to know of a database with the newest schema."""
    blocks = await (await connection.execute(_BLOCKS)).fetchall()
    offsets = await (await connection.execute(_OFFSETS)).fetchall()
    rejected, unconfirmed = await _row(connection, _COUNTS)
    return StoredCounts(
        [ExchangeBlock(*row) for row in blocks], dict(offsets), rejected, unconfirmed
    )


async def _row(connection: Connection, query: LiteralString) -> TupleRow:
    row = await (await connection.execute(query)).fetchone()
    assert row, "a select without from has one row"  # noqa: S101 - for the type checker
    return row


async def read_status(database: Database) -> Status:
    """Ask the database; some seconds for every hundred million candles.

    Raises:
        StoreUnavailable: It does not answer.
    """
    async with database.connection() as connection:
        postgres, timescaledb, license_, size_bytes = await _row(connection, _SERVER)
        roles = await (await connection.execute(_ROLES, [list(ROLES)])).fetchall()
        try:
            revision = await (await connection.execute(_REVISION)).fetchone()
            chunks = await _chunks(connection, has_extension=timescaledb is not None)
        except errors.UndefinedTable:
            revision, chunks = None, ()
    return Status(
        postgres=postgres,
        timescaledb=timescaledb,
        license=license_ if timescaledb else None,
        size_bytes=size_bytes,
        revision=revision[0] if revision else None,
        newest_revision=newest_revision(),
        logins=dict(roles),
        chunks=chunks,
    )


async def _chunks(connection: Connection, *, has_extension: bool) -> list[Chunk]:
    is_parted = has_extension and (await (await connection.execute(_IS_HYPERTABLE)).fetchone()) == (
        True,
    )
    cursor = await connection.execute(_CHUNKS if is_parted else _TABLE)
    return [Chunk(*row) for row in await cursor.fetchall()]
