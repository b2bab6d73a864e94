"""Conditions that the database holds, and comments on tables and columns.

Prices of candles have no condition: each row is checked before it is stored, and a second check of
a hundred million rows would cost every save for nothing.
"""

from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

_CONDITIONS = """
ALTER TABLE supported_intervals
    ADD CONSTRAINT ck_supported_intervals_market_type
        CHECK (market_type IN ('perp', 'spot')) NOT VALID,
    ADD CONSTRAINT ck_supported_intervals_interval CHECK (interval IN (
        '1m', '3m', '5m', '15m', '30m', '1h', '2h', '4h', '6h', '8h', '12h',
        '1d', '3d', '1w', '1M')) NOT VALID;
ALTER TABLE symbols
    ADD CONSTRAINT ck_symbols_market_type CHECK (market_type IN ('perp', 'spot')) NOT VALID;
ALTER TABLE series
    ADD CONSTRAINT ck_series_interval CHECK (interval IN (
        '1m', '3m', '5m', '15m', '30m', '1h', '2h', '4h', '6h', '8h', '12h',
        '1d', '3d', '1w', '1M')) NOT VALID,
    ADD CONSTRAINT ck_series_coverage CHECK (isempty(coverage) OR coalesce(
        isfinite(lower(coverage)) AND isfinite(upper(coverage))
        AND lower_inc(coverage) AND NOT upper_inc(coverage), false)) NOT VALID,
    ADD CONSTRAINT ck_series_epoch CHECK (epoch >= 0) NOT VALID;
ALTER TABLE series_usage
    ADD CONSTRAINT ck_series_usage_requests CHECK (requests >= 0) NOT VALID;
ALTER TABLE backfills
    DROP CONSTRAINT ck_backfills_span,
    ADD CONSTRAINT ck_backfills_span CHECK (coalesce(
        isfinite(lower(span)) AND isfinite(upper(span))
        AND lower_inc(span) AND NOT upper_inc(span), false)) NOT VALID,
    ADD CONSTRAINT ck_backfills_state
        CHECK (state IN ('open', 'done', 'cancelled', 'failed')) NOT VALID;

ALTER TABLE supported_intervals VALIDATE CONSTRAINT ck_supported_intervals_market_type;
ALTER TABLE supported_intervals VALIDATE CONSTRAINT ck_supported_intervals_interval;
ALTER TABLE symbols VALIDATE CONSTRAINT ck_symbols_market_type;
ALTER TABLE series VALIDATE CONSTRAINT ck_series_interval;
ALTER TABLE series VALIDATE CONSTRAINT ck_series_coverage;
ALTER TABLE series VALIDATE CONSTRAINT ck_series_epoch;
ALTER TABLE series_usage VALIDATE CONSTRAINT ck_series_usage_requests;
ALTER TABLE backfills VALIDATE CONSTRAINT ck_backfills_span;
ALTER TABLE backfills VALIDATE CONSTRAINT ck_backfills_state;
"""

_COMMENTS = """
COMMENT ON TABLE exchanges IS 'exchanges that have an adapter';
COMMENT ON COLUMN exchanges.symbols_fetched_at IS 'last complete list of symbols; for reports';
COMMENT ON TABLE supported_intervals IS
    'intervals that an exchange offers; for reports, the services know them';
COMMENT ON TABLE symbols IS 'symbols that an exchange lists or listed; rows are never deleted';
COMMENT ON COLUMN symbols.active IS 'listed by the exchange now';
COMMENT ON COLUMN symbols.tick_size IS 'smallest step of a price';
COMMENT ON COLUMN symbols.step_size IS 'smallest step of a volume';
COMMENT ON COLUMN symbols.listed_source IS 'origin of listed_at; for reports';
COMMENT ON COLUMN symbols.delisted_source IS 'origin of delisted_at; for reports';
COMMENT ON TABLE series IS 'one row for each stored series: a symbol and an interval';
COMMENT ON COLUMN series.coverage IS
    'windows for which the store equals the exchange; slots without a row are absent';
COMMENT ON COLUMN series.history_source IS 'how history_begins is known';
COMMENT ON COLUMN series.epoch IS
    'highest epoch of the series in changes; 0 while nothing stored has changed';
COMMENT ON TABLE series_usage IS
    'demand for a series; apart from series, so that a hit never waits for a fill';
COMMENT ON COLUMN series_usage.requests IS 'never negative';
COMMENT ON COLUMN series_usage.last_at_edge IS 'last request for the newest candles';
COMMENT ON TABLE candles IS
    'settled candles, inside the coverage of their series; prices are checked before';
COMMENT ON COLUMN candles.quote_volume IS 'quote units; null where the exchange has none';
COMMENT ON COLUMN candles.trades IS 'null where the exchange has none';
COMMENT ON TABLE rejected_rows IS 'rows that an exchange sent and that can not be right';
COMMENT ON COLUMN rejected_rows.slot IS 'open time; not covered while the row is bad';
COMMENT ON TABLE rate_budgets IS
    'tokens for requests to an exchange, shared by all processes of one egress';
COMMENT ON COLUMN rate_budgets.exchange IS 'may be asked before it is in exchanges';
COMMENT ON COLUMN rate_budgets.egress IS 'address that the exchange counts by';
COMMENT ON COLUMN rate_budgets.tokens IS 'below zero after an expensive answer';
COMMENT ON COLUMN rate_budgets.blocked_until IS 'set by a refusal of the exchange, for all';
COMMENT ON TABLE backfills IS
    'fill jobs; what is left of one is told by the coverage of its series';
COMMENT ON COLUMN backfills.state IS 'open, done, cancelled or failed';
COMMENT ON COLUMN backfills.missing IS
    'windows that can not be had: start, end (ms), error (a code), reason (a text)';
COMMENT ON TABLE job_runs IS 'runs of the scheduled jobs of the syncers';
COMMENT ON COLUMN job_runs.due_at IS 'scheduled time; one run of all syncers';
COMMENT ON COLUMN job_runs.rows IS 'candles that the run stored';
COMMENT ON TABLE syncers IS 'syncers and their last sign of life';
"""

_DOWNGRADE = """
ALTER TABLE symbols DROP CONSTRAINT ck_symbols_market_type;
ALTER TABLE series
    DROP CONSTRAINT ck_series_epoch,
    DROP CONSTRAINT ck_series_coverage,
    DROP CONSTRAINT ck_series_interval;
ALTER TABLE series_usage DROP CONSTRAINT ck_series_usage_requests;
ALTER TABLE supported_intervals
    DROP CONSTRAINT ck_supported_intervals_interval,
    DROP CONSTRAINT ck_supported_intervals_market_type;
ALTER TABLE backfills
    DROP CONSTRAINT ck_backfills_state,
    DROP CONSTRAINT ck_backfills_span,
    ADD CONSTRAINT ck_backfills_span CHECK (NOT isempty(span));

COMMENT ON TABLE exchanges IS NULL;
COMMENT ON COLUMN exchanges.symbols_fetched_at IS 'when the list of symbols was last complete';
COMMENT ON TABLE supported_intervals IS NULL;
COMMENT ON TABLE symbols IS NULL;
COMMENT ON COLUMN symbols.active IS NULL;
COMMENT ON COLUMN symbols.tick_size IS NULL;
COMMENT ON COLUMN symbols.step_size IS NULL;
COMMENT ON COLUMN symbols.listed_source IS NULL;
COMMENT ON COLUMN symbols.delisted_source IS NULL;
COMMENT ON TABLE series IS NULL;
COMMENT ON COLUMN series.coverage IS NULL;
COMMENT ON COLUMN series.history_source IS 'how that is known';
COMMENT ON COLUMN series.epoch IS NULL;
COMMENT ON TABLE series_usage IS NULL;
COMMENT ON COLUMN series_usage.requests IS NULL;
COMMENT ON COLUMN series_usage.last_at_edge IS 'when the newest candles were last asked for';
COMMENT ON TABLE candles IS NULL;
COMMENT ON COLUMN candles.quote_volume IS NULL;
COMMENT ON COLUMN candles.trades IS NULL;
COMMENT ON TABLE rejected_rows IS NULL;
COMMENT ON COLUMN rejected_rows.slot IS NULL;
COMMENT ON TABLE rate_budgets IS NULL;
COMMENT ON COLUMN rate_budgets.exchange IS NULL;
COMMENT ON COLUMN rate_budgets.egress IS NULL;
COMMENT ON COLUMN rate_budgets.tokens IS NULL;
COMMENT ON COLUMN rate_budgets.blocked_until IS NULL;
COMMENT ON TABLE backfills IS NULL;
COMMENT ON COLUMN backfills.state IS NULL;
COMMENT ON COLUMN backfills.missing IS 'what could not be had: start_ms, end_ms, reason of each';
COMMENT ON TABLE job_runs IS NULL;
COMMENT ON COLUMN job_runs.due_at IS NULL;
COMMENT ON COLUMN job_runs.rows IS NULL;
COMMENT ON TABLE syncers IS NULL;
"""


def upgrade() -> None:
    """Add the conditions, check what is stored against them, and comment."""
    op.execute("SET LOCAL lock_timeout = '10s'")
    op.execute(_CONDITIONS)
    op.execute(_COMMENTS)


def downgrade() -> None:
    """Remove the conditions and the comments."""
    op.execute("SET LOCAL lock_timeout = '10s'")
    op.execute(_DOWNGRADE)
