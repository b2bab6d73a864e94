"""Whether this service can serve, and on what it stands."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import LiteralString

from psycopg import errors

from mdp_core.storage.database.database import Connection

# Which server is this, and has it the extension in this database?
_SERVER: LiteralString = """
SELECT current_setting('server_version'),
       (SELECT extversion FROM pg_extension WHERE extname = 'timescaledb')
"""

# At which migration is the schema?
_MIGRATION: LiteralString = "SELECT version_num FROM alembic_version"

# Which exchanges let us wait?
_BLOCKS: LiteralString = """
SELECT exchange, egress, blocked_until, blocked_why FROM rate_budgets
WHERE blocked_until > clock_timestamp() ORDER BY exchange, egress
"""


@dataclass(frozen=True, slots=True)
class Block:
    """An exchange that takes no requests of an egress until some time (UTC), and why."""

    exchange: str
    egress: str
    until: datetime
    why: str


@dataclass(frozen=True, slots=True)
class Health:
    """What the database says of itself; `timescaledb` is None without the extension."""

    postgres: str
    timescaledb: str | None
    migration: str | None
    blocks: Sequence[Block]


async def read_health(connection: Connection) -> Health:
    """Ask the database, on a connection that commits each statement."""
    server = await (await connection.execute(_SERVER)).fetchone()
    assert server, "a select without from has one row"  # noqa: S101 - for the type checker
    try:
        migration = await (await connection.execute(_MIGRATION)).fetchone()
        rows = await (await connection.execute(_BLOCKS)).fetchall()
    except errors.UndefinedTable:
        return Health(server[0], server[1], None, ())
    blocks = [Block(*row) for row in rows]
    return Health(server[0], server[1], migration[0] if migration else None, blocks)
