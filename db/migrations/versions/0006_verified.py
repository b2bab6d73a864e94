"""Runs tell how many candles they found to differ from the exchange's."""

from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

_UPGRADE = """
ALTER TABLE job_runs ADD COLUMN differing bigint;
COMMENT ON COLUMN job_runs.differing IS 'of verify: candles that the exchange answers otherwise';
COMMENT ON COLUMN job_runs.rows IS 'candles that the run stored; of verify: compared';
"""

_DOWNGRADE = """
COMMENT ON COLUMN job_runs.rows IS 'candles that the run stored';
ALTER TABLE job_runs DROP COLUMN differing;
"""


def upgrade() -> None:
    """Add the column."""
    op.execute("SET LOCAL lock_timeout = '10s'")
    op.execute(_UPGRADE)


def downgrade() -> None:
    """Remove the column."""
    op.execute("SET LOCAL lock_timeout = '10s'")
    op.execute(_DOWNGRADE)
