"""The catalog: exchanges, their symbols and intervals, and the stored series."""

from collections.abc import AsyncGenerator, Collection, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import RowMapping, case, func, or_, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncConnection, create_async_engine
from sqlalchemy.pool import NullPool

from db import schema
from mdp_core.domain.clock import EPOCH
from mdp_core.domain.intervals import FixedGrid, Grid, Interval
from mdp_core.domain.series import DOUBTED_BEFORE, SEARCHED, Series, Symbol
from mdp_core.storage.database.database import Database, translate_driver_errors

_SYMBOLS = schema.symbols
_SERIES = schema.series
_SIBLINGS = _SERIES.alias("of_symbol")
# Without its coverage, which may be long.
_SERIES_COLUMNS = [
    *(_SERIES.c[name] for name in ("id", "symbol_id", "interval", "grid_phase_ms")),
    *(_SERIES.c[name] for name in ("history_begins", "history_source", "history_witnesses")),
    select(func.min(_SIBLINGS.c.history_begins))
    .where(_SIBLINGS.c.symbol_id == _SERIES.c.symbol_id)
    .scalar_subquery()
    .label("symbol_begins"),
]


@dataclass(frozen=True, slots=True)
class Listing:
    """A symbol with its key in the catalog."""

    id: int
    symbol: Symbol


@dataclass(frozen=True, slots=True)
class HistoryStart:
    """A series' history start (the first candle's open time), and its source.

    `witnesses` counts the questions of different widths that told it.
    """

    time: datetime
    source: str
    witnesses: int = 1


class Catalog:
    """Reads and saves metadata. Symbols and series are never deleted."""

    def __init__(self, database: Database) -> None:
        self._engine = create_async_engine(
            "postgresql+psycopg://", poolclass=NullPool, async_creator=database.lend
        )

    async def save_exchange(self, code: str, name: str) -> None:
        """Make the exchange known."""
        statement = insert(schema.exchanges).values(code=code, name=name)
        async with self._connection() as connection:
            await connection.execute(
                statement.on_conflict_do_update(
                    index_elements=["code"], set_={"name": statement.excluded.name}
                )
            )

    async def save_intervals(
        self, exchange: str, market_type: str, offered: Mapping[Interval, tuple[str, Grid]]
    ) -> None:
        """Make known which intervals an exchange offers: native spelling and usual grid."""
        rows = [
            {
                "exchange": exchange,
                "market_type": market_type,
                "interval": interval.value,
                "native": native,
                "grid": describe_grid(grid),
            }
            for interval, (native, grid) in offered.items()
        ]
        statement = insert(schema.supported_intervals)
        new = {"native": statement.excluded.native, "grid": statement.excluded.grid}
        async with self._connection() as connection:
            await connection.execute(
                statement.on_conflict_do_update(
                    index_elements=["exchange", "market_type", "interval"], set_=new
                ),
                rows,
            )

    async def listings(self, exchange: str, market_type: str) -> list[Listing]:
        """Give every symbol that is or was listed there."""
        query = select(_SYMBOLS).where(
            _SYMBOLS.c.exchange == exchange, _SYMBOLS.c.market_type == market_type
        )
        async with self._connection() as connection:
            return [_listing(row) for row in (await connection.execute(query)).mappings()]

    async def save_symbols(
        self,
        exchange: str,
        market_type: str,
        symbols: Sequence[Symbol],
        unknown: Collection[str] = (),
    ) -> None:
        """Make the catalog equal the exchange's list; a missing symbol becomes inactive.

        Refreshes of an exchange follow one another, and lock rows in one order.

        Args:
            exchange: Whose list.
            market_type: Of all symbols.
            symbols: The list.
            unknown: Native names of which it tells nothing that can be read: they stay as they are.
        """
        statement = insert(_SYMBOLS)
        rows = [_symbol_row(symbol) for symbol in sorted(symbols, key=lambda entry: entry.native)]
        new = {name: statement.excluded[name] for name in rows[0]} if rows else {}
        has_changed = or_(*(_SYMBOLS.c[name].is_distinct_from(new[name]) for name in new))
        unlisted = (
            update(_SYMBOLS)
            .where(
                _SYMBOLS.c.exchange == exchange,
                _SYMBOLS.c.market_type == market_type,
                _SYMBOLS.c.active,
                _SYMBOLS.c.native.not_in([*(symbol.native for symbol in symbols), *unknown]),
            )
            .values(active=False)
        )
        fetched = (
            update(schema.exchanges)
            .where(schema.exchanges.c.code == exchange)
            .values(symbols_fetched_at=func.now())
        )
        async with self._connection() as connection:
            await connection.execute(fetched)  # locks the exchange's row first of all
            if rows:
                await connection.execute(
                    statement.on_conflict_do_update(
                        index_elements=["exchange", "market_type", "native"],
                        set_=new,
                        where=has_changed,
                    ),
                    rows,
                )
            await connection.execute(unlisted)

    async def series(self, listing: Listing, interval: Interval, usual: Grid) -> Series | None:
        """Give the stored series of a symbol, on its own grid; None if there is none yet."""
        stored = await self.all_series([listing], {interval: usual})
        return stored[0] if stored else None

    async def all_series(
        self, listings: Sequence[Listing], usual: Mapping[Interval, Grid]
    ) -> list[Series]:
        """Give the stored series of these symbols and intervals, each on its own grid."""
        symbols = {listing.id: listing.symbol for listing in listings}
        query = select(*_SERIES_COLUMNS).where(
            _SERIES.c.symbol_id.in_(symbols),
            _SERIES.c.interval.in_([entry.value for entry in usual]),
        )
        async with self._connection() as connection:
            return [
                _series(row, symbols[row["symbol_id"]], usual[Interval(row["interval"])])
                for row in (await connection.execute(query)).mappings()
            ]

    async def first_day(self, series: Series) -> datetime | None:
        """Return when the first daily candle of a stored symbol opens, if that is known."""
        daily = _SERIES.alias("daily")
        query = (
            select(daily.c.history_begins)
            .join(_SERIES, _SERIES.c.symbol_id == daily.c.symbol_id)
            .where(_SERIES.c.id == series.id, daily.c.interval == Interval.ONE_DAY.value)
        )
        async with self._connection() as connection:
            return (await connection.execute(query)).scalar_one_or_none()

    async def names_without_history_start(
        self, exchange: str, market_type: str
    ) -> list[tuple[str, str]]:
        """Give symbol and interval of each kept series whose history start is not known."""
        query = (
            select(_SYMBOLS.c.name, _SERIES.c.interval)
            .join(_SERIES, _SERIES.c.symbol_id == _SYMBOLS.c.id)
            .where(_SYMBOLS.c.exchange == exchange, _SYMBOLS.c.market_type == market_type)
            .where(_SERIES.c.history_begins.is_(None))
            .order_by(_SERIES.c.id)
        )
        async with self._connection() as connection:
            return [(row[0], row[1]) for row in await connection.execute(query)]

    async def add_series(
        self, listing: Listing, interval: Interval, grid: Grid, start: HistoryStart | None
    ) -> None:
        """Store a series; of a stored one only the history start is updated."""
        statement = insert(_SERIES).values(
            symbol_id=listing.id,
            interval=interval.value,
            grid_phase_ms=grid.phase // timedelta(milliseconds=1)
            if isinstance(grid, FixedGrid)
            else None,
            history_begins=start.time if start else None,
            history_source=start.source if start else None,
        )
        is_known = _SERIES.c.history_begins.is_not(None) | ~func.isempty(_SERIES.c.coverage)
        learned = {
            name: case((is_known, _SERIES.c[name]), else_=statement.excluded[name])
            for name in ("grid_phase_ms", "history_begins", "history_source")
        }
        async with self._connection() as connection:
            await connection.execute(
                statement.on_conflict_do_update(
                    index_elements=["symbol_id", "interval"], set_=learned
                )
            )

    @asynccontextmanager
    async def _connection(self) -> AsyncGenerator[AsyncConnection]:
        with translate_driver_errors():
            async with self._engine.begin() as connection:
                yield connection


def describe_grid(grid: Grid) -> dict[str, object]:
    """Say in JSON where a grid's candles open."""
    if isinstance(grid, FixedGrid):
        millisecond = timedelta(milliseconds=1)
        return {
            "step_ms": grid.step // millisecond,
            "phase_ms": grid.phase // millisecond,
        }
    return {"unit": "month"}


def _symbol_row(symbol: Symbol) -> dict[str, Any]:
    row: dict[str, Any] = {name: getattr(symbol, name) for name in Symbol.__slots__}
    row["listed_source"] = "exchange" if symbol.listed_at else None
    row["delisted_source"] = "exchange" if symbol.delisted_at else None
    return row


def _listing(row: RowMapping) -> Listing:
    return Listing(row["id"], Symbol(**{name: row[name] for name in Symbol.__slots__}))


def _series(row: RowMapping, symbol: Symbol, usual: Grid) -> Series:
    grid = usual
    if isinstance(usual, FixedGrid) and row["grid_phase_ms"] is not None:
        grid = usual.with_phase_of(EPOCH + timedelta(milliseconds=row["grid_phase_ms"]))
    begins, source = row["history_begins"], row["history_source"]
    believed = grid.floor(row["symbol_begins"] - DOUBTED_BEFORE) if source == SEARCHED else begins
    return Series(
        row["id"],
        symbol,
        Interval(row["interval"]),
        grid,
        begins,
        believed,
        source,
        row["history_witnesses"],
    )
