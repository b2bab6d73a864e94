"""Errors about an exchange; `exchange` names it."""

from collections.abc import Sequence
from datetime import datetime

from mdp_core.errors.base import MdpError

_SKEW_RETRY_SECONDS = 5.0  # how often an exchange's clock is read again while it is in doubt


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
