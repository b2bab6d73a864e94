"""The tables of evidence: changes, revisions, absences, clocks, the store."""

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    Column,
    ForeignKey,
    Identity,
    Index,
    Integer,
    PrimaryKeyConstraint,
    Table,
    Text,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB, TSTZRANGE

from db.base import NOW, TIME, bounded, metadata

changes = Table(
    "changes",
    metadata,
    Column("series_id", Integer, ForeignKey("series.id"), nullable=False),
    Column("slots", TSTZRANGE, nullable=False, comment="half-open; no two of a series touch"),
    Column("epoch", BigInteger, nullable=False, comment="epoch of the series after the change"),
    PrimaryKeyConstraint("series_id", "slots"),
    CheckConstraint(bounded("slots"), name="ck_changes_slots"),
    comment="slots whose stored facts changed, kept for ever; neighbours merge, higher epoch",
)

revisions = Table(
    "revisions",
    metadata,
    Column("id", BigInteger, Identity(always=True), primary_key=True),
    Column("series_id", Integer, ForeignKey("series.id"), nullable=False),
    Column("time", TIME, nullable=False, comment="open time"),
    Column("stored", JSONB(none_as_null=True), comment="candle before; null for none"),
    Column("answered", JSONB(none_as_null=True), comment="candle of the exchange; null for none"),
    Column("found_at", TIME, nullable=False, server_default=NOW),
    Column("found_by", Text, nullable=False, comment="repair, verify, recheck or archive"),
    Index("ix_revisions_series_id", "series_id", "time"),
    Index("ix_revisions_found_at", "found_at"),
    comment="settled candles found to differ later, with both values; has a retention",
)

store = Table(
    "store",
    metadata,
    Column("id", BigInteger, primary_key=True, autoincrement=False),
    comment="number of this copy of the data, part of every version; a restore changes it",
)

clock_offsets = Table(
    "clock_offsets",
    metadata,
    Column("exchange", Text, primary_key=True),
    Column("offset_ms", BigInteger, nullable=False, comment="clock of exchange minus database"),
    Column("read_at", TIME, nullable=False, server_default=NOW),
    comment="last known clock of each exchange, for while that can not be asked",
)

absences = Table(
    "absences",
    metadata,
    Column("series_id", Integer, ForeignKey("series.id"), nullable=False),
    Column("slots", TSTZRANGE, nullable=False, comment="half-open, inside coverage, without rows"),
    Column("first_observed_at", TIME, nullable=False, server_default=NOW),
    Column("next_due_at", TIME, nullable=False, comment="time of the next recheck"),
    Column("attempts", Integer, nullable=False, server_default=text("0")),
    Column("last_live_at", TIME, comment="last observation that counts as evidence"),
    Column("claimed_until", TIME, comment="real time until which one process rechecks them"),
    PrimaryKeyConstraint("series_id", "slots"),
    CheckConstraint(bounded("slots"), name="ck_absences_slots"),
    Index("ix_absences_next_due_at", "next_due_at"),
    comment="absent slots that are unconfirmed and will be asked for again",
)
