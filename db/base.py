"""The ground of `db.schema`: naming rules, common types, table conditions."""

from collections.abc import Sequence

from sqlalchemy import DateTime, MetaData, text

metadata = MetaData(
    naming_convention={
        "pk": "pk_%(table_name)s",
        "fk": "fk_%(table_name)s_%(column_0_name)s",
        "uq": "uq_%(table_name)s_%(column_0_name)s",
        "ix": "ix_%(table_name)s_%(column_0_name)s",
    }
)

TIME = DateTime(timezone=True)
NOW = text("now()")

MARKET_TYPES = ("perp", "spot")
INTERVALS = (
    *("1m", "3m", "5m", "15m", "30m"),
    *("1h", "2h", "4h", "6h", "8h", "12h"),
    *("1d", "3d", "1w", "1M"),
)
BACKFILL_STATES = ("open", "done", "cancelled", "failed")


def one_of(column: str, values: Sequence[str]) -> str:
    """Build the condition for a column that holds one of these values."""
    return f"{column} IN ({', '.join(map(repr, values))})"


def bounded(column: str) -> str:
    """Build the condition for a finite, half-open, non-empty range or multirange."""
    return (
        f"coalesce(isfinite(lower({column})) AND isfinite(upper({column}))"
        f" AND lower_inc({column}) AND NOT upper_inc({column}), false)"
    )
