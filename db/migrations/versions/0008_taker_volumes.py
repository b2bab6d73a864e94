"""Candles have taker buy volumes."""

from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None

_UPGRADE = """
ALTER TABLE candles ADD COLUMN taker_buy_volume float8;
ALTER TABLE candles ADD COLUMN taker_buy_quote_volume float8;
COMMENT ON COLUMN candles.taker_buy_volume IS 'base units; null where not given or not yet stored';
COMMENT ON COLUMN candles.taker_buy_quote_volume IS
    'quote units; null where not given or not yet stored';
"""

_VIEW = """
CREATE OR REPLACE VIEW candle_rows AS
SELECT symbols.exchange, symbols.market_type, symbols.name AS symbol, series.interval,
       candles.time, candles.open, candles.high, candles.low, candles.close, candles.volume,
       candles.quote_volume, candles.trades{more}
FROM candles
JOIN series ON series.id = candles.series_id
JOIN symbols ON symbols.id = series.symbol_id;
"""
_MORE = ", candles.taker_buy_volume, candles.taker_buy_quote_volume"

_DOWNGRADE = """
ALTER TABLE candles DROP COLUMN taker_buy_quote_volume;
ALTER TABLE candles DROP COLUMN taker_buy_volume;
"""


def upgrade() -> None:
    """Add both columns, null in the rows that are there."""
    op.execute("SET LOCAL lock_timeout = '10s'")
    op.execute(_UPGRADE)
    op.execute(_VIEW.format(more=_MORE))


def downgrade() -> None:
    """Remove both columns; a view can't lose some, so it is made anew."""
    op.execute("SET LOCAL lock_timeout = '10s'")
    op.execute("DROP VIEW candle_rows")
    op.execute(_DOWNGRADE)
    op.execute(_VIEW.format(more=""))
