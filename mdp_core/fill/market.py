"""The parts that serve one exchange and market type."""

from dataclasses import dataclass
from datetime import datetime

from mdp_core.domain.series import Series
from mdp_core.domain.watermarks import Watermarks
from mdp_core.exchanges.base import ExchangeAdapter
from mdp_core.exchanges.clock import ExchangeClock
from mdp_core.fill.filler import PageFiller
from mdp_core.fill.observer import Observer
from mdp_core.fill.provisional import ProvisionalCache
from mdp_core.fill.rechecks import Rechecker
from mdp_core.ratelimit.budget import Budget
from mdp_core.ratelimit.context import DEFAULT_CONTEXT, RequestContext
from mdp_core.ratelimit.tariff import Terms


@dataclass(frozen=True, slots=True)
class MarketContext:
    """Adapter, clock, observer, filler, provisional ranges, rechecker and budget."""

    adapter: ExchangeAdapter
    exchange_clock: ExchangeClock
    observer: Observer
    filler: PageFiller
    ranges: ProvisionalCache
    rechecker: Rechecker
    weight_per_second: float
    """How much of the exchange's weight this service may spend for long."""
    budget: Budget

    @property
    def page_size(self) -> int:
        """Slots of one page."""
        return self.adapter.facts.page_size

    @property
    def terms(self) -> Terms:
        """On which terms the exchange gives candles."""
        facts = self.adapter.facts
        return Terms(
            facts.page_size, facts.pages_per_request, facts.tariff.weigh, self.weight_per_second
        )

    async def watermarks(
        self, series: Series, end: datetime | None, context: RequestContext = DEFAULT_CONTEXT
    ) -> Watermarks:
        """Give what can be asked for now in a window that ends at `end` (None: now).

        Raises:
            ExchangeError: The exchange's clock was needed and could not be read.
        """
        watermarks = await self.exchange_clock.watermarks(series, end, context)
        return self.ranges.remembered(series, watermarks)
