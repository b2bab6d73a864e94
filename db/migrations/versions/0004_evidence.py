"""Evidence: versions, revisions, unconfirmed absences, clocks, conditions.

Coverage that lies beyond now is cut, with the candles in it. Absences that were stored before count
as confirmed: only `absences` says that one is not. The error of a window that a fill job could not
have was a class's name, and is a code from now on.
"""

from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

_TABLES = """
CREATE TABLE store (id bigint CONSTRAINT pk_store PRIMARY KEY);
INSERT INTO store VALUES (floor(random() * 2 ^ 48)::bigint);

CREATE TABLE changes (
    series_id integer NOT NULL CONSTRAINT fk_changes_series_id REFERENCES series (id),
    slots tstzrange NOT NULL,
    epoch bigint NOT NULL,
    CONSTRAINT pk_changes PRIMARY KEY (series_id, slots),
    CONSTRAINT ck_changes_slots CHECK (coalesce(
        isfinite(lower(slots)) AND isfinite(upper(slots))
        AND lower_inc(slots) AND NOT upper_inc(slots), false))
);

CREATE TABLE revisions (
    id bigint GENERATED ALWAYS AS IDENTITY CONSTRAINT pk_revisions PRIMARY KEY,
    series_id integer NOT NULL CONSTRAINT fk_revisions_series_id REFERENCES series (id),
    time timestamptz NOT NULL,
    stored jsonb,
    answered jsonb,
    found_at timestamptz NOT NULL DEFAULT now(),
    found_by text NOT NULL
);
CREATE INDEX ix_revisions_series_id ON revisions (series_id, time);
CREATE INDEX ix_revisions_found_at ON revisions (found_at);

CREATE TABLE clock_offsets (
    exchange text CONSTRAINT pk_clock_offsets PRIMARY KEY,
    offset_ms bigint NOT NULL,
    read_at timestamptz NOT NULL DEFAULT now()
);

CREATE TABLE absences (
    series_id integer NOT NULL CONSTRAINT fk_absences_series_id REFERENCES series (id),
    slots tstzrange NOT NULL,
    first_observed_at timestamptz NOT NULL DEFAULT now(),
    next_due_at timestamptz NOT NULL,
    attempts integer NOT NULL DEFAULT 0,
    last_live_at timestamptz,
    claimed_until timestamptz,
    CONSTRAINT pk_absences PRIMARY KEY (series_id, slots),
    CONSTRAINT ck_absences_slots CHECK (coalesce(
        isfinite(lower(slots)) AND isfinite(upper(slots))
        AND lower_inc(slots) AND NOT upper_inc(slots), false))
);
CREATE INDEX ix_absences_next_due_at ON absences (next_due_at);

ALTER TABLE series
    ADD COLUMN history_witnesses integer NOT NULL DEFAULT 0,
    ADD COLUMN history_checked_at timestamptz,
    ADD COLUMN history_recheck_at timestamptz;

ALTER TABLE symbols
    ADD COLUMN history_ends timestamptz,
    ADD COLUMN history_ends_source text,
    ADD COLUMN history_ends_checked_at timestamptz;

COMMENT ON TABLE changes IS
    'slots whose stored facts changed, kept for ever; neighbours merge, higher epoch';
COMMENT ON COLUMN changes.slots IS 'half-open; no two of a series touch';
COMMENT ON COLUMN changes.epoch IS 'epoch of the series after the change';
COMMENT ON TABLE revisions IS
    'settled candles found to differ later, with both values; has a retention';
COMMENT ON COLUMN revisions.time IS 'open time';
COMMENT ON COLUMN revisions.stored IS 'candle before; null for none';
COMMENT ON COLUMN revisions.answered IS 'candle of the exchange; null for none';
COMMENT ON COLUMN revisions.found_by IS 'repair, verify, recheck or archive';
COMMENT ON TABLE store IS
    'number of this copy of the data, part of every version; a restore changes it';
COMMENT ON TABLE clock_offsets IS
    'last known clock of each exchange, for while that can not be asked';
COMMENT ON COLUMN clock_offsets.offset_ms IS 'clock of exchange minus database';
COMMENT ON TABLE absences IS 'absent slots that are unconfirmed and will be asked for again';
COMMENT ON COLUMN absences.slots IS 'half-open, inside coverage, without rows';
COMMENT ON COLUMN absences.next_due_at IS 'time of the next recheck';
COMMENT ON COLUMN absences.last_live_at IS 'last observation that counts as evidence';
COMMENT ON COLUMN absences.claimed_until IS 'real time until which one process rechecks them';
COMMENT ON COLUMN symbols.history_ends IS
    'close of the newest candle asked for without a window; of delisted symbols';
COMMENT ON COLUMN symbols.history_ends_source IS 'interval and request that told history_ends';
COMMENT ON COLUMN symbols.history_ends_checked_at IS 'last time that history_ends was asked for';
COMMENT ON COLUMN series.history_witnesses IS
    'questions of different widths that told history_begins';
COMMENT ON COLUMN series.history_checked_at IS 'last time that history_begins was asked for';
COMMENT ON COLUMN series.history_recheck_at IS 'time to ask for history_begins again';
"""

# Where a grid is not known, the whole stretch that holds now goes: its start is an open time.
_CUT_AT_NOW = """
WITH beyond AS (
    SELECT series.id, coverage, grid,
           (extract(epoch FROM now()) * 1000)::bigint AS now_ms,
           (grid ->> 'step_ms')::bigint AS step_ms,
           coalesce(grid_phase_ms, (grid ->> 'phase_ms')::bigint) AS phase_ms
    FROM series JOIN symbols ON symbols.id = symbol_id
    LEFT JOIN supported_intervals USING (exchange, market_type, interval)
    WHERE upper(coverage) > now() OR upper_inf(coverage)
), cut AS (
    SELECT id, CASE
        WHEN step_ms IS NOT NULL
        THEN to_timestamp((now_ms - mod(now_ms - phase_ms, step_ms)) / 1000.0)
        WHEN grid ->> 'unit' = 'month' THEN date_trunc('month', now(), 'UTC')
        ELSE coalesce((SELECT lower(part) FROM unnest(coverage) AS part WHERE part @> now()), now())
        END AS since, CASE
        WHEN isfinite(upper(coverage)) THEN upper(coverage)
        ELSE now() + interval '1 year'
        END AS until
    FROM beyond
), trimmed AS (
    UPDATE series SET epoch = epoch + 1,
        coverage = coverage - tstzmultirange(tstzrange(cut.since, NULL))
    FROM cut WHERE series.id = cut.id
    RETURNING series.id, tstzrange(cut.since, cut.until) AS slots, epoch
), emptied AS (
    DELETE FROM candles USING cut WHERE series_id = cut.id AND time >= cut.since
)
INSERT INTO changes (series_id, slots, epoch) SELECT id, slots, epoch FROM trimmed
"""

# A history begins no later than with its first stored candle.
_BEGIN_WITH_CANDLES = """
WITH early AS (
    SELECT id, history_begins, (
        SELECT time FROM candles
        WHERE series_id = series.id AND time < history_begins ORDER BY time LIMIT 1) AS first
    FROM series WHERE history_begins IS NOT NULL
), moved AS (
    UPDATE series SET history_begins = first, epoch = epoch + 1
    FROM early WHERE series.id = early.id AND first IS NOT NULL
    RETURNING series.id, tstzrange(first, early.history_begins) AS slots, epoch
), touched AS (
    DELETE FROM changes USING moved WHERE changes.series_id = moved.id
        AND (changes.slots && moved.slots OR changes.slots -|- moved.slots)
    RETURNING changes.series_id, upper(changes.slots) AS until
)
INSERT INTO changes (series_id, slots, epoch)
SELECT id, tstzrange(lower(slots), greatest(upper(slots), until)), epoch
FROM moved LEFT JOIN touched ON series_id = id
"""

# The first version wrote no error: it was most likely a row that can't be right.
_CODES = """
UPDATE backfills SET missing = (
    SELECT jsonb_agg(
        loss || jsonb_build_object('error', coalesce(code, 'internal_error')) ORDER BY position)
    FROM jsonb_array_elements(missing) WITH ORDINALITY AS listed (loss, position)
    LEFT JOIN (VALUES
        ('InvalidParameter', 'invalid_parameter'),
        ('InvalidWindow', 'invalid_window'),
        ('NothingClosed', 'invalid_window'),
        ('LimitTooLarge', 'limit_too_large'),
        ('WindowTooLarge', 'window_too_large'),
        ('HistoryUnavailable', 'history_unavailable'),
        ('UnknownExchange', 'unknown_exchange'),
        ('UnknownMarketType', 'unknown_market_type'),
        ('UnknownSymbol', 'unknown_symbol'),
        ('UnsupportedInterval', 'unsupported_interval'),
        ('NoCandle', 'not_found'),
        ('NeverTraded', 'not_found'),
        ('UnknownBackfill', 'not_found'),
        ('ExchangeRejected', 'upstream_rejected'),
        ('BadPayload', 'upstream_bad_data'),
        ('BadRows', 'upstream_bad_data'),
        ('ExchangeUnavailable', 'upstream_unavailable'),
        ('RateLimited', 'rate_limited'),
        ('NoSyncer', 'syncer_unavailable'),
        ('Overloaded', 'overloaded'),
        ('StoreUnavailable', 'store_unavailable'),
        ('SchemaMissing', 'store_unavailable'),
        ('SeriesRepaired', 'store_unavailable')
    ) AS codes (name, code) ON name = coalesce(loss ->> 'error', 'BadRows')
) WHERE missing <> '[]'
"""

_NAMES = """
UPDATE backfills SET missing = (
    SELECT jsonb_agg(
        loss || jsonb_build_object('error', coalesce(name, 'MdpError')) ORDER BY position)
    FROM jsonb_array_elements(missing) WITH ORDINALITY AS listed (loss, position)
    LEFT JOIN (VALUES
        ('history_unavailable', 'HistoryUnavailable'),
        ('upstream_rejected', 'ExchangeRejected'),
        ('upstream_bad_data', 'BadRows'),
        ('upstream_unavailable', 'ExchangeUnavailable'),
        ('rate_limited', 'RateLimited'),
        ('overloaded', 'Overloaded'),
        ('store_unavailable', 'StoreUnavailable')
    ) AS names (code, name) ON code = loss ->> 'error'
) WHERE missing <> '[]'
"""

_DOWNGRADE = """
DROP TABLE absences, clock_offsets, revisions, changes, store;
ALTER TABLE symbols
    DROP COLUMN history_ends_checked_at,
    DROP COLUMN history_ends_source,
    DROP COLUMN history_ends;
ALTER TABLE series
    DROP COLUMN history_recheck_at,
    DROP COLUMN history_checked_at,
    DROP COLUMN history_witnesses;
"""


def upgrade() -> None:
    """Add the tables, end what can't be true, turn the names of errors into codes."""
    op.execute("SET LOCAL lock_timeout = '10s'")
    op.execute(_TABLES)
    op.execute(_CUT_AT_NOW)
    op.execute(_BEGIN_WITH_CANDLES)
    op.execute(_CODES)


def downgrade() -> None:
    """Remove the tables; coverage stays cut."""
    op.execute("SET LOCAL lock_timeout = '10s'")
    op.execute(_NAMES)
    op.execute(_DOWNGRADE)
