"""The inventory: stored slots per series, read from coverage alone.

It needs no arrays: to load what has them takes longer than the answer.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import LiteralString

from mdp_core.storage.database.database import Database

# How much of each series is covered, in how many parts, from when to when, how much of that is
# unconfirmed, and when was it last asked for? A page of series is chosen first, since only parts
# are slow to count. Months, which have no fixed length, are counted where they are of use: taking
# dates apart is slow. All other intervals are written as Postgres writes a length of time.
_COVERED: LiteralString = """
WITH page AS (
    SELECT symbols.exchange, symbols.market_type, symbols.name, series.id, series.interval,
           series.coverage, length.one
    FROM series
    JOIN symbols ON symbols.id = series.symbol_id
    CROSS JOIN LATERAL (
        SELECT CASE series.interval WHEN '1M' THEN '1 month' ELSE series.interval END::interval
            AS one
    ) AS length
    WHERE NOT isempty(series.coverage)
      AND (%(exchange)s::text IS NULL OR symbols.exchange ~ %(exchange)s)
      AND (%(market_type)s::text IS NULL OR symbols.market_type ~ %(market_type)s)
      AND (%(symbols)s::text[] IS NULL
           OR symbols.name ~* ANY (%(symbols)s) OR symbols.native ~* ANY (%(symbols)s))
      AND (%(intervals)s::text[] IS NULL OR series.interval ~ ANY (%(intervals)s))
    ORDER BY symbols.exchange, symbols.market_type, symbols.name, length.one
    LIMIT %(limit)s OFFSET %(offset)s
)
SELECT page.exchange, page.market_type, page.name, page.interval,
       lower(page.coverage), upper(page.coverage), counted.parts, counted.covered,
       counted.unconfirmed, series_usage.last_requested
FROM page
LEFT JOIN series_usage ON series_usage.series_id = page.id
CROSS JOIN LATERAL (
    SELECT count(*) FILTER (WHERE is_covered) AS parts,
           sum(slots) FILTER (WHERE is_covered)::bigint AS covered,
           coalesce(sum(slots) FILTER (WHERE NOT is_covered), 0)::bigint AS unconfirmed
    FROM (
        SELECT part, true AS is_covered FROM unnest(page.coverage) AS part
        UNION ALL
        SELECT absences.slots, false FROM absences WHERE absences.series_id = page.id
    ) AS parts
    CROSS JOIN LATERAL (
        SELECT CASE WHEN page.interval = '1M' THEN
                   12 * (extract(year FROM upper(part)) - extract(year FROM lower(part)))
                   + extract(month FROM upper(part)) - extract(month FROM lower(part))
               ELSE extract(epoch FROM upper(part) - lower(part)) / extract(epoch FROM page.one)
               END AS slots
    ) AS length
) AS counted
ORDER BY page.exchange, page.market_type, page.name, page.one
"""

# A star, a question mark, a set of characters, or a character that stands for itself.
_GLOB_PART = re.compile(r"\*|\?|\[!?[^\]!][^\]]*\]|.", re.DOTALL)


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
    unconfirmed_slots: int
    last_requested: datetime | None


@dataclass(frozen=True, slots=True)
class HoldingFilter:
    """Patterns of series, each a name or a glob; None or an empty one stands for all.

    Symbols are matched in any case, by our names or the exchange's.
    """

    exchange: str | None = None
    market_type: str | None = None
    symbols: Sequence[str] = ()
    intervals: Sequence[str] = ()


async def read_holdings(
    database: Database, wanted: HoldingFilter, *, limit: int | None = None, offset: int = 0
) -> list[Holding]:
    """Return the coverage of each series that has anything.

    By exchange, market type and symbol, and then the shortest interval first.

    Args:
        database: Where the coverage is.
        wanted: Which series.
        limit: Series at most; None for all.
        offset: How many are left out before them.

    Raises:
        StoreUnavailable: The database does not answer.
    """
    parameters = {
        "exchange": _regex(wanted.exchange) if wanted.exchange is not None else None,
        "market_type": _regex(wanted.market_type) if wanted.market_type is not None else None,
        "symbols": [_regex(pattern) for pattern in wanted.symbols] or None,
        "intervals": [_regex(pattern) for pattern in wanted.intervals] or None,
        "limit": limit,
        "offset": offset,
    }
    async with database.connection() as connection:
        rows = await (await connection.execute(_COVERED, parameters)).fetchall()
    return [Holding(*row) for row in rows]


def _regex(glob: str) -> str:
    """Convert a glob into a regular expression of Postgres, for the whole of a name."""
    return f"^(?:{''.join(map(_part, _GLOB_PART.findall(glob)))})$"


def _part(part: str) -> str:
    if part == "*":
        return ".*"
    if part == "?":
        return "."
    if len(part) > 1:
        return _set(part)
    return part if part.isalnum() else f"\\{part}"


def _set(part: str) -> str:
    """Convert a set of a glob; one whose range runs backwards stands for itself."""
    escaped = re.sub(r"[^\w-]", lambda found: f"\\{found[0]}", part[1:-1].removeprefix("!"))
    members = f"[{'^' if part[1] == '!' else ''}{escaped}]"
    try:
        re.compile(members)
    except re.error:
        return "".join(f"\\{char}" if not char.isalnum() else char for char in part)
    return members
