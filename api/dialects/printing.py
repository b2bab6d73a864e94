"""Rows as exchanges print them: printed once, kept with the blocks of `/candles`."""

from collections.abc import Callable, Iterable, Sequence
from itertools import pairwise
from typing import TypeAlias

import numpy as np
from typing_extensions import override

from api.responses.block_cache import Rows
from api.responses.formats import TextRows
from mdp_core.domain.candles import Candles

PrintRows: TypeAlias = Callable[[Candles], Iterable[str]]


class PrintedRows(TextRows):
    """Rows of JSON in the words of an exchange, a comma before each.

    Args:
        kind: Exchange whose words they are; what is printed depends on the series alone.
        row_end: Last letter of a row, which stands nowhere else in it.
        print_rows: Prints the rows.
    """

    def __init__(self, kind: str, row_end: str, print_rows: PrintRows) -> None:
        super().__init__(f"dialect of {kind}")
        self.row_end = ord(row_end)
        self._print = print_rows

    @override
    def encode(self, candles: Candles, columns: Sequence[str]) -> Rows:
        printed = "".join([f",{row}" for row in self._print(candles)])
        return Rows(printed.encode(), candles.time)

    def newest(self, rows: Rows, count: int) -> Rows:
        """Return the last `count` rows, or all."""
        return self.between(rows, max(len(rows) - count, 0), len(rows))

    def newest_first(self, rows: Rows) -> Rows:
        """Return rows in the opposite order; their times are descending."""
        data, bounds = bytes(rows.data), self.bounds(rows).tolist()
        single = [data[begin:end] for begin, end in pairwise(bounds)]
        return Rows(b"".join(reversed(single)), rows.time[::-1])


def joined(parts: Sequence[Rows]) -> Rows:
    """Return the rows of all parts, one after another."""
    if len(parts) == 1:
        return parts[0]
    times = [np.empty(0, np.int64), *(part.time for part in parts)]
    return Rows(b"".join([part.data for part in parts]), np.concatenate(times))


def array_of(rows: Rows) -> bytes:
    """Return a JSON array of rows."""
    return b"".join((b"[", rows.data[1:], b"]"))
