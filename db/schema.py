"""The tables for SQLAlchemy: the catalog queries them, Alembic compares them.

The migrations make them; nothing is ever created from this file.
"""

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    Double,
    ForeignKey,
    Identity,
    Index,
    Integer,
    PrimaryKeyConstraint,
    Table,
    Text,
    UniqueConstraint,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB, TSTZMULTIRANGE, TSTZRANGE

from db.access import backfill_subjects, revoked_tokens
from db.base import (
    BACKFILL_STATES,
    INTERVALS,
    MARKET_TYPES,
    NOW,
    TIME,
    bounded,
    metadata,
    one_of,
)
from db.evidence import absences, changes, clock_offsets, revisions, store

__all__ = [
    "absences",
    "backfill_subjects",
    "changes",
    "clock_offsets",
    "metadata",
    "revisions",
    "revoked_tokens",
    "store",
]

exchanges = Table(
    "exchanges",
    metadata,
    Column("code", Text, primary_key=True),
    Column("name", Text, nullable=False),
    Column("symbols_fetched_at", TIME, comment="last complete list of symbols; for reports"),
    comment="exchanges that have an adapter",
)

supported_intervals = Table(
    "supported_intervals",
    metadata,
    Column("exchange", Text, ForeignKey("exchanges.code"), nullable=False),
    Column("market_type", Text, nullable=False),
    Column("interval", Text, nullable=False),
    Column("native", Text, nullable=False, comment="the exchange's own spelling"),
    Column("grid", JSONB, nullable=False, comment="step_ms and phase_ms, or unit month"),
    PrimaryKeyConstraint("exchange", "market_type", "interval"),
    CheckConstraint(one_of("market_type", MARKET_TYPES), name="ck_supported_intervals_market_type"),
    CheckConstraint(one_of("interval", INTERVALS), name="ck_supported_intervals_interval"),
    comment="intervals that an exchange offers; for reports, the services know them",
)

symbols = Table(
    "symbols",
    metadata,
    Column("id", Integer, Identity(always=True), primary_key=True),
    Column("exchange", Text, ForeignKey("exchanges.code"), nullable=False),
    Column("market_type", Text, nullable=False),
    Column("name", Text, nullable=False, comment="canonical, BASE-QUOTE"),
    Column("native", Text, nullable=False, comment="the exchange's own id"),
    Column("base", Text, nullable=False),
    Column("quote", Text, nullable=False),
    Column("multiplier", Integer, nullable=False, comment="tokens in one unit of base"),
    Column("active", Boolean, nullable=False, comment="listed by the exchange now"),
    Column("tick_size", Double, comment="smallest step of a price"),
    Column("step_size", Double, comment="smallest step of a volume"),
    Column("listed_at", TIME, comment="information only, as the exchange says"),
    Column("listed_source", Text, comment="origin of listed_at; for reports"),
    Column("delisted_at", TIME, comment="information only, as the exchange says"),
    Column("delisted_source", Text, comment="origin of delisted_at; for reports"),
    Column(
        "history_ends",
        TIME,
        comment="close of the newest candle asked for without a window; of delisted symbols",
    ),
    Column("history_ends_source", Text, comment="interval and request that told history_ends"),
    Column("history_ends_checked_at", TIME, comment="last time that history_ends was asked for"),
    CheckConstraint(one_of("market_type", MARKET_TYPES), name="ck_symbols_market_type"),
    UniqueConstraint("exchange", "market_type", "native"),
    Index("ix_symbols_name", "exchange", "market_type", "name"),
    comment="symbols that an exchange lists or listed; rows are never deleted",
)

series = Table(
    "series",
    metadata,
    Column("id", Integer, Identity(always=True), primary_key=True),
    Column("symbol_id", Integer, ForeignKey("symbols.id"), nullable=False),
    Column("interval", Text, nullable=False),
    Column("grid_phase_ms", BigInteger, comment="where it differs from the exchange's usual one"),
    Column(
        "coverage",
        TSTZMULTIRANGE,
        nullable=False,
        server_default=text("'{}'"),
        comment="windows for which the store equals the exchange; slots without a row are absent",
    ),
    Column("history_begins", TIME, comment="open time of the exchange's first candle"),
    Column("history_source", Text, comment="how history_begins is known"),
    Column(
        "history_witnesses",
        Integer,
        nullable=False,
        server_default=text("0"),
        comment="questions of different widths that told history_begins",
    ),
    Column("history_checked_at", TIME, comment="last time that history_begins was asked for"),
    Column("history_recheck_at", TIME, comment="time to ask for history_begins again"),
    Column(
        "epoch",
        BigInteger,
        nullable=False,
        server_default=text("0"),
        comment="highest epoch of the series in changes; 0 while nothing stored has changed",
    ),
    UniqueConstraint("symbol_id", "interval"),
    CheckConstraint(one_of("interval", INTERVALS), name="ck_series_interval"),
    CheckConstraint(
        f"isempty(coverage) OR {bounded('coverage')}",
        name="ck_series_coverage",
    ),
    CheckConstraint("epoch >= 0", name="ck_series_epoch"),
    comment="one row for each stored series: a symbol and an interval",
)

series_usage = Table(
    "series_usage",
    metadata,
    Column("series_id", Integer, ForeignKey("series.id"), primary_key=True),
    Column("last_requested", TIME, nullable=False),
    Column("requests", BigInteger, nullable=False, comment="never negative"),
    Column("last_at_edge", TIME, comment="last request for the newest candles"),
    CheckConstraint("requests >= 0", name="ck_series_usage_requests"),
    comment="demand for a series; apart from series, so that a hit never waits for a fill",
)

# No foreign key: with one, eight writers that create chunks deadlock in most saves (measured).
candles = Table(
    "candles",
    metadata,
    Column("series_id", Integer, nullable=False),
    Column("time", TIME, nullable=False, comment="open time"),
    Column("open", Double, nullable=False),
    Column("high", Double, nullable=False),
    Column("low", Double, nullable=False),
    Column("close", Double, nullable=False),
    Column("volume", Double, nullable=False, comment="base units"),
    Column("quote_volume", Double, comment="quote units; null where the exchange has none"),
    Column("trades", Integer, comment="null where the exchange has none"),
    Column(
        "taker_buy_volume", Double, comment="base units; null where not given or not yet stored"
    ),
    Column(
        "taker_buy_quote_volume",
        Double,
        comment="quote units; null where not given or not yet stored",
    ),
    PrimaryKeyConstraint("series_id", "time"),
    comment="settled candles, inside the coverage of their series; prices are checked before",
)

rejected_rows = Table(
    "rejected_rows",
    metadata,
    Column("series_id", Integer, ForeignKey("series.id"), nullable=False),
    Column("slot", TIME, nullable=False, comment="open time; not covered while the row is bad"),
    Column("row", Text, nullable=False, comment="what the exchange sent"),
    Column("reason", Text, nullable=False),
    Column("times_seen", Integer, nullable=False, server_default=text("1")),
    Column("first_seen", TIME, nullable=False, server_default=NOW),
    Column("last_seen", TIME, nullable=False, server_default=NOW),
    PrimaryKeyConstraint("series_id", "slot"),
    comment="rows that an exchange sent and that can not be right",
)

rate_budgets = Table(
    "rate_budgets",
    metadata,
    Column("exchange", Text, nullable=False, comment="may be asked before it is in exchanges"),
    Column("egress", Text, nullable=False, comment="address that the exchange counts by"),
    Column("tokens", Double, nullable=False, comment="below zero after an expensive answer"),
    Column("refilled_at", TIME, nullable=False, server_default=NOW),
    Column("blocked_until", TIME, comment="set by a refusal of the exchange, for all"),
    Column("blocked_why", Text),
    PrimaryKeyConstraint("exchange", "egress"),
    comment="tokens for requests to an exchange, shared by all processes of one egress",
)

backfills = Table(
    "backfills",
    metadata,
    Column("id", BigInteger, Identity(always=True), primary_key=True),
    Column("series_id", Integer, ForeignKey("series.id"), nullable=False),
    Column("span", TSTZRANGE, nullable=False, comment="the window, half-open"),
    Column(
        "state",
        Text,
        nullable=False,
        server_default=text("'open'"),
        comment="open, done, cancelled or failed",
    ),
    Column("created_at", TIME, nullable=False, server_default=NOW),
    Column("ended_at", TIME),
    Column("error", Text),
    Column("started_at", TIME),
    Column(
        "missing",
        JSONB,
        nullable=False,
        server_default=text("'[]'"),
        comment="windows that can not be had: start, end (ms), error (a code), reason (a text)",
    ),
    CheckConstraint(bounded("span"), name="ck_backfills_span"),
    CheckConstraint(one_of("state", BACKFILL_STATES), name="ck_backfills_state"),
    Index(
        "uq_backfills_open",
        "series_id",
        "span",
        unique=True,
        postgresql_where=text("state = 'open'"),
    ),
    comment="fill jobs; what is left of one is told by the coverage of its series",
)

job_runs = Table(
    "job_runs",
    metadata,
    Column("job", Text, nullable=False),
    Column("due_at", TIME, nullable=False, comment="scheduled time; one run of all syncers"),
    Column("worker", Text, nullable=False),
    Column("started_at", TIME, nullable=False, server_default=NOW),
    Column("heartbeat_at", TIME, nullable=False, server_default=NOW),
    Column("ended_at", TIME),
    Column("rows", BigInteger, comment="candles that the run stored; of verify: compared"),
    Column("error", Text),
    Column(
        "differing", BigInteger, comment="of verify: candles that the exchange answers otherwise"
    ),
    Column("waiting", Integer, comment="series that there was no budget for"),
    PrimaryKeyConstraint("job", "due_at"),
    Index("ix_job_runs_running", "heartbeat_at", postgresql_where=text("ended_at IS NULL")),
    comment="runs of the scheduled jobs of the syncers",
)

syncers = Table(
    "syncers",
    metadata,
    Column("name", Text, primary_key=True),
    Column("started_at", TIME, nullable=False, server_default=NOW),
    Column("heartbeat_at", TIME, nullable=False, server_default=NOW),
    comment="syncers and their last sign of life",
)
