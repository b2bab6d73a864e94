"""ccxt's `fetch_ohlcv` as flows: its defaults and bounds, store and live edge."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

from mdp_client.answer import Candles
from mdp_client.core.actions import Flow, Wait
from mdp_client.core.asking import Call
from mdp_client.core.query import CandlesRequest
from mdp_client.core.reading import read_latest
from mdp_client.core.receiving import Wanted, collect
from mdp_client.errors import HistoryUnavailable, NotFound, UpstreamUnavailable
from mdp_client.times import to_ms

Rows: TypeAlias = list[list[float]]

_PAGES_OF_PAGINATE = 10
_MOST_EARLIEST = 3
# The service shares a forming candle for up to ten seconds.
_FORMING_PAUSE_SECONDS, _MOST_FORMING_LOOKS = 0.5, 30
_OURS = {"until", "paginate", "paginationCalls", "maxEntriesPerRequest"}


@dataclass(frozen=True, slots=True)
class CcxtMarket:
    """The store's names of a ccxt exchange, and ccxt's default number of rows.

    Attributes:
        newest: Rows without `since`.
        first: Rows from `since` on; None for all.
        between: Rows between `since` and `until`; None for all.
    """

    exchange: str
    market_type: str
    newest: int
    first: int | None
    between: int | None


_BINANCE = CcxtMarket("binance", "perp", newest=500, first=500, between=None)
MARKETS: Mapping[str, CcxtMarket] = {
    "binance": _BINANCE,
    "binanceusdm": _BINANCE,
    "hyperliquid": CcxtMarket("hyperliquid", "perp", newest=5000, first=None, between=None),
    "coinbaseexchange": CcxtMarket("coinbase", "spot", newest=350, first=300, between=None),
}
"""By ccxt's ids. The defaults are those of ccxt's own methods."""


@dataclass(frozen=True, slots=True)
class OhlcvRequest:
    """The arguments of `fetch_ohlcv`; times in epoch ms, `until` inclusive."""

    symbol: str
    timeframe: str
    since: int | None
    limit: int | None
    until: int | None

    @classmethod
    def read(
        cls,
        market: CcxtMarket,
        names: tuple[str, str],
        bounds: tuple[int | None, int | None],
        params: Mapping[str, Any],
    ) -> "OhlcvRequest | None":
        """Read the arguments; None where they ask for what the store does not have.

        `names` are symbol and timeframe, `bounds` are `since` and `limit`.
        """
        if not _OURS.issuperset(params):
            return None
        since, limit = bounds
        until = params.get("until")
        if since is not None and until is not None and since > int(until):
            return None  # exchanges refuse it in words of their own
        if limit is None:
            limit = _usual_limit(market, since, until, is_paged=bool(params.get("paginate")))
        return cls(*names, since, limit, None if until is None else int(until))


def _usual_limit(
    market: CcxtMarket, since: int | None, until: int | None, *, is_paged: bool
) -> int | None:
    if since is None:
        return market.newest * (_PAGES_OF_PAGINATE if is_paged else 1)
    if is_paged:
        return None
    return market.first if until is None else market.between


def fetch_rows(call: Call, market: CcxtMarket, request: OhlcvRequest) -> Flow[Rows]:
    """Fetch the rows that ccxt's own method would fetch, the forming candle included.

    Raises:
        MdpError: They can't be had whole.
    """
    end = None if request.until is None else request.until + 1
    candles = yield from _closed(call, _query(market, request, end))
    rows: Rows = candles.to_ccxt()
    is_full = request.since is not None and len(rows) == request.limit
    if not is_full and (end is None or to_ms(candles.end) < end):
        rows += yield from _edge(call, _query(market, request, end), to_ms(candles.end))
    rows = [row for row in rows if _is_between(row[0], request.since, end)]
    if request.limit is None:
        return rows
    return rows[-request.limit :] if request.since is None else rows[: request.limit]


def _query(market: CcxtMarket, request: OhlcvRequest, end: int | None) -> CandlesRequest:
    return CandlesRequest(
        market.exchange,
        market.market_type,
        request.symbol,
        request.timeframe,
        start=request.since,
        end=end,
        limit=request.limit,
    )


def _is_between(time: float, since: int | None, end: int | None) -> bool:
    return (since is None or time >= since) and (end is None or time < end)


def _closed(call: Call, query: CandlesRequest) -> Flow[Candles]:
    """Fetch closed candles; from the earliest on if the exchange forgot the first."""
    for _ in range(_MOST_EARLIEST):
        try:
            return Candles(*(yield from collect(call, Wanted(query))))
        except HistoryUnavailable as error:
            if error.earliest is None or query.start is None:
                raise
            earliest = to_ms(error.earliest)
            query = replace(
                query, start=max(query.start, earliest), end=_later(query.end, earliest)
            )
    return Candles(*(yield from collect(call, Wanted(query))))


def _later(end: int | None, earliest: int) -> int | None:
    return None if end is None else max(end, earliest)


def _edge(call: Call, query: CandlesRequest, end: int) -> Flow[Rows]:
    """Fetch the forming candle, and those that have closed since `end` was the edge.

    A candle that closes while this is asked must not be lost: a bot drops the last row, since it
    takes that for the forming one.
    """
    series = (query.exchange, query.market_type, query.symbol, query.interval)
    rows: Rows = []
    for _ in range(_MOST_FORMING_LOOKS):
        try:
            latest = yield from read_latest(call, series, forming=True)
        except NotFound as error:
            if type(error) is not NotFound:
                raise
            return rows  # the exchange has none
        candle = latest.candle
        time = to_ms(candle.time)
        if time > end:
            closed = yield from _closed(call, query.window(end, time))
            rows += closed.to_ccxt()
            end = to_ms(closed.end)
        if time == end:
            row = [time, candle.open, candle.high, candle.low, candle.close, candle.volume]
            return [*rows, row]
        yield Wait(_FORMING_PAUSE_SECONDS)
    raise UpstreamUnavailable(detail=f"{query.symbol}: the forming candle is older than the last")
