"""The columnstore for old chunks, where TimescaleDB's license allows it.

The license is a setting of the server that may change, so this is no migration, but is made sure of
after the migrations, each time. The Apache edition and plain Postgres are left alone.
"""

from typing import LiteralString

from psycopg import Connection
from psycopg.rows import TupleRow

# May this database have a columnstore?
_IS_LICENSED: LiteralString = """
SELECT current_setting('timescaledb.license', true) = 'timescale'
FROM pg_extension WHERE extname = 'timescaledb'
"""

# Has it one, and does anything move old chunks there?
_STATE: LiteralString = """
SELECT compression_enabled,
       EXISTS (SELECT FROM timescaledb_information.jobs
               WHERE proc_name = 'policy_compression' AND hypertable_name = 'candles'
                 AND hypertable_schema = current_schema())
FROM timescaledb_information.hypertables
WHERE hypertable_name = 'candles' AND hypertable_schema = current_schema()
"""

# The names that every version of the extension takes; newer ones also say `columnstore`.
_ENABLE: LiteralString = """
ALTER TABLE candles SET (timescaledb.compress, timescaledb.compress_segmentby = 'series_id',
                         timescaledb.compress_orderby = 'time')
"""

# The chunk that is being written stays in rows, and so does the last one for a week.
_ADD_POLICY: LiteralString = "SELECT add_compression_policy('candles', INTERVAL '7 days')"


def ensure_columnstore(connection: Connection[TupleRow]) -> None:
    """Enable the columnstore policy of `candles`, where the license allows it.

    Filling and repairing what is there goes on as before: rows that come late lie beside the
    columns until the policy takes them in.
    """
    licensed = connection.execute(_IS_LICENSED).fetchone()
    if licensed is None or not licensed[0]:
        return
    state = connection.execute(_STATE).fetchone()
    if state is None:
        return  # made before the extension was there: an ordinary table
    is_enabled, has_policy = state
    if not is_enabled:
        connection.execute(_ENABLE)
    if not has_policy:
        connection.execute(_ADD_POLICY)
