"""The series of `MDP_HOT` and `MDP_KEEP`: checked at start, resolved on use."""

from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import replace

from mdp_core.errors import InvalidParameter, MdpError
from mdp_core.exchanges.base import ExchangeAdapter, ExchangeFacts
from mdp_core.ratelimit.context import RequestContext
from mdp_core.series.resolver import SeriesResolver
from mdp_core.series.selection import Selection, Selector, SeriesName, parse_selections


def read_hot(text: str, markets: Sequence[ExchangeFacts]) -> tuple[Selection, ...]:
    """Read `MDP_HOT`.

    Raises:
        InvalidParameter: It is no list of selections, or names an exchange that isn't installed, or
            an interval that the exchange doesn't offer.
    """
    with _read_from("MDP_HOT"):
        return _read(text, markets)


def read_keep(text: str, markets: Sequence[ExchangeFacts]) -> tuple[Selection, ...]:
    """Read `MDP_KEEP`.

    Raises:
        InvalidParameter: As `read_hot`, or it names an exchange that forgets nothing.
    """
    with _read_from("MDP_KEEP"):
        configured = _read(text, markets)
        _check_forgetful(configured, markets)
        return configured


@contextmanager
def _read_from(variable: str) -> Generator[None]:
    try:
        yield
    except InvalidParameter as error:
        message = f"{variable}: {error}"
        raise InvalidParameter(message) from error


def _read(text: str, markets: Sequence[ExchangeFacts]) -> tuple[Selection, ...]:
    configured = parse_selections(text)
    for selection in configured:
        _check_offered(selection, markets)
    return configured


def _check_offered(selection: Selection, markets: Sequence[ExchangeFacts]) -> None:
    offered = {
        interval.value
        for facts in markets
        if facts.name == selection.exchange
        for interval in facts.intervals
    }
    if not offered:
        known = ", ".join(sorted({facts.name for facts in markets}))
        message = f"there is no exchange {selection.exchange}, only {known}"
        raise InvalidParameter(message)
    for interval in selection.intervals:
        if interval not in offered:
            listed = ", ".join(sorted(offered))
            message = f"{selection.exchange} does not offer {interval}, only {listed}"
            raise InvalidParameter(message)


def _check_forgetful(configured: Sequence[Selection], markets: Sequence[ExchangeFacts]) -> None:
    forgetful = {facts.name for facts in markets if facts.retention_candles is not None}
    for selection in configured:
        if selection.exchange not in forgetful:
            message = (
                f"{selection.exchange} forgets nothing, only these do: "
                f"{', '.join(sorted(forgetful))}; MDP_HOT keeps series warm"
            )
            raise InvalidParameter(message)


class Configured:
    """Finds the series of one market that are configured."""

    def __init__(
        self,
        resolver: SeriesResolver,
        adapter: ExchangeAdapter,
        configured: Sequence[Selection],
        context: RequestContext,
    ) -> None:
        self._selector = Selector(resolver, context)
        name, market_type = adapter.facts.name, adapter.facts.market_type
        self._parts = [
            replace(entry, market_type=market_type, symbols=(symbol,))
            for entry in configured
            if entry.exchange == name
            for symbol in entry.symbols
        ]

    async def names(self) -> tuple[list[SeriesName], list[MdpError]]:
        """Return each series once, in configured order, and the names not found.

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
