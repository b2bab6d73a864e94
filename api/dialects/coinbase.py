"""Coinbase Exchange as its public REST interface speaks."""

import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import ClassVar
from urllib.parse import unquote

import orjson
from fastapi import Response
from typing_extensions import override

from api.dialects.dialect import Call, Dialect, answer_json
from api.dialects.numbers import shortest
from api.dialects.printing import PrintedRows, array_of
from api.dialects.series_rows import NativeName, SeriesRows
from mdp_core.domain.candles import Candles
from mdp_core.domain.clock import to_ms
from mdp_core.domain.intervals import Interval
from mdp_core.domain.queries import Bounds
from mdp_core.ratelimit.context import RequestContext

_CANDLES = re.compile(r"/products/([^/]+)/candles")
_PARAMS = frozenset({"granularity", "start", "end"})
_INTERVALS = {
    "60": Interval.ONE_MINUTE,
    "300": Interval.FIVE_MINUTES,
    "900": Interval.FIFTEEN_MINUTES,
    "3600": Interval.ONE_HOUR,
    "21600": Interval.SIX_HOURS,
    "86400": Interval.ONE_DAY,
}
# Without a range so many rows come; a range may span 300 intervals, with both ends.
_NEWEST, _MOST_INTERVALS = 350, 300
_LISTS = frozenset({"/products", "/currencies"})
_LIST_SECONDS = 30
_MILLISECOND = timedelta(milliseconds=1)
_YEARS = range(1971, 2100)


class CoinbaseDialect(Dialect):
    """Candles and `time` from here; the rest from the exchange."""

    exchange: ClassVar[str] = "coinbase"
    market_type: ClassVar[str] = "spot"

    @override
    async def answer(
        self, call: Call, rows: SeriesRows, context: RequestContext
    ) -> Response | None:
        if call.path == "/time" and not call.query:
            now = await rows.exchange_time(self.exchange, self.market_type, context)
            return answer_json(_print_time(now))
        asked, params = _CANDLES.fullmatch(call.path), call.unique(_PARAMS)
        if asked is None or params is None:
            return None
        return await self._candles(unquote(asked[1]), params, rows, context)

    async def _candles(
        self, native: str, params: dict[str, str], rows: SeriesRows, context: RequestContext
    ) -> Response | None:
        granularity = params.get("granularity", "60")
        bounds = _bounds(params, granularity) if granularity in _INTERVALS else None
        if bounds is None:
            return None
        interval = _INTERVALS[granularity]
        name = NativeName(self.exchange, self.market_type, native, interval)
        series = await rows.series(name, context)
        found = await rows.printed(series, bounds, _ROWS, context) if series else None
        return None if found is None else answer_json(array_of(_ROWS.newest_first(found)))

    @override
    def weigh(self, call: Call) -> float:
        return 1

    @override
    def kept_seconds(self, call: Call) -> float:
        return _LIST_SECONDS if call.path in _LISTS else 0

    @override
    def refusal(self, status: int, text: str) -> Response:
        body = orjson.dumps({"message": text})
        return Response(body, status, media_type="application/json")


def _bounds(params: dict[str, str], granularity: str) -> Bounds | None:
    """Read both bounds, which are inclusive; without one of them neither counts."""
    if not (params.get("start") and params.get("end")):
        return Bounds(limit=_NEWEST)
    start, end = _time(params["start"]), _time(params["end"])
    if start is None or end is None or start > end:
        return None
    if end - start > _MOST_INTERVALS * timedelta(seconds=int(granularity)):
        return None
    return Bounds(start=start, end=end + _MILLISECOND, limit=_MOST_INTERVALS + 1)


def _time(text: str) -> datetime | None:
    try:
        # A plus that was not escaped arrives as a space.
        time = datetime.fromisoformat(re.sub(r" (\d\d:\d\d)$", r"+\1", text))
    except ValueError:
        return None
    time = time if time.tzinfo else time.replace(tzinfo=UTC)
    return time.astimezone(UTC) if time.year in _YEARS else None


def _print(candles: Candles) -> Iterator[str]:
    """Print `[time s, low, high, open, close, volume]`."""
    columns = [getattr(candles, name) for name in ("low", "high", "open", "close", "volume")]
    numbers = [[shortest(number) for number in column.tolist()] for column in columns]
    times = [str(time // 1000) for time in candles.time.tolist()]
    return (f"[{','.join(row)}]" for row in zip(times, *numbers, strict=True))


_ROWS = PrintedRows("coinbase", "]", _print)


def _print_time(now: datetime) -> bytes:
    iso = now.isoformat(timespec="milliseconds").replace("+00:00", "Z")
    return orjson.dumps({"iso": iso, "epoch": to_ms(now) / 1000})
