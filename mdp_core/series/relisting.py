"""Symbols listed again: doubt the absences after their history ends."""

from collections.abc import Iterator

from mdp_core.domain.clock import Clock
from mdp_core.domain.series import Series
from mdp_core.domain.windows import Window
from mdp_core.exchanges.base import ExchangeAdapter, ExchangeFacts
from mdp_core.storage.catalog.catalog import Catalog
from mdp_core.storage.catalog.history_ends import HistoryEndStore


class Relistings:
    """Takes back what was concluded from the silence of symbols that are active again."""

    def __init__(self, catalog: Catalog, ends: HistoryEndStore, clock: Clock) -> None:
        self._catalog = catalog
        self._ends = ends
        self._clock = clock

    async def reopen(self, adapter: ExchangeAdapter) -> None:
        """Have the absences after the end of each such symbol of a market rechecked.

        A history end that is kept of an active symbol tells which: what is interrupted here is
        done by the next call.
        """
        facts = adapter.facts
        market = (facts.name, facts.market_type)
        ends = await self._ends.relisted(*market)
        if not ends:
            return
        usual = {interval: offered.grid for interval, offered in facts.intervals.items()}
        for listing in await self._catalog.listings(*market):
            if end := ends.get(listing.symbol.native):
                kept = await self._catalog.all_series([listing], usual)
                windows = [(series, end.slots_after(series.grid)) for series in kept]
                ended = [
                    (series, list(_parts(series, after, facts)))
                    for series, after in windows
                    if after
                ]
                await self._ends.reopen(listing.symbol, ended, self._clock())


def _parts(series: Series, window: Window, facts: ExchangeFacts) -> Iterator[Window]:
    """Yield the parts of a window that one request may ask for."""
    grid, most = series.grid, facts.page_size * facts.pages_per_request
    first, stop = grid.index(window.start), grid.index(window.end)
    for begin in range(first, stop, most):
        yield Window(grid.at(begin), grid.at(min(begin + most, stop)))
