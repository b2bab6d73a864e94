"""Tables and columns of the syncer: heartbeats, hot series, lost windows."""

from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

_UPGRADE = """
SET LOCAL lock_timeout = '10s';

CREATE TABLE syncers (
    name text CONSTRAINT pk_syncers PRIMARY KEY,
    started_at timestamptz NOT NULL DEFAULT now(),
    heartbeat_at timestamptz NOT NULL DEFAULT now()
);

ALTER TABLE series_usage ADD COLUMN last_at_edge timestamptz;
COMMENT ON COLUMN series_usage.last_at_edge IS 'when the newest candles were last asked for';

ALTER TABLE job_runs ADD COLUMN waiting integer;
COMMENT ON COLUMN job_runs.waiting IS 'series that there was no budget for';
CREATE INDEX ix_job_runs_running ON job_runs (heartbeat_at) WHERE ended_at IS NULL;

ALTER TABLE backfills ADD COLUMN started_at timestamptz;
ALTER TABLE backfills ADD COLUMN missing jsonb NOT NULL DEFAULT '[]';
COMMENT ON COLUMN backfills.missing IS 'what could not be had: start_ms, end_ms, reason of each';
"""

_DOWNGRADE = """
ALTER TABLE backfills DROP COLUMN missing;
ALTER TABLE backfills DROP COLUMN started_at;
DROP INDEX ix_job_runs_running;
ALTER TABLE job_runs DROP COLUMN waiting;
ALTER TABLE series_usage DROP COLUMN last_at_edge;
DROP TABLE syncers;
"""


def upgrade() -> None:
    """Add it."""
    op.execute(_UPGRADE)


def downgrade() -> None:
    """Take it away again."""
    op.execute(_DOWNGRADE)
