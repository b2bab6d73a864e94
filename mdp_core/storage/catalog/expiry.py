"""Series with candles that are not stored and that an exchange will forget."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import LiteralString

from mdp_core.storage.database.database import Database

# Of which active series does a window lack slots, from when on? A series that was never fetched is
# left out, and slots whose rows can't be right are named elsewhere.
_UNKEPT: LiteralString = """
SELECT symbols.name, series.interval, lower(lacking.parts)
FROM series
JOIN symbols ON symbols.id = series.symbol_id
CROSS JOIN LATERAL (
    SELECT tstzmultirange(
        tstzrange(%(start)s, %(end)s) * tstzrange(series.history_begins, NULL)
    ) - series.coverage - (
        SELECT coalesce(range_agg(tstzrange(slot, slot + CASE series.interval
            WHEN '1M' THEN '1 month' ELSE series.interval END::interval)), '{}')
        FROM rejected_rows WHERE rejected_rows.series_id = series.id
    ) AS parts
) AS lacking
WHERE symbols.active AND symbols.exchange = %(exchange)s
  AND symbols.market_type = %(market_type)s AND series.interval = %(interval)s
  AND NOT isempty(series.coverage) AND NOT isempty(lacking.parts)
ORDER BY lower(lacking.parts), symbols.name
"""


@dataclass(frozen=True, slots=True)
class UnkeptSeries:
    """A stored series, and the first slot of a window that it lacks."""

    exchange: str
    market_type: str
    symbol: str
    interval: str
    first_missing: datetime


async def read_unkept(
    database: Database, market: tuple[str, str, str], window: tuple[datetime, datetime]
) -> Sequence[UnkeptSeries]:
    """Return the series of a market that lack slots of a window, oldest first.

    Args:
        database: The primary.
        market: Exchange, market type and interval.
        window: Its start and its end.

    Raises:
        StoreUnavailable: The database can't be had.
    """
    exchange, market_type, interval = market
    start, end = window
    what = {"exchange": exchange, "market_type": market_type, "interval": interval}
    async with database.connection() as connection:
        cursor = await connection.execute(_UNKEPT, {**what, "start": start, "end": end})
        rows = await cursor.fetchall()
    return [UnkeptSeries(exchange, market_type, *row) for row in rows]
