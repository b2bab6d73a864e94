"""The inventory: stored slots per series, read from coverage alone.

It needs no arrays: to load what has them takes longer than the answer.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import LiteralString

from mdp_core.domain.patterns import matches
from mdp_core.storage.database.database import Database

# How much of each series is covered, in how many pieces, from when to when? Months, which have no
# fixed length, are counted where they are of use: taking dates apart is slow. All other intervals
# are written as Postgres writes a length of time.
_COVERED: LiteralString = """
SELECT symbols.exchange, symbols.market_type, symbols.name, series.interval,
       lower(coverage), upper(coverage), covered.parts, covered.slots, symbols.native
FROM series
JOIN symbols ON symbols.id = series.symbol_id
CROSS JOIN LATERAL (
    SELECT CASE series.interval WHEN '1M' THEN '1 month' ELSE series.interval END::interval AS one
) AS length
CROSS JOIN LATERAL (
    SELECT count(*) AS parts,
           CASE WHEN series.interval = '1M' THEN sum(
               12 * (extract(year FROM upper(part)) - extract(year FROM lower(part)))
               + extract(month FROM upper(part)) - extract(month FROM lower(part)))
           ELSE extract(epoch FROM sum(upper(part) - lower(part))) / extract(epoch FROM length.one)
           END::bigint AS slots
    FROM unnest(coverage) AS part
) AS covered
WHERE covered.parts > 0
  AND (%(exchange)s::text IS NULL OR symbols.exchange = %(exchange)s)
  AND (%(market_type)s::text IS NULL OR symbols.market_type = %(market_type)s)
ORDER BY symbols.exchange, symbols.market_type, symbols.name, length.one
"""


@dataclass(frozen=True, slots=True)
class Holding:
    """The coverage of a series: slots and parts between `start` and `end`."""

    exchange: str
    market_type: str
    symbol: str
    interval: str
    start: datetime
    end: datetime
    parts: int
    slots: int


@dataclass(frozen=True, slots=True)
class HoldingFilter:
    """Which series: None or no patterns stand for all.

    Symbols may be globs, in any case, of our names or the exchange's.
    """

    exchange: str | None = None
    market_type: str | None = None
    symbols: Sequence[str] = ()
    intervals: Sequence[str] = ()


async def read_holdings(database: Database, wanted: HoldingFilter) -> list[Holding]:
    """Give what is covered of each series that has anything.

    By exchange, market type and symbol, and then the shortest interval first.

    Raises:
        StoreUnavailable: The database does not answer.
    """
    what = {"exchange": wanted.exchange, "market_type": wanted.market_type}
    async with database.connection() as connection:
        rows = await (await connection.execute(_COVERED, what)).fetchall()
    return [
        Holding(*row[:8])
        for row in rows
        if _is_wanted((row[2], row[8]), wanted.symbols)
        and (not wanted.intervals or row[3] in wanted.intervals)
    ]


def _is_wanted(names: Sequence[str], patterns: Sequence[str]) -> bool:
    return any(matches(name, pattern) for name in names for pattern in patterns or ("*",))
