"""The newest candles: the last closed one, and the one that is still forming."""

import asyncio
import time
from collections.abc import Mapping
from dataclasses import replace

from mdp_core.answer import CandleQuery, Latest
from mdp_core.errors import NoCandle
from mdp_core.market import Market
from mdp_core.metadata import Metadata
from mdp_core.model import Candles, Series, Window
from mdp_core.service import CandleService
from mdp_core.validation import sift

# How far back the newest closed candle is looked for.
_PAGES_BACK = 10


class LiveEdge:
    """Answers what is newest; forming candles are shared for some seconds and never stored."""

    def __init__(
        self, candles: CandleService, metadata: Metadata, markets: Mapping[tuple[str, str], Market]
    ) -> None:
        self._candles = candles
        self._metadata = metadata
        self._markets = markets
        self._forming: dict[int, tuple[Latest, float]] = {}
        self._asking: dict[int, asyncio.Lock] = {}

    async def closed(self, query: CandleQuery) -> Latest:
        """Give the newest closed candle, wherever it comes from.

        Raises:
            NoCandle: There is none within ten pages.
            MdpError: As `CandleService.get`.
        """
        answer = await self._candles.get(replace(query, limit=1, pages=_PAGES_BACK))
        every = ("quote_volume", "trades")
        blocks = [block async for block in self._candles.blocks(answer, every)]
        found = Candles.concatenate(blocks)
        if not len(found):
            raise NoCandle(str(answer.series), f"since {answer.window.start.isoformat()}")
        candle = found.row(-1)
        now = await self._market(answer.series).horizon.now()
        is_settled = candle.time < answer.settled_until
        return Latest(answer.series, candle, closed=True, settled=is_settled, as_of=now)

    async def forming(self, query: CandleQuery) -> Latest:
        """Give the candle that is still forming, some seconds old at the most.

        Raises:
            NoCandle: The exchange has none yet.
            MdpError: The series is unknown, or the exchange can't be asked.
        """
        series = await self._metadata.series(
            query.exchange, query.market_type, query.symbol, query.interval
        )
        async with self._asking.setdefault(series.id, asyncio.Lock()):
            latest, until = self._forming.get(series.id, (None, 0.0))
            if latest is None or time.monotonic() >= until:
                latest = await self._ask(series)
                seconds = self._market(series).adapter.facts.forming_seconds
                self._forming[series.id] = (latest, time.monotonic() + seconds)
        return latest

    async def _ask(self, series: Series) -> Latest:
        market = self._market(series)
        now = await market.horizon.now()
        window = Window(series.grid.floor(now), series.grid.next(now))
        rows = await market.adapter.fetch_page(series.symbol, series.interval, window)
        right = sift(rows, series.grid, window).candles
        if not len(right):
            raise NoCandle(str(series), "forming now")
        return Latest(series, right.row(-1), closed=False, settled=False, as_of=now)

    def _market(self, series: Series) -> Market:
        return self._markets[series.exchange, series.symbol.market_type]
