"""History ends of symbols that their exchange lists as inactive."""

from datetime import timedelta

from mdp_core.domain.clock import Clock, from_ms
from mdp_core.domain.series import Series
from mdp_core.domain.windows import Window
from mdp_core.exchanges.base import ExchangeAdapter
from mdp_core.ratelimit.context import RequestContext
from mdp_core.storage.catalog.history_ends import HistoryEnd, HistoryEndStore

_ASKED_EVERY = timedelta(days=1)


class HistoryEnds:
    """Gives the history ends of an exchange's inactive symbols, each asked once a day."""

    def __init__(self, adapter: ExchangeAdapter, store: HistoryEndStore, clock: Clock) -> None:
        self._adapter = adapter
        self._store = store
        self._clock = clock

    async def after_end(self, series: Series, context: RequestContext) -> Window | None:
        """Return the slots after the history end that were closed when that was asked for.

        None: the exchange gives no candle without a window, or the end lies after that time.

        Raises:
            ExchangeError: The exchange had to be asked and failed.
        """
        end = await self._store.get(series.symbol)
        if end is None or end.checked_at + _ASKED_EVERY <= self._clock():
            end = await self._ask(series, context) or end
        return end.slots_after(series.grid) if end else None

    async def _ask(self, series: Series, context: RequestContext) -> HistoryEnd | None:
        asked_at, adapter = self._clock(), self._adapter.bound(context)
        rows = await adapter.fetch_newest(series.symbol, series.interval)
        if not len(rows):
            return None
        newest = from_ms(int(rows.time.max()))
        source = f"newest {series.interval} of the exchange"
        end = HistoryEnd(series.grid.next(newest), source, asked_at)
        return end if await self._store.save(series.symbol, end) else None
