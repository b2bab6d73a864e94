"""The statements that read candles with their coverage, epochs and versions."""

from typing import LiteralString

# Which changes touch the window that is asked for? One that begins with the history has slots
# before it too: an earlier start may have been believed.
_TOUCHED: LiteralString = """
LEFT JOIN LATERAL (
    SELECT array_agg(slots) AS slots, array_agg(changes.epoch) AS epochs FROM changes
    WHERE changes.series_id = series.id AND slots && tstzrange(
        CASE WHEN asked.first > series.history_begins THEN asked.first END, asked.stop)
) AS touched ON true
"""

# Which slots of the window are in doubt, and when are the next of them asked for again?
_DOUBTED: LiteralString = """
LEFT JOIN LATERAL (
    SELECT range_agg(slots) AS slots, min(next_due_at) AS due FROM absences
    WHERE absences.series_id = series.id AND slots && tstzrange(asked.first, asked.stop)
) AS doubted ON true
"""

# What of these windows is not covered or in doubt, and of which versions are they?
COVERAGE: LiteralString = (
    """
SELECT (SELECT id FROM store), coalesce(series.epoch, -1), touched.slots, touched.epochs,
       tstzmultirange(tstzrange(asked.first, asked.stop)) - coalesce(series.coverage, '{}'),
       doubted.slots, doubted.due
FROM unnest(%(ids)b::int[], %(starts)b::timestamptz[], %(ends)b::timestamptz[])
    WITH ORDINALITY AS asked (id, first, stop, position)
LEFT JOIN series USING (id)
"""  # noqa: S608 - of constants only
    + _TOUCHED
    + _DOUBTED
    + "ORDER BY asked.position"
)

# The same of one window, and how many candles open in it, of at most so many from its start, and
# when does the last of these open?
ROWS_FROM_START: LiteralString = (
    """
SELECT (SELECT id FROM store), epoch, touched.slots, touched.epochs,
       tstzmultirange(tstzrange(asked.first, asked.stop)) - coverage,
       doubted.slots, doubted.due, rows.count, rows.last
FROM (SELECT %(start)s::timestamptz AS first, %(end)s::timestamptz AS stop) AS asked
JOIN series ON series.id = %(series_id)s
"""  # noqa: S608 - of constants only
    + _TOUCHED
    + _DOUBTED
    + """
CROSS JOIN LATERAL (
    SELECT count(*)::int AS count, max(time) AS last FROM (
        SELECT time FROM candles
        WHERE series_id = %(series_id)s AND time >= %(start)s AND time < %(end)s
        ORDER BY time LIMIT %(rows)s
    ) AS wanted
) AS rows
"""
)

# The same, counted from its end.
ROWS_FROM_END: LiteralString = (
    """
SELECT (SELECT id FROM store), epoch, touched.slots, touched.epochs,
       tstzmultirange(tstzrange(asked.first, asked.stop)) - coverage,
       doubted.slots, doubted.due, rows.count, rows.last
FROM (SELECT %(start)s::timestamptz AS first, %(end)s::timestamptz AS stop) AS asked
JOIN series ON series.id = %(series_id)s
"""  # noqa: S608 - of constants only
    + _TOUCHED
    + _DOUBTED
    + """
CROSS JOIN LATERAL (
    SELECT count(*)::int AS count, min(time) AS last FROM (
        SELECT time FROM candles
        WHERE series_id = %(series_id)s AND time >= %(start)s AND time < %(end)s
        ORDER BY time DESC LIMIT %(rows)s
    ) AS wanted
) AS rows
"""
)

# Which candles open in this window, ascending, as one row of columns? Of which epoch and
# version are they, and is the whole window covered here?
READ: LiteralString = """
SELECT epoch, (
    SELECT coalesce(max(changes.epoch), 0) FROM changes
    WHERE series_id = %(series_id)s AND slots && tstzrange(%(start)s, %(end)s)
), coverage @> tstzrange(%(start)s, %(end)s), candles.*
FROM series, LATERAL (
    SELECT array_agg(time), array_agg(open), array_agg(high), array_agg(low), array_agg(close),
           array_agg(volume), array_agg(quote_volume), array_agg(trades),
           array_agg(taker_buy_volume), array_agg(taker_buy_quote_volume)
    FROM (
        SELECT time, open, high, low, close, volume,
               coalesce(quote_volume, 'NaN') AS quote_volume,
               coalesce(trades::float8, 'NaN') AS trades,
               coalesce(taker_buy_volume, 'NaN') AS taker_buy_volume,
               coalesce(taker_buy_quote_volume, 'NaN') AS taker_buy_quote_volume
        FROM candles
        WHERE series_id = %(series_id)s AND time >= %(start)s AND time < %(end)s
        ORDER BY time
    ) AS ordered
) AS candles
WHERE id = %(series_id)s
"""

# The same without the columns that few ask for: reading is most of what a hit costs.
READ_PRICES: LiteralString = """
SELECT epoch, (
    SELECT coalesce(max(changes.epoch), 0) FROM changes
    WHERE series_id = %(series_id)s AND slots && tstzrange(%(start)s, %(end)s)
), coverage @> tstzrange(%(start)s, %(end)s), candles.*
FROM series, LATERAL (
    SELECT array_agg(time), array_agg(open), array_agg(high), array_agg(low), array_agg(close),
           array_agg(volume)
    FROM (
        SELECT time, open, high, low, close, volume FROM candles
        WHERE series_id = %(series_id)s AND time >= %(start)s AND time < %(end)s
        ORDER BY time
    ) AS ordered
) AS candles
WHERE id = %(series_id)s
"""
