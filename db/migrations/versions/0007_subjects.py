"""Jobs know their subjects; tokens can be revoked."""

from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None

_UPGRADE = """
CREATE TABLE backfill_subjects (
    backfill_id bigint NOT NULL,
    subject text NOT NULL,
    served_at timestamptz,
    CONSTRAINT pk_backfill_subjects PRIMARY KEY (backfill_id, subject),
    CONSTRAINT fk_backfill_subjects_backfill_id FOREIGN KEY (backfill_id)
        REFERENCES backfills (id) ON DELETE CASCADE
);
CREATE INDEX ix_backfill_subjects_subject ON backfill_subjects (subject);
COMMENT ON TABLE backfill_subjects IS 'subjects of tokens that asked for a fill job';
COMMENT ON COLUMN backfill_subjects.subject IS 'empty where no token asked for it';
COMMENT ON COLUMN backfill_subjects.served_at IS 'last time that a worker took the job';
INSERT INTO backfill_subjects (backfill_id, subject) SELECT id, '' FROM backfills;

CREATE TABLE revoked_tokens (
    jti text NOT NULL,
    revoked_at timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT pk_revoked_tokens PRIMARY KEY (jti)
);
COMMENT ON TABLE revoked_tokens IS 'tokens that are refused though they have not expired';
COMMENT ON COLUMN revoked_tokens.jti IS 'the claim jti of the token';
"""

_DOWNGRADE = """
DROP TABLE revoked_tokens;
DROP TABLE backfill_subjects;
"""


def upgrade() -> None:
    """Add both tables; the jobs that are there are no token's."""
    op.execute("SET LOCAL lock_timeout = '10s'")
    op.execute(_UPGRADE)


def downgrade() -> None:
    """Remove both tables."""
    op.execute("SET LOCAL lock_timeout = '10s'")
    op.execute(_DOWNGRADE)
