"""Recheck known history starts; change one where two answers agree."""

from collections.abc import Callable
from datetime import datetime, timedelta

from mdp_core.domain.series import SEARCHED, Series
from mdp_core.exchanges.base import ExchangeAdapter
from mdp_core.ratelimit.context import RequestContext
from mdp_core.series.history_probes import HistoryProbes, first_open
from mdp_core.storage.catalog.catalog import HistoryStart
from mdp_core.storage.catalog.history_starts import HistoryStartStore, KnownStart

TOLD = "first candle of the exchange"
"""The source of a history start that an exchange told."""

# When a history start is asked for again: soon after it was told, then from time to time.
_FIRST_RECHECK, _LATER_RECHECKS = timedelta(days=1), timedelta(days=30)


class HistoryRechecks:
    """Keeps history starts, and asks for them again."""

    def __init__(
        self, starts: HistoryStartStore, probes: HistoryProbes, clock: Callable[[], datetime]
    ) -> None:
        self._starts = starts
        self.probes = probes
        self._clock = clock

    async def begin(self, series: Series, start: HistoryStart) -> None:
        """Keep what was told of a new series."""
        await self._starts.save(series.id, self._known(start, _FIRST_RECHECK))

    def _known(self, start: HistoryStart, recheck_in: timedelta) -> KnownStart:
        now = self._clock()
        return KnownStart(start.time, start.source, start.witnesses, now, now + recheck_in)

    async def learn(self, series: Series, begins: datetime) -> None:
        """Keep where a search found a series to begin."""
        start = HistoryStart(begins, SEARCHED)
        await self._starts.save(series.id, self._known(start, _LATER_RECHECKS))

    async def put_off(self, series: Series) -> None:
        """Postpone a history start by a day at least: the exchange contradicts itself."""
        await self._starts.put_off(series.id, self._clock() + _FIRST_RECHECK)

    async def doubt(
        self, adapter: ExchangeAdapter, series: Series, context: RequestContext
    ) -> datetime | None:
        """Ask by another width for a start that was told only once; keep what agrees.

        Raises:
            ExchangeError: The exchange can't be asked, or contradicts itself.
        """
        return await self._ask_anew(adapter, series, context, is_doubted=True)

    async def ask_again(
        self, adapter: ExchangeAdapter, series: Series, context: RequestContext
    ) -> datetime | None:
        """Ask anew for a history start; another one is believed when it is told twice.

        Raises:
            ExchangeError: The exchange can't be asked, or contradicts itself.
        """
        return await self._ask_anew(adapter, series, context, is_doubted=False)

    async def _ask_anew(
        self, adapter: ExchangeAdapter, series: Series, context: RequestContext, *, is_doubted: bool
    ) -> datetime | None:
        """Ask where the history begins, and keep it; what was searched is not asked for."""
        known = series.history_start
        if known is None or not adapter.facts.supports_first_candle:
            await self._starts.put_off(series.id, self._clock() + _LATER_RECHECKS)
            return known
        bound = adapter.bound(context)
        told = [known]
        if not is_doubted:
            rows = await self.probes.first(adapter, series.symbol, series.interval, None, context)
            told = [first_open(rows)] if rows else []
        witnesses = series.history_witnesses
        if told != [known] or is_doubted:
            told = [
                first_open(await self.probes.agreed(bound, series.symbol, series.interval, told))
            ]
            witnesses = 2
        return await self.keep(series, told[0], max(witnesses, 1))

    async def keep(self, series: Series, begins: datetime, witnesses: int) -> datetime:
        """Keep what was told anew; return what is believed then."""
        start = HistoryStart(begins, series.history_source or TOLD, witnesses)
        return await self._starts.save(series.id, self._known(start, _LATER_RECHECKS))
