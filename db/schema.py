"""The tables for SQLAlchemy: the catalog queries them, Alembic compares them.

The migrations make them; nothing is ever created from this file.
"""

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    DateTime,
    Double,
    ForeignKey,
    Identity,
    Index,
    Integer,
    MetaData,
    PrimaryKeyConstraint,
    Table,
    Text,
    UniqueConstraint,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB, TSTZMULTIRANGE, TSTZRANGE

metadata = MetaData(
    naming_convention={
        "pk": "pk_%(table_name)s",
        "fk": "fk_%(table_name)s_%(column_0_name)s",
        "uq": "uq_%(table_name)s_%(column_0_name)s",
        "ix": "ix_%(table_name)s_%(column_0_name)s",
    }
)

_TIME = DateTime(timezone=True)
_NOW = text("now()")


exchanges = Table(
    "exchanges",
    metadata,
    Column("code", Text, primary_key=True),
    Column("name", Text, nullable=False),
    Column("symbols_fetched_at", _TIME, comment="when the list of symbols was last complete"),
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
    Column("active", Boolean, nullable=False),
    Column("tick_size", Double),
    Column("step_size", Double),
    Column("listed_at", _TIME, comment="information only, as the exchange says"),
    Column("listed_source", Text),
    Column("delisted_at", _TIME, comment="information only, as the exchange says"),
    Column("delisted_source", Text),
    UniqueConstraint("exchange", "market_type", "native"),
    Index("ix_symbols_name", "exchange", "market_type", "name"),
)

series = Table(
    "series",
    metadata,
    Column("id", Integer, Identity(always=True), primary_key=True),
    Column("symbol_id", Integer, ForeignKey("symbols.id"), nullable=False),
    Column("interval", Text, nullable=False),
    Column("grid_phase_ms", BigInteger, comment="where it differs from the exchange's usual one"),
    Column("coverage", TSTZMULTIRANGE, nullable=False, server_default=text("'{}'")),
    Column("history_begins", _TIME, comment="open time of the exchange's first candle"),
    Column("history_source", Text, comment="how that is known"),
    Column("epoch", BigInteger, nullable=False, server_default=text("0")),
    UniqueConstraint("symbol_id", "interval"),
)

series_usage = Table(
    "series_usage",
    metadata,
    Column("series_id", Integer, ForeignKey("series.id"), primary_key=True),
    Column("last_requested", _TIME, nullable=False),
    Column("requests", BigInteger, nullable=False),
    Column("last_at_edge", _TIME, comment="when the newest candles were last asked for"),
)

# No foreign key: with one, eight writers that create chunks deadlock in most saves (measured).
candles = Table(
    "candles",
    metadata,
    Column("series_id", Integer, nullable=False),
    Column("time", _TIME, nullable=False, comment="open time"),
    Column("open", Double, nullable=False),
    Column("high", Double, nullable=False),
    Column("low", Double, nullable=False),
    Column("close", Double, nullable=False),
    Column("volume", Double, nullable=False, comment="base units"),
    Column("quote_volume", Double),
    Column("trades", Integer),
    PrimaryKeyConstraint("series_id", "time"),
)

rejected_rows = Table(
    "rejected_rows",
    metadata,
    Column("series_id", Integer, ForeignKey("series.id"), nullable=False),
    Column("slot", _TIME, nullable=False),
    Column("row", Text, nullable=False, comment="what the exchange sent"),
    Column("reason", Text, nullable=False),
    Column("times_seen", Integer, nullable=False, server_default=text("1")),
    Column("first_seen", _TIME, nullable=False, server_default=_NOW),
    Column("last_seen", _TIME, nullable=False, server_default=_NOW),
    PrimaryKeyConstraint("series_id", "slot"),
)

rate_budgets = Table(
    "rate_budgets",
    metadata,
    Column("exchange", Text, nullable=False),
    Column("egress", Text, nullable=False),
    Column("tokens", Double, nullable=False),
    Column("refilled_at", _TIME, nullable=False, server_default=_NOW),
    Column("blocked_until", _TIME),
    Column("blocked_why", Text),
    PrimaryKeyConstraint("exchange", "egress"),
)

backfills = Table(
    "backfills",
    metadata,
    Column("id", BigInteger, Identity(always=True), primary_key=True),
    Column("series_id", Integer, ForeignKey("series.id"), nullable=False),
    Column("span", TSTZRANGE, nullable=False, comment="the window, half-open"),
    Column("state", Text, nullable=False, server_default=text("'open'")),
    Column("created_at", _TIME, nullable=False, server_default=_NOW),
    Column("ended_at", _TIME),
    Column("error", Text),
    Column("started_at", _TIME),
    Column(
        "missing",
        JSONB,
        nullable=False,
        server_default=text("'[]'"),
        comment="what could not be had: start_ms, end_ms, reason of each",
    ),
    CheckConstraint("NOT isempty(span)", name="ck_backfills_span"),
    Index(
        "uq_backfills_open",
        "series_id",
        "span",
        unique=True,
        postgresql_where=text("state = 'open'"),
    ),
)

job_runs = Table(
    "job_runs",
    metadata,
    Column("job", Text, nullable=False),
    Column("due_at", _TIME, nullable=False),
    Column("worker", Text, nullable=False),
    Column("started_at", _TIME, nullable=False, server_default=_NOW),
    Column("heartbeat_at", _TIME, nullable=False, server_default=_NOW),
    Column("ended_at", _TIME),
    Column("rows", BigInteger),
    Column("error", Text),
    Column("waiting", Integer, comment="series that there was no budget for"),
    PrimaryKeyConstraint("job", "due_at"),
    Index("ix_job_runs_running", "heartbeat_at", postgresql_where=text("ended_at IS NULL")),
)

syncers = Table(
    "syncers",
    metadata,
    Column("name", Text, primary_key=True),
    Column("started_at", _TIME, nullable=False, server_default=_NOW),
    Column("heartbeat_at", _TIME, nullable=False, server_default=_NOW),
)
