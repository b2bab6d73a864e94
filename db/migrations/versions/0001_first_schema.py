"""The first schema: catalog, candles and coverage, budgets, jobs.

`candles` is a hypertable where TimescaleDB is installed on the server and an ordinary table where
it isn't; everything works on both. The chunk interval is measured: docs/chunk-interval.md.
"""

from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

_TABLES = """
CREATE TABLE exchanges (
    code text CONSTRAINT pk_exchanges PRIMARY KEY,
    name text NOT NULL,
    symbols_fetched_at timestamptz
);
COMMENT ON COLUMN exchanges.symbols_fetched_at IS 'when the list of symbols was last complete';

CREATE TABLE supported_intervals (
    exchange text NOT NULL
        CONSTRAINT fk_supported_intervals_exchange REFERENCES exchanges (code),
    market_type text NOT NULL,
    interval text NOT NULL,
    native text NOT NULL,
    grid jsonb NOT NULL,
    CONSTRAINT pk_supported_intervals PRIMARY KEY (exchange, market_type, interval)
);
COMMENT ON COLUMN supported_intervals.native IS 'the exchange''s own spelling';
COMMENT ON COLUMN supported_intervals.grid IS 'step_ms and phase_ms, or unit month';

CREATE TABLE symbols (
    id integer GENERATED ALWAYS AS IDENTITY CONSTRAINT pk_symbols PRIMARY KEY,
    exchange text NOT NULL CONSTRAINT fk_symbols_exchange REFERENCES exchanges (code),
    market_type text NOT NULL,
    name text NOT NULL,
    native text NOT NULL,
    base text NOT NULL,
    quote text NOT NULL,
    multiplier integer NOT NULL,
    active boolean NOT NULL,
    tick_size float8,
    step_size float8,
    listed_at timestamptz,
    listed_source text,
    delisted_at timestamptz,
    delisted_source text,
    CONSTRAINT uq_symbols_exchange UNIQUE (exchange, market_type, native)
);
CREATE INDEX ix_symbols_name ON symbols (exchange, market_type, name);
COMMENT ON COLUMN symbols.name IS 'canonical, BASE-QUOTE';
COMMENT ON COLUMN symbols.native IS 'the exchange''s own id';
COMMENT ON COLUMN symbols.multiplier IS 'tokens in one unit of base';
COMMENT ON COLUMN symbols.listed_at IS 'information only, as the exchange says';
COMMENT ON COLUMN symbols.delisted_at IS 'information only, as the exchange says';

CREATE TABLE series (
    id integer GENERATED ALWAYS AS IDENTITY CONSTRAINT pk_series PRIMARY KEY,
    symbol_id integer NOT NULL CONSTRAINT fk_series_symbol_id REFERENCES symbols (id),
    interval text NOT NULL,
    grid_phase_ms bigint,
    coverage tstzmultirange NOT NULL DEFAULT '{}',
    history_begins timestamptz,
    history_source text,
    epoch bigint NOT NULL DEFAULT 0,
    CONSTRAINT uq_series_symbol_id UNIQUE (symbol_id, interval)
);
COMMENT ON COLUMN series.grid_phase_ms IS 'where it differs from the exchange''s usual one';
COMMENT ON COLUMN series.history_begins IS 'open time of the exchange''s first candle';
COMMENT ON COLUMN series.history_source IS 'how that is known';

CREATE TABLE series_usage (
    series_id integer CONSTRAINT pk_series_usage PRIMARY KEY
        CONSTRAINT fk_series_usage_series_id REFERENCES series (id),
    last_requested timestamptz NOT NULL,
    requests bigint NOT NULL
);

CREATE TABLE candles (
    series_id integer NOT NULL,
    time timestamptz NOT NULL,
    open float8 NOT NULL,
    high float8 NOT NULL,
    low float8 NOT NULL,
    close float8 NOT NULL,
    volume float8 NOT NULL,
    quote_volume float8,
    trades integer,
    CONSTRAINT pk_candles PRIMARY KEY (series_id, time)
);
COMMENT ON COLUMN candles.time IS 'open time';
COMMENT ON COLUMN candles.volume IS 'base units';

CREATE TABLE rejected_rows (
    series_id integer NOT NULL CONSTRAINT fk_rejected_rows_series_id REFERENCES series (id),
    slot timestamptz NOT NULL,
    row text NOT NULL,
    reason text NOT NULL,
    times_seen integer NOT NULL DEFAULT 1,
    first_seen timestamptz NOT NULL DEFAULT now(),
    last_seen timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT pk_rejected_rows PRIMARY KEY (series_id, slot)
);
COMMENT ON COLUMN rejected_rows.row IS 'what the exchange sent';

CREATE TABLE rate_budgets (
    exchange text NOT NULL,
    egress text NOT NULL,
    tokens float8 NOT NULL,
    refilled_at timestamptz NOT NULL DEFAULT now(),
    blocked_until timestamptz,
    blocked_why text,
    CONSTRAINT pk_rate_budgets PRIMARY KEY (exchange, egress)
);

CREATE TABLE backfills (
    id bigint GENERATED ALWAYS AS IDENTITY CONSTRAINT pk_backfills PRIMARY KEY,
    series_id integer NOT NULL CONSTRAINT fk_backfills_series_id REFERENCES series (id),
    span tstzrange NOT NULL,
    state text NOT NULL DEFAULT 'open',
    created_at timestamptz NOT NULL DEFAULT now(),
    ended_at timestamptz,
    error text
);
CREATE UNIQUE INDEX uq_backfills_open ON backfills (series_id, span) WHERE state = 'open';
COMMENT ON COLUMN backfills.span IS 'the window, half-open';

CREATE TABLE job_runs (
    job text NOT NULL,
    due_at timestamptz NOT NULL,
    worker text NOT NULL,
    started_at timestamptz NOT NULL DEFAULT now(),
    heartbeat_at timestamptz NOT NULL DEFAULT now(),
    ended_at timestamptz,
    rows bigint,
    error text,
    CONSTRAINT pk_job_runs PRIMARY KEY (job, due_at)
);

CREATE VIEW candle_rows AS
SELECT symbols.exchange, symbols.market_type, symbols.name AS symbol, series.interval,
       candles.time, candles.open, candles.high, candles.low, candles.close, candles.volume,
       candles.quote_volume, candles.trades
FROM candles
JOIN series ON series.id = candles.series_id
JOIN symbols ON symbols.id = series.symbol_id;
"""

_HYPERTABLE = """
DO $$
BEGIN
    IF EXISTS (SELECT FROM pg_available_extensions WHERE name = 'timescaledb') THEN
        CREATE EXTENSION IF NOT EXISTS timescaledb;
        PERFORM create_hypertable(
            'candles', by_range('time', INTERVAL '90 days'), create_default_indexes => false);
    END IF;
END
$$
"""


def upgrade() -> None:
    """Make everything."""
    op.execute(_TABLES)
    op.execute(_HYPERTABLE)


def downgrade() -> None:
    """Drop everything; the extension stays, for other databases objects may need it."""
    op.execute("DROP VIEW candle_rows")
    op.execute("DROP TABLE candles")  # a hypertable is not dropped along with others
    op.execute(
        "DROP TABLE job_runs, backfills, rate_budgets, rejected_rows, series_usage, series, "
        "symbols, supported_intervals, exchanges"
    )
