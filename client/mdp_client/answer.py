"""Candles of one answer, in whatever shape they are needed."""

# pyarrow comes without types.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownParameterType=false, reportUnknownArgumentType=false

from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any, Literal

import pyarrow as pa

from mdp_client import frames
from mdp_client.arrow import RecordBatch, Table
from mdp_client.core.receiving import Summary
from mdp_client.records import Missing, Window
from mdp_client.times import aware

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    import polars as pl


class Candles:
    """Every closed candle of a window, ascending; a slot without a row has no candle.

    Frames are their caller's own: writable, and sharing memory with nothing else. As an Arrow
    stream (`__arrow_c_stream__`) any library reads the answer itself, without a copy.
    """

    __slots__ = ("_summary", "_table")

    def __init__(self, batches: Sequence[RecordBatch], summary: Summary) -> None:
        self._table = pa.Table.from_batches(batches, summary.schema.remove_metadata())
        self._summary = summary

    def __len__(self) -> int:
        return self._table.num_rows

    def __repr__(self) -> str:
        names = " ".join(
            filter(None, map(self._said, ("exchange", "market_type", "symbol", "interval")))
        )
        window = f"{self.start:%Y-%m-%dT%H:%M}/{self.end:%Y-%m-%dT%H:%M}"
        return f"<Candles {names} {window}: {len(self)}{'' if self.complete else ', incomplete'}>"

    def __arrow_c_stream__(self, requested_schema: object = None) -> object:
        """Offer the candles to any library that reads Arrow's C stream."""
        return self._table.__arrow_c_stream__(requested_schema)

    @property
    def columns(self) -> tuple[str, ...]:
        """The names of the columns; `time` is the first."""
        return tuple(self._table.column_names)

    @property
    def exchange(self) -> str:
        """The exchange."""
        return self._said("exchange")

    @property
    def market_type(self) -> str:
        """The market type."""
        return self._said("market_type")

    @property
    def symbol(self) -> str:
        """The canonical name, in whichever way the caller wrote it."""
        return self._said("symbol")

    @property
    def interval(self) -> str:
        """The interval."""
        return self._said("interval")

    @property
    def start(self) -> datetime:
        """The first open time that the answer speaks of, UTC."""
        return aware(self._summary.start)

    @property
    def end(self) -> datetime:
        """The exclusive end of its answer: earlier than asked for at the live edge."""
        return aware(self._summary.end)

    @property
    def complete(self) -> bool:
        """Tell whether nothing is missing; false with `partial=True` alone."""
        return self._summary.complete

    @property
    def settled_until(self) -> datetime:
        """The time from which on candles may still change, at most `end`."""
        return aware(self._summary.settled_until)

    @property
    def unconfirmed(self) -> tuple[Window, ...]:
        """Windows without candles for which the service will ask the exchange again."""
        return self._summary.unconfirmed

    @property
    def missing(self) -> tuple[Missing, ...]:
        """Windows that could not be had, each with the reason; empty if `complete`."""
        return self._summary.missing

    def to_arrow(self) -> Table:
        """Return the candles as a pyarrow table; immutable, and not copied."""
        return self._table

    def to_pandas(self, *, capitalize: bool = False) -> "pd.DataFrame":
        """Return a frame with a `DatetimeIndex` in UTC named `time`.

        Args:
            capitalize: Name the columns `Open`, `High`, …, as backtesting.py and mplfinance do.
        """
        return frames.to_pandas(self._table, capitalize=capitalize)

    def to_vectorbt(self) -> "pd.DataFrame":
        """Return the capitalised frame with the index `Open time`."""
        return frames.to_vectorbt(self._table)

    def to_freqtrade(self) -> "pd.DataFrame":
        """Return a frame with the columns `date`, `open`, …, `volume` and a `RangeIndex`."""
        return frames.to_freqtrade(self._table)

    def to_polars(self) -> "pl.DataFrame":
        """Return a polars frame."""
        return frames.to_polars(self._table)

    def to_numpy(self, *, order: Literal["ohlcv", "jesse"] = "ohlcv") -> "np.ndarray[Any, Any]":
        """Return a float64 array of shape (candles, 6).

        Args:
            order: `ohlcv` for `[ms, open, high, low, close, volume]`, `jesse` for
                `[ms, open, close, high, low, volume]`.
        """
        return frames.to_numpy(self._table, order)

    def to_ccxt(self) -> list[list[float]]:
        """Return ccxt's rows, `[[ms, open, high, low, close, volume], …]`."""
        return frames.to_ccxt(self._table)

    def to_lightweight_charts(self) -> list[dict[str, float]]:
        """Return the items of a candlestick series, `time` in seconds."""
        return frames.to_lightweight_charts(self._table)

    def to_nautilus(self, bar_type: Any, instrument: Any) -> list[Any]:
        """Return nautilus bars, timed at the close, in the precision of `instrument`."""
        return frames.to_nautilus(self._table, self.interval, bar_type, instrument)

    def _said(self, name: str) -> str:
        fields: dict[bytes, bytes] = self._summary.schema.metadata or {}
        return fields.get(name.encode(), b"").decode()
