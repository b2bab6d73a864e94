"""The tables about subjects of tokens: their jobs, and tokens that were revoked."""

from sqlalchemy import BigInteger, Column, ForeignKey, Index, PrimaryKeyConstraint, Table, Text

from db.base import NOW, TIME, metadata

backfill_subjects = Table(
    "backfill_subjects",
    metadata,
    Column(
        "backfill_id", BigInteger, ForeignKey("backfills.id", ondelete="CASCADE"), nullable=False
    ),
    Column("subject", Text, nullable=False, comment="empty where no token asked for it"),
    Column("served_at", TIME, comment="last time that a worker took the job"),
    PrimaryKeyConstraint("backfill_id", "subject"),
    Index("ix_backfill_subjects_subject", "subject"),
    comment="subjects of tokens that asked for a fill job",
)

revoked_tokens = Table(
    "revoked_tokens",
    metadata,
    Column("jti", Text, primary_key=True, comment="the claim jti of the token"),
    Column("revoked_at", TIME, nullable=False, server_default=NOW),
    comment="tokens that are refused though they have not expired",
)
