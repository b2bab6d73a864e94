"""Errors of the core. It knows no HTTP: `api/errors.py` has the statuses.

    MdpError
    ├── InvalidQuery
    │   ├── InvalidParameter
    │   ├── InvalidWindow
    │   │   └── NothingClosed      no candle of it can be had yet
    │   ├── LimitTooLarge
    │   ├── WindowTooLarge
    │   └── HistoryUnavailable
    ├── UnknownExchange
    ├── UnknownMarketType
    ├── UnknownSymbol
    │   └── AmbiguousSymbol            several are active under that name
    ├── UnsupportedInterval
    ├── UnknownBackfill                no job has that id
    ├── NoCandle                       there is none to be found where one was asked for
    │   └── NeverTraded                the series has none at all so far
    ├── ExchangeError                  about the exchange; `exchange` names it
    │   ├── ExchangeRejected           it refused the request: asking again is no use
    │   ├── BadPayload                 it answered what can't be read
    │   ├── BadRows                    it sent rows that can't be right
    │   ├── ExchangeUnavailable        it can't be had now; `retry_after_seconds`
    │   │   └── ClockSkew              clocks are apart: what is closed can't be told
    │   └── RateLimited                its limit, or our budget for it, is used up for now
    ├── NoSyncer                       no syncer would work on the job
    ├── QuotaExceeded                  a subject has as much as one may have
    ├── Overloaded                     this service has too much to do
    └── StoreUnavailable               the database can't be had now
        ├── SchemaMissing              it has not the tables that this version works with
        └── SeriesRepaired             its candles were replaced while they were read

Errors carry their data as attributes and build their own message: what is wrong, what to do.
`code` is stable: clients know an error by it, and it is stored.
"""

from collections.abc import Sequence
from datetime import datetime
from typing import ClassVar, TypeVar

Failed = TypeVar("Failed", bound=BaseException)

_SKEW_RETRY_SECONDS = 5.0  # how often an exchange's clock is read again while it is in doubt


class MdpError(Exception):
    """Anything this service raises on purpose."""

    code: ClassVar[str] = "internal_error"


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


class ExchangeError(MdpError):
    """The exchange did not give what it should."""

    def __init__(self, exchange: str, what: str) -> None:
        super().__init__(f"{exchange} {what}")
        self.exchange = exchange
        self.path = ""
        """The path that was asked for, where that is known."""


class ExchangeRejected(ExchangeError):
    """The exchange refused the request; the same request will be refused again."""

    code = "upstream_rejected"


class BadPayload(ExchangeError):
    """The exchange's answer has not the shape that its protocol promises."""

    code = "upstream_bad_data"


class BadRows(ExchangeError):
    """The exchange sent rows that can't be right; the good ones are stored."""

    code = "upstream_bad_data"

    def __init__(self, exchange: str, times: Sequence[datetime], reason: str) -> None:
        first = times[0].isoformat()
        super().__init__(
            exchange,
            f"sent {len(times)} row(s) that can't be right, the first at {first} ({reason}): "
            "they are not stored; ask again later, or with partial=true for the rest",
        )
        self.times = tuple(times)


class ExchangeUnavailable(ExchangeError):
    """The exchange can't be reached or is out of order."""

    code = "upstream_unavailable"

    def __init__(self, exchange: str, what: str, retry_after_seconds: float = 1.0) -> None:
        super().__init__(exchange, f"{what}: try again in {retry_after_seconds:.0f} s")
        self.retry_after_seconds = retry_after_seconds


class ClockSkew(ExchangeUnavailable):
    """Two clocks are too far apart to tell what is closed beyond the earlier one.

    `exchange` names the one that is compared with this service's; it may be the database.
    """

    code = "clock_skew"

    def __init__(self, exchange: str, their_time: datetime, our_time: datetime) -> None:
        super().__init__(
            exchange,
            f"shows {their_time.isoformat()} where this service's clock shows "
            f"{our_time.isoformat()}: what lies beyond the earlier of both can't be told until "
            "they agree; check the clock of this machine, and ask for older candles",
            _SKEW_RETRY_SECONDS,
        )
        self.their_time = their_time
        self.our_time = our_time

    @property
    def earlier(self) -> datetime:
        """The earlier of both times."""
        return min(self.their_time, self.our_time)


class RateLimited(ExchangeError):
    """The exchange's limit, or our budget below it, leaves no room for this request."""

    code = "rate_limited"

    def __init__(self, exchange: str, retry_after_seconds: float) -> None:
        super().__init__(
            exchange, f"takes no more requests now: try again in {retry_after_seconds:.0f} s"
        )
        self.retry_after_seconds = retry_after_seconds


class NoSyncer(MdpError):
    """More must be fetched than one request may, and no syncer is alive to do it."""

    code = "syncer_unavailable"

    retry_after_seconds = 30.0

    def __init__(self) -> None:
        super().__init__(
            "this needs a job, and no syncer is running that would work on it: start `mdp syncer`, "
            "use `mdp backfill`, or ask for a shorter window"
        )


class QuotaExceeded(MdpError):
    """The subject of a token has as much under way as one subject may have."""

    code = "quota_exceeded"

    def __init__(self, what: str, advice: str, retry_after_seconds: float) -> None:
        super().__init__(f"{what}: {advice}")
        self.retry_after_seconds = retry_after_seconds


class Overloaded(MdpError):
    """Too many requests wait already."""

    code = "overloaded"

    retry_after_seconds = 1.0

    def __init__(self) -> None:
        super().__init__("too many requests wait for candles already: try again shortly")


class StoreUnavailable(MdpError):
    """The database can't be reached or did not answer in time."""

    code = "store_unavailable"

    def __init__(self, what: str) -> None:
        super().__init__(f"the store is unavailable ({what}): try again shortly")
        self.retry_after_seconds = 1.0


class SchemaMissing(StoreUnavailable):
    """The database has not the tables that this version works with."""

    def __init__(self) -> None:
        super().__init__("it has not the tables that this version needs: run `mdp db upgrade`")


class SeriesRepaired(StoreUnavailable):
    """Candles were replaced while an answer was being read: it would be of two epochs."""

    def __init__(self, series: str) -> None:
        super().__init__(f"{series} was repaired while it was read")


def copied(error: Failed) -> Failed:
    """Return an error like this one for one more caller.

    An error that is raised more than once collects the traceback and the context of every caller.
    """
    twin = type(error).__new__(type(error), *error.args)
    twin.__dict__ |= error.__dict__
    twin.__cause__, twin.__suppress_context__ = error.__cause__, error.__suppress_context__
    return twin
