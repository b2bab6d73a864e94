"""Fill jobs: every SQL statement about them."""

from typing import LiteralString

# Make a job, unless the same is open.
OPEN: LiteralString = """
INSERT INTO backfills (series_id, span) VALUES (%(series_id)s, %(span)s)
ON CONFLICT (series_id, span) WHERE state = 'open' DO NOTHING
RETURNING id
"""

# Which open job fills this window, but for so much at its end? What lies before the history is
# nothing: a job that has learned where that begins need not fill it.
FIND_OPEN: LiteralString = """
SELECT backfills.id FROM backfills JOIN series ON series.id = series_id
WHERE series_id = %(series_id)s AND state = 'open'
  AND (span @> %(start)s::timestamptz
       OR span @> greatest(%(start)s::timestamptz, history_begins))
  AND upper(span) >= %(end)s::timestamptz - %(slack)s::interval
ORDER BY backfills.id LIMIT 1
"""

# Less is to be filled than was thought, unless another open job has just that window.
NARROW: LiteralString = """
UPDATE backfills AS job SET span = %(span)s
WHERE id = %(id)s AND state = 'open' AND NOT EXISTS (
    SELECT FROM backfills AS other WHERE other.series_id = job.series_id
    AND other.span = %(span)s AND other.state = 'open')
"""

# Jobs as they are shown. One that is open and was never worked on is queued.
SELECT: LiteralString = """
SELECT backfills.id, symbols.exchange, symbols.market_type, symbols.name, series.interval,
       lower(span), upper(span),
       CASE WHEN state <> 'open' THEN state
            WHEN started_at IS NULL THEN 'queued' ELSE 'running' END,
       created_at, started_at, ended_at, error, missing,
       ARRAY(SELECT subject FROM backfill_subjects WHERE backfill_id = backfills.id)
FROM backfills
JOIN series ON series.id = backfills.series_id
JOIN symbols ON symbols.id = series.symbol_id
"""
GET: LiteralString = SELECT + "WHERE backfills.id = ANY(%(ids)s)"
LIST: LiteralString = (
    SELECT  # noqa: S608 - of constants
    + """
WHERE (%(before)s::bigint IS NULL OR backfills.id < %(before)s)
  AND (%(is_open)s::boolean IS NULL OR (state = 'open') = %(is_open)s)
  AND (%(subject)s::text IS NULL OR EXISTS (
      SELECT FROM backfill_subjects
      WHERE backfill_id = backfills.id AND subject = %(subject)s))
ORDER BY backfills.id DESC LIMIT %(limit)s
"""
)

# Whose turn is it in a market, and which of its open jobs lacks the fewest slots, but for some? The
# subject that was served longest ago goes first; a job without one is the empty subject's.
NEXT: LiteralString = """
WITH of_market AS (
    SELECT series.id, series.interval, series.coverage,
           coalesce(series.history_begins, symbols.listed_at) AS begins
    FROM series JOIN symbols ON symbols.id = series.symbol_id
    WHERE symbols.exchange = %(exchange)s AND symbols.market_type = %(market_type)s
), waiting AS (
    SELECT backfills.id, coalesce(subject, '') AS subject, span, interval, coverage, begins
    FROM backfills JOIN of_market ON of_market.id = series_id
    LEFT JOIN backfill_subjects ON backfill_id = backfills.id
    WHERE state = 'open' AND backfills.id <> ALL(%(without)s::bigint[])
), turn AS (
    SELECT subject FROM (SELECT DISTINCT subject FROM waiting) AS subjects
    ORDER BY (SELECT max(served_at) FROM backfill_subjects
              JOIN backfills ON backfills.id = backfill_id
              JOIN of_market ON of_market.id = series_id
              WHERE backfill_subjects.subject = subjects.subject) NULLS FIRST, subject
    LIMIT 1
)
SELECT id FROM waiting JOIN turn USING (subject)
ORDER BY (SELECT coalesce(sum(extract(epoch FROM upper(part) - lower(part))), 0)
          FROM unnest(tstzmultirange(span * tstzrange(begins, NULL)) - coverage) AS part)
         / extract(epoch FROM CASE interval WHEN '1M' THEN '30 days' ELSE interval END::interval),
         id
LIMIT 1
"""

# A subject asks for jobs one at a time, so that its quota holds.
TAKE_TURNS: LiteralString = """
SELECT pg_advisory_xact_lock(hashtext('mdp.subject'), hashtext(%(subject)s))
"""

# The job is this subject's, too.
JOIN: LiteralString = """
INSERT INTO backfill_subjects (backfill_id, subject) VALUES (%(id)s, %(subject)s)
ON CONFLICT DO NOTHING
"""

# How many open jobs has a subject?
COUNT_OPEN: LiteralString = """
SELECT count(*) FROM backfill_subjects JOIN backfills ON backfills.id = backfill_id
WHERE subject = %(subject)s AND state = 'open'
"""

# While others want the job a subject that gives it up has it no more; else the job is cancelled.
LOCK_JOB: LiteralString = "SELECT FROM backfills WHERE id = %(id)s FOR UPDATE"
LEAVE: LiteralString = """
DELETE FROM backfill_subjects WHERE backfill_id = %(id)s AND subject = %(subject)s AND EXISTS (
    SELECT FROM backfill_subjects AS other
    WHERE other.backfill_id = %(id)s AND other.subject <> %(subject)s)
  AND EXISTS (SELECT FROM backfills WHERE id = %(id)s AND state = 'open')
"""
CANCEL_UNLESS_WANTED: LiteralString = """
UPDATE backfills SET state = 'cancelled', ended_at = now()
WHERE id = %(id)s AND state = 'open' AND NOT EXISTS (
    SELECT FROM backfill_subjects WHERE backfill_id = %(id)s AND subject <> %(subject)s)
"""

# Jobs that ended so many days ago.
FORGET: LiteralString = """
DELETE FROM backfills WHERE state <> 'open' AND ended_at < now() - %(days)s * interval '1 day'
"""

# A worker has begun it.
START: LiteralString = """
WITH served AS (
    UPDATE backfill_subjects SET served_at = clock_timestamp() WHERE backfill_id = %(id)s
)
UPDATE backfills SET started_at = coalesce(started_at, now()) WHERE id = %(id)s
"""

# This can't be had.
RECORD_UNAVAILABLE: LiteralString = """
UPDATE backfills SET missing = missing || %(missing)s WHERE id = %(id)s AND state = 'open'
"""

# It has come to an end; the first to say so is right.
END: LiteralString = """
UPDATE backfills SET state = %(state)s, error = %(error)s, ended_at = now()
WHERE id = %(id)s AND state = 'open'
"""

# How much is missing for each open job of an exchange, of what the exchange still has and of what
# was not found out to be lost? A history whose start is not known is reckoned to begin on the
# symbol's first known day, or when that was listed.
QUEUE: LiteralString = """
SELECT backfills.id, symbols.market_type, series.interval,
       (SELECT coalesce(sum(extract(epoch FROM upper(part) - lower(part))), 0)::float8
        FROM unnest(
            tstzmultirange(span * tstzrange(greatest(
                coalesce(series.history_begins, daily.history_begins, symbols.listed_at), earliest
            ), NULL)) - series.coverage
            - (SELECT coalesce(range_agg(tstzrange(to_timestamp((loss->>'start')::float8 / 1000),
                                                   to_timestamp((loss->>'end')::float8 / 1000))),
                               '{}')
               FROM jsonb_array_elements(missing) AS loss)) AS part),
       (SELECT coalesce(min(subject), '') FROM backfill_subjects WHERE backfill_id = backfills.id)
FROM backfills
JOIN series ON series.id = backfills.series_id
JOIN symbols ON symbols.id = series.symbol_id
LEFT JOIN series AS daily ON daily.symbol_id = series.symbol_id AND daily.interval = '1d'
LEFT JOIN unnest(%(market_types)s::text[], %(intervals)s::text[], %(earliest)s::timestamptz[])
          AS memory(market_type, interval, earliest)
          ON memory.market_type = symbols.market_type AND memory.interval = series.interval
WHERE state = 'open' AND symbols.exchange = %(exchange)s
ORDER BY backfills.id
"""
