"""Recorded candles from a folder, to be replayed in place of invented ones.

A file is `{exchange}__{market}__{native symbol}__{interval}.csv.gz`; any other file is ignored.
"""

import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl

from mdp_core.domain.clock import from_ms, to_ms
from mdp_core.domain.intervals import FixedGrid, Grid, Interval, epoch_grid
from scripts.sandbox.candles import Columns, Decimals, ReplayedSeries
from scripts.sandbox.markets import SandboxMarket, seed_of

_FILE = re.compile(
    r"(?P<exchange>binance(?=__perp)|hyperliquid(?=__perp)|coinbase(?=__spot))__\w{4}"
    rf"__(?P<symbol>.+)__(?P<interval>{'|'.join(Interval)})\.csv\.gz"
)
_PRICES = ("open", "high", "low", "close")
_UP_TO_A_DAY = frozenset(Interval) - {
    Interval.THREE_DAYS,
    Interval.ONE_WEEK,
    Interval.ONE_MONTH,
}
_DAYS = epoch_grid(Interval.ONE_DAY)


@dataclass(frozen=True, slots=True)
class Recorded:
    """The rows of one file; at least one."""

    rows: Columns
    decimals: Decimals

    @property
    def first_traded_ms(self) -> int:
        """Tell when the first row with volume opens; without any: the first row."""
        return int(self.rows.time[np.argmax(self.rows.volume > 0)])


class Replay:
    """All replayed series, by exchange, native symbol and interval."""

    def __init__(self, folder: Path | None, offered: Mapping[str, Collection[Interval]]) -> None:
        """Read every file of the folder that names a series; None: there are none.

        Args:
            folder: Where the files are.
            offered: The intervals of each exchange; files of others are ignored.
        """
        read = _read_all(folder) if folder else ()
        self._series = {key: rows for key, rows in read if key[2] in offered.get(key[0], ())}

    def symbols(self, exchange: str) -> list[str]:
        """Name the exchange's symbols that have at least one file, sorted."""
        return sorted({symbol for name, symbol, _ in self._series if name == exchange})

    def series(
        self, exchange: str, symbol: str, interval: Interval, grid: Grid
    ) -> ReplayedSeries | None:
        """Give the replayed series, on the phase of its own rows.

        None where no file has it.
        """
        recorded = self._series.get((exchange, symbol, interval))
        if recorded is None:
            return None
        if isinstance(grid, FixedGrid):
            grid = grid.with_phase_of(from_ms(int(recorded.rows.time[0])))
        return ReplayedSeries(recorded.rows, recorded.decimals, grid)

    def markets(
        self, exchange: str, known: Mapping[str, SandboxMarket]
    ) -> dict[str, SandboxMarket]:
        """Give the known markets and those of the files.

        Which trade from their first day on.
        """
        found = dict(known)
        for symbol in self.symbols(exchange):
            files = self._files(exchange, symbol)
            traded = _first_traded_day_ms(files)
            market = known.get(symbol) or _unknown_market(exchange, symbol, files)
            born = min(market.born_ms, traded) if market.traded_ms else traded
            found[symbol] = SandboxMarket(
                market.seed, market.price, market.decimals, born, traded_ms=traded
            )
        return found

    def _files(self, exchange: str, symbol: str) -> dict[Interval, Recorded]:
        return {
            interval: recorded
            for (name, native, interval), recorded in self._series.items()
            if (name, native) == (exchange, symbol)
        }


def _first_traded_day_ms(files: Mapping[Interval, Recorded]) -> int:
    """Tell the day (00:00 UTC) of the earliest row with volume.

    A row longer than a day says that there was trade in it, not on which day: it counts only
    where there is no shorter one.
    """
    telling = [files[interval] for interval in files if interval in _UP_TO_A_DAY]
    earliest = min(recorded.first_traded_ms for recorded in telling or files.values())
    return to_ms(_DAYS.floor(from_ms(earliest)))


def _unknown_market(
    exchange: str, symbol: str, files: Mapping[Interval, Recorded]
) -> SandboxMarket:
    recorded = next(iter(files.values()))
    price = float(np.median(recorded.rows.close))
    return SandboxMarket(seed_of(exchange, symbol), price, recorded.decimals, born_ms=0)


def _read_all(folder: Path) -> Iterator[tuple[tuple[str, str, Interval], Recorded]]:
    for path in sorted(folder.glob("*.csv.gz")):
        name = _FILE.fullmatch(path.name)
        recorded = _read(path) if name else None
        if name and recorded:
            yield (name["exchange"], name["symbol"], Interval(name["interval"])), recorded


def _read(path: Path) -> Recorded | None:
    """Read one file; None when it has no rows."""
    text = pl.read_csv(path, infer_schema=False)
    if text.is_empty():
        return None
    decimals = Decimals(_decimals(text, _PRICES), _decimals(text, ("volume",)))
    numbers = text.select(pl.col(*_PRICES, "volume").cast(pl.Float64))
    time = text["time_ms"].cast(pl.Int64).to_numpy()
    opens, high, low, close = (numbers[name].to_numpy() for name in _PRICES)
    volume = numbers["volume"].to_numpy()
    trades = np.where(volume > 0, 1 + volume % 1000, 0).astype(np.int64)
    return Recorded(
        Columns(time, opens, high, low, close, volume, volume * close, trades), decimals
    )


def _decimals(text: pl.DataFrame, names: tuple[str, ...]) -> int:
    digits = pl.col(*names).str.split(".").list.get(1, null_on_oob=True).str.len_chars().max()
    return max(text.select(digits).fill_null(0).row(0))
