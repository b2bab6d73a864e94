"""Errors of a request: what it asks for is malformed, unknown or not there."""

from collections.abc import Sequence
from datetime import datetime

from mdp_core.errors.base import MdpError


class InvalidQuery(MdpError):  # noqa: D101 - a branch of the tree
    pass


class InvalidParameter(InvalidQuery):
    """A parameter is not of the form that the endpoint takes."""

    code = "invalid_parameter"


class InvalidWindow(InvalidQuery):
    """The bounds make no window."""

    code = "invalid_window"

    def __init__(self, start: datetime, end: datetime) -> None:
        super().__init__(
            f"start {start.isoformat()} lies after end {end.isoformat()}: exchange them"
        )


class NothingClosed(InvalidWindow):
    """The window holds no candle that is closed for long enough to be final."""

    def __init__(self, start: datetime, end: datetime) -> None:
        MdpError.__init__(
            self,
            f"no closed candle opens from {start.isoformat()} to {end.isoformat()} that can't "
            "change any more: begin earlier, or ask later",
        )


class LimitTooLarge(InvalidQuery):
    """More rows were asked for than one answer holds."""

    code = "limit_too_large"

    def __init__(
        self,
        limit: int,
        maximum: int,
        *,
        what: str = "limit",
        advice: str = "ask for less and follow `next` for the rest",
    ) -> None:
        super().__init__(f"{what} {limit} is over the maximum of {maximum}: {advice}")
        self.limit = limit
        self.maximum = maximum


class WindowTooLarge(InvalidQuery):
    """Too much of the window would have to be fetched within one request."""

    code = "window_too_large"

    def __init__(self, pages: int, maximum: int) -> None:
        super().__init__(
            f"{pages} pages would have to be fetched for this window, and one request fetches at "
            f"most {maximum}: ask for a shorter window or a smaller limit, and follow `next`"
        )
        self.pages = pages
        self.maximum = maximum


class HistoryUnavailable(InvalidQuery):
    """The exchange has forgotten what was asked for, and the store never had it."""

    code = "history_unavailable"

    def __init__(self, exchange: str, earliest: datetime) -> None:
        super().__init__(
            f"{exchange} no longer has candles before {earliest.isoformat()}: "
            "start there, or ask with partial=true"
        )
        self.exchange = exchange
        self.earliest = earliest


class UnknownExchange(MdpError):
    """No adapter has that name."""

    code = "unknown_exchange"

    def __init__(self, exchange: str, known: Sequence[str]) -> None:
        super().__init__(f"unknown exchange {exchange!r}: one of {', '.join(known)}")
        self.known = tuple(known)


class UnknownMarketType(MdpError):
    """The exchange has no such market type here."""

    code = "unknown_market_type"

    def __init__(self, exchange: str, market_type: str, known: Sequence[str]) -> None:
        super().__init__(
            f"unknown market type {market_type!r} for {exchange}: one of {', '.join(known)}"
        )
        self.known = tuple(known)


class UnknownSymbol(MdpError):
    """The exchange lists no such symbol."""

    code = "unknown_symbol"

    def __init__(self, exchange: str, symbol: str, near: Sequence[str]) -> None:
        hint = f"; near it: {', '.join(near)}" if near else ""
        super().__init__(f"unknown symbol {symbol!r} on {exchange}: write BASE-QUOTE{hint}")
        self.near = tuple(near)


class AmbiguousSymbol(UnknownSymbol):
    """Several active symbols share that name."""

    def __init__(self, exchange: str, symbol: str, natives: Sequence[str]) -> None:
        MdpError.__init__(
            self,
            f"symbol {symbol!r} is ambiguous on {exchange}: write the exchange's own name, one of "
            f"{', '.join(natives)}",
        )
        self.near = tuple(natives)


class UnsupportedInterval(MdpError):
    """The exchange publishes no candles of that interval."""

    code = "unsupported_interval"

    def __init__(self, exchange: str, interval: str, supported: Sequence[str]) -> None:
        super().__init__(f"{exchange} has no interval {interval!r}: one of {', '.join(supported)}")
        self.supported = tuple(supported)


class NoCandle(MdpError):
    """The one candle that was asked for does not exist, or not near enough."""

    code = "not_found"

    def __init__(self, series: str, where: str) -> None:
        super().__init__(f"{series} has no candle {where}: ask /candles for an older window")


class NeverTraded(NoCandle):
    """The symbol is listed, and has not traded yet."""

    def __init__(self) -> None:
        MdpError.__init__(self, "the exchange has no candle of it so far")


class UnknownBackfill(MdpError):
    """No fill job has that id."""

    code = "not_found"

    def __init__(self, job: int) -> None:
        super().__init__(f"there is no job {job}: GET /backfills lists them")
