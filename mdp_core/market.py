"""What the service needs of one exchange and market type, in one hand."""

from dataclasses import dataclass

from mdp_core.exchanges.base import ExchangeAdapter
from mdp_core.filling import PageFiller
from mdp_core.horizon import Horizon
from mdp_core.tails import Tails


@dataclass(frozen=True, slots=True)
class Market:
    """An exchange's adapter, its clock, who fills its pages, and what was asked of it lately."""

    adapter: ExchangeAdapter
    horizon: Horizon
    filler: PageFiller
    tails: Tails

    @property
    def page_size(self) -> int:
        """Slots of one page."""
        return self.adapter.facts.page_size
