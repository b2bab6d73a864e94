"""What `MDP_HOT` and `MDP_KEEP` name: checked at the start, looked up whenever it is needed."""

from collections.abc import Sequence
from dataclasses import replace

from mdp_core.errors import InvalidParameter, MdpError
from mdp_core.exchanges.base import ExchangeAdapter
from mdp_core.metadata import Metadata
from mdp_core.selection import Selection, Selector, SeriesName


def check_offered(
    variable: str, adapters: Sequence[ExchangeAdapter], configured: Sequence[Selection]
) -> None:
    """Refuse exchanges that aren't installed, and intervals that they don't offer.

    Raises:
        InvalidParameter: A selection names one; `variable` is where it was read.
    """
    for selection in configured:
        offered = {
            interval.value
            for adapter in adapters
            if adapter.facts.name == selection.exchange
            for interval in adapter.facts.intervals
        }
        if not offered:
            known = ", ".join(sorted({adapter.facts.name for adapter in adapters}))
            message = f"{variable} names the exchange {selection.exchange}; there are: {known}"
            raise InvalidParameter(message)
        for interval in selection.intervals:
            if interval not in offered:
                listed = ", ".join(sorted(offered))
                message = f"{variable} names {selection.exchange} {interval}; it offers: {listed}"
                raise InvalidParameter(message)


class Configured:
    """Finds the series of one market that are configured."""

    def __init__(
        self, metadata: Metadata, adapter: ExchangeAdapter, configured: Sequence[Selection]
    ) -> None:
        self._selector = Selector(metadata)
        name, market_type = adapter.facts.name, adapter.facts.market_type
        self._parts = [
            replace(each, market_type=market_type, symbols=(symbol,))
            for each in configured
            if each.exchange == name
            for symbol in each.symbols
        ]

    async def names(self) -> tuple[list[SeriesName], list[MdpError]]:
        """Give each series once, in the order of the configuration, and what could not be found.

        A symbol that isn't listed, or a glob that nothing matches, costs the others nothing.
        """
        names: dict[SeriesName, None] = {}
        errors: list[MdpError] = []
        for part in self._parts:
            try:
                names |= dict.fromkeys(await self._selector.names(part))
            except MdpError as error:
                errors.append(error)
        return list(names), errors
