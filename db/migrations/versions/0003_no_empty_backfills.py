"""A fill job has a window: one without bounds could be neither read nor worked on."""

from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

_UPGRADE = """
SET LOCAL lock_timeout = '10s';

DELETE FROM backfills WHERE isempty(span);
ALTER TABLE backfills ADD CONSTRAINT ck_backfills_span CHECK (NOT isempty(span));
"""

_DOWNGRADE = """
ALTER TABLE backfills DROP CONSTRAINT ck_backfills_span;
"""


def upgrade() -> None:
    """Drop the jobs that have nothing to fill, and let none in any more."""
    op.execute(_UPGRADE)


def downgrade() -> None:
    """Let them in again."""
    op.execute(_DOWNGRADE)
