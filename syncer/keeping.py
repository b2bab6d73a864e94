"""The keeper: what an exchange forgets is fetched before it does."""

from collections.abc import Sequence

from mdp_core.admission import at_priority
from mdp_core.chunks import OldestFirst
from mdp_core.errors import InvalidParameter, MdpError
from mdp_core.exchanges.base import ExchangeAdapter
from mdp_core.job_runs import RunResult
from mdp_core.model import Series, Window
from mdp_core.priority import Priority
from mdp_core.selection import Selection, Selector
from mdp_core.wiring import Services

# A series is filled when this part of what the exchange remembers is missing at the newer end: so
# it is done long before the half is gone, and not for every few candles.
_TOLERATED_PART = 4


class Keeper:
    """Fills the configured series of one market with a memory."""

    def __init__(
        self, services: Services, adapter: ExchangeAdapter, configured: Sequence[Selection]
    ) -> None:
        self._services = services
        self._adapter = adapter
        name = adapter.facts.name
        self._configured = [each for each in configured if each.exchange == name]
        self._market = services.markets[name, adapter.facts.market_type]

    async def run(self) -> RunResult:
        """Fill what has come to be at risk."""
        selector, rows = Selector(self._services.metadata), 0
        errors: list[MdpError] = []
        for selection in self._configured:
            for name in await selector.names(selection):
                try:
                    with at_priority(Priority.BACKFILL):
                        rows += await self._keep(await self._services.backfills.series(name))
                except MdpError as error:
                    errors.append(error)
        error = f"{len(errors)} series failed, one with: {errors[0]}" if errors else None
        return RunResult(rows, error=error)

    async def _keep(self, series: Series) -> int:
        """Fill everything that the exchange remembers, if too much of it is missing."""
        bulk = self._services.bulk
        window = await self._remembered(series)
        left = await bulk.left(series, window, [])
        if not left.gaps or not self._is_at_risk(series, left.gaps[0], window):
            return 0
        async for step in bulk.steps(series, window, OldestFirst(), Priority.BACKFILL):
            if step.delay:
                raise step.delay
        return sum(series.grid.count(gap.start, gap.end) for gap in left.gaps)

    async def _remembered(self, series: Series) -> Window:
        reach = await self._market.reach(series, None)
        return Window(min(reach.earliest, reach.late_from), reach.late_from)

    def _is_at_risk(self, series: Series, oldest_gap: Window, window: Window) -> bool:
        memory = self._adapter.facts.memory or 0
        age = series.grid.count(oldest_gap.start, window.end)
        return age > memory // _TOLERATED_PART


def check_keepable(adapters: Sequence[ExchangeAdapter], configured: Sequence[Selection]) -> None:
    """Refuse to keep what nobody forgets.

    Raises:
        InvalidParameter: A selection names an exchange that has no memory to run out of.
    """
    forgetful = {each.facts.name for each in adapters if each.facts.memory is not None}
    for selection in configured:
        if selection.exchange not in forgetful:
            message = (
                f"MDP_KEEP names {selection.exchange}, and only these forget: "
                f"{', '.join(sorted(forgetful))}; MDP_HOT keeps series warm"
            )
            raise InvalidParameter(message)
