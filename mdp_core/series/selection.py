"""Many series at once: symbols as names or globs, and intervals."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

from mdp_core.domain.intervals import Interval
from mdp_core.domain.patterns import is_glob, matches, split_names
from mdp_core.errors import InvalidParameter, UnknownSymbol, UnsupportedInterval
from mdp_core.exchanges.base import ExchangeAdapter
from mdp_core.ratelimit.context import DEFAULT_CONTEXT, RequestContext
from mdp_core.series.resolver import SeriesResolver


@dataclass(frozen=True, slots=True)
class Selection:
    """Symbols (names, or globs over active ones) and intervals of an exchange.

    `market_type` None stands for every one that the exchange has here.
    """

    exchange: str
    market_type: str | None
    symbols: tuple[str, ...]
    intervals: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class SeriesName:
    """The four words that name a series, the symbol in its canonical form."""

    exchange: str
    market_type: str
    symbol: str
    interval: str

    @property
    def words(self) -> tuple[str, str, str, str]:
        """The four words, as the resolver takes them."""
        return self.exchange, self.market_type, self.symbol, self.interval

    def __str__(self) -> str:
        """Return the four words."""
        return " ".join(self.words)


def parse_selections(text: str) -> tuple[Selection, ...]:
    """Read `exchange:symbols:intervals`, separated by spaces or semicolons.

    Symbols and intervals are separated by commas: `hyperliquid:*:1m,1h binance:BTC-USDT:1m`.

    Raises:
        InvalidParameter: It is not of that form.
    """
    return tuple(_parse_selection(part) for part in text.replace(";", " ").split())


def _parse_selection(text: str) -> Selection:
    parts = text.split(":")
    names = [split_names(part) for part in parts[1:]]
    if len(names) != 2 or not all(names):  # noqa: PLR2004 - symbols and intervals
        message = f"{text!r} is no selection: write EXCHANGE:SYMBOLS:INTERVALS"
        raise InvalidParameter(message)
    return Selection(parts[0], None, *names)


class Selector:
    """Finds the series that a selection names."""

    def __init__(self, resolver: SeriesResolver, context: RequestContext = DEFAULT_CONTEXT) -> None:
        self._resolver = resolver
        self._context = context

    async def names(self, selection: Selection) -> list[SeriesName]:
        """Give each series once, by symbol in the order given, then by interval.

        Raises:
            UnknownExchange, UnknownMarketType, UnsupportedInterval: As they say.
            UnknownSymbol: A name that isn't listed, or a glob that no active symbol matches.
            ExchangeError: The exchange had to be asked for its list and failed.
        """
        found: list[SeriesName] = []
        for adapter in self._resolver.directory.markets(selection.exchange, selection.market_type):
            facts = adapter.facts
            offered = [_offered(adapter, interval) for interval in selection.intervals]
            intervals = list(dict.fromkeys(offered))
            symbols = await self._symbols(adapter, selection.symbols)
            found += [
                SeriesName(facts.name, facts.market_type, symbol, interval)
                for symbol in symbols
                for interval in intervals
            ]
        return found

    async def _symbols(self, adapter: ExchangeAdapter, patterns: Sequence[str]) -> list[str]:
        wanted = list(dict.fromkeys(patterns))
        listed: list[str] = []
        if any(map(is_glob, wanted)):
            symbols = await self._resolver.directory.symbols(adapter, self._context)
            listed = [symbol.name for symbol in symbols if symbol.active]
        names: dict[str, None] = {}
        for pattern in wanted:
            if is_glob(pattern):
                # In a thread: many patterns over many symbols would hold up every other request.
                matching = await asyncio.to_thread(_matching, listed, pattern)
                if not matching:
                    raise UnknownSymbol(adapter.facts.name, pattern, ())
                names |= dict.fromkeys(matching)
            else:
                symbol = await self._resolver.directory.symbol(adapter, pattern, self._context)
                names[symbol.name] = None
        return list(names)


def _matching(names: Sequence[str], pattern: str) -> list[str]:
    return [name for name in names if matches(name, pattern)]


def _offered(adapter: ExchangeAdapter, interval: str) -> str:
    names = [known.value for known in adapter.facts.intervals]
    if interval not in names:
        raise UnsupportedInterval(adapter.facts.name, interval, names)
    return Interval(interval).value
