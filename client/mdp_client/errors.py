"""Every way in which a call can fail, as one tree of classes.

    MdpError ─┬─ HttpError (a status that no class below stands for)
              ├─ Unauthorized 401, Forbidden 403
              ├─ NotFound 404 (UnknownExchange, UnknownMarketType, UnknownSymbol,
              │                UnsupportedInterval)
              ├─ MethodNotAllowed 405, NotAcceptable 406, BodyTooLarge 413, UriTooLong 414
              ├─ InvalidParameter 422 (InvalidWindow, LimitTooLarge, WindowTooLarge,
              │                        HistoryUnavailable)
              ├─ TooManyRequests 429 (QuotaExceeded), HeadersTooLarge 431
              ├─ InternalError 500, UpstreamError 502 (UpstreamBadData, UpstreamRejected)
              ├─ ServiceUnavailable 503 (UpstreamUnavailable, RateLimited, Overloaded, ClockSkew,
              │                          StoreUnavailable, SyncerUnavailable)
              └─ of the client itself: ConnectionFailed (TimedOut), BadBody (BrokenBody),
                 JobStarted, JobFailed (JobCancelled, JobStalled), NotConfigured, MissingExtra

A class carries the `code` of the service's table; a code that is not known falls to the class of
its status.
"""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Any, ClassVar

if TYPE_CHECKING:
    from mdp_client.jobs import AsyncJob, Job


class MdpError(Exception):
    """An answer that is no answer; `str(error)` holds the detail.

    Args:
        code: The service's stable code, or the client's own word.
        status: The HTTP status; None where no answer came.
        detail: A sentence for people: the cause, and what to do.
        request_id: The id under which the service logged the request.
    """

    retry_after: float | None = None
    """Seconds after which another try may succeed."""
    earliest: datetime | None = None
    """The earliest open time that can be had (`HistoryUnavailable`)."""
    near: tuple[str, ...] = ()
    """Names that resemble the one that is unknown (`UnknownSymbol`)."""
    supported: tuple[str, ...] = ()
    """Intervals that there are (`UnsupportedInterval`)."""
    known: tuple[str, ...] = ()
    """Names that there are (`UnknownExchange`, `UnknownMarketType`)."""
    times: tuple[datetime, ...] = ()
    """Open times of candles that can't be right (`UpstreamBadData`)."""

    default_code: ClassVar[str] = "error"

    def __init__(
        self,
        code: str | None = None,
        status: int | None = None,
        detail: str = "",
        request_id: str | None = None,
    ) -> None:
        self.code = code or self.default_code
        self.status = status
        self.detail = detail
        self.request_id = request_id
        super().__init__(code, status, detail, request_id)

    def __str__(self) -> str:
        named = f", request {self.request_id}" if self.request_id else ""
        status = f" (HTTP {self.status}{named})" if self.status else ""
        return f"{self.code}: {self.detail}{status}"


class HttpError(MdpError):
    """A status that no other class stands for."""

    default_code = "http_error"


class Unauthorized(MdpError):
    """No token, or one that proves nothing."""

    default_code = "unauthorized"


class Forbidden(MdpError):
    """A token that lacks a scope."""

    default_code = "forbidden"


class NotFound(MdpError):
    """No such path or job, or no candle near the live edge."""

    default_code = "not_found"


class UnknownExchange(NotFound):
    """An exchange that the service does not have; `known` are those that it has."""

    default_code = "unknown_exchange"


class UnknownMarketType(NotFound):
    """A market type that the exchange does not have; `known` are those that it has."""

    default_code = "unknown_market_type"


class UnknownSymbol(NotFound):
    """A symbol that the exchange does not list; `near` are similar names."""

    default_code = "unknown_symbol"


class UnsupportedInterval(NotFound):
    """An interval that the exchange does not publish; `supported` lists the others."""

    default_code = "unsupported_interval"


class MethodNotAllowed(MdpError):
    """A path that takes another method."""

    default_code = "method_not_allowed"


class NotAcceptable(MdpError):
    """A format that the service does not write."""

    default_code = "not_acceptable"


class BodyTooLarge(MdpError):
    """A request with too many names in it."""

    default_code = "body_too_large"


class UriTooLong(MdpError):
    """A request whose path and query are too long."""

    default_code = "uri_too_long"


class InvalidParameter(MdpError):
    """A parameter that can't be read; the detail names it."""

    default_code = "invalid_parameter"


class InvalidWindow(InvalidParameter):
    """A window whose start lies after its end."""

    default_code = "invalid_window"


class LimitTooLarge(InvalidParameter):
    """More candles than one answer holds."""

    default_code = "limit_too_large"


class WindowTooLarge(InvalidParameter):
    """More to be fetched than one request may."""

    default_code = "window_too_large"


class HistoryUnavailable(InvalidParameter):
    """A window that the exchange has forgotten; it remembers from `earliest` on."""

    default_code = "history_unavailable"


class TooManyRequests(MdpError):
    """More requests than the service grants."""

    default_code = "too_many_requests"


class QuotaExceeded(TooManyRequests):
    """More open jobs or waiting requests than the token's subject may have."""

    default_code = "quota_exceeded"


class HeadersTooLarge(MdpError):
    """A request whose headers are too large."""

    default_code = "headers_too_large"


class InternalError(MdpError):
    """A mistake of the service's; the request id finds it in its log."""

    default_code = "internal_error"


class UpstreamError(MdpError):
    """An answer of the exchange's, or of a gateway's, that can't be used."""

    default_code = "upstream_error"


class UpstreamBadData(UpstreamError):
    """Candles that can't be right, at `times`; `partial=True` gives the rest."""

    default_code = "upstream_bad_data"


class UpstreamRejected(UpstreamError):
    """A request that the exchange refused; the detail has its words."""

    default_code = "upstream_rejected"


class ServiceUnavailable(MdpError):
    """A service that can't answer now, for as long as the client's patience lasts."""

    default_code = "service_unavailable"


class UpstreamUnavailable(ServiceUnavailable):
    """An exchange that can't be reached in time."""

    default_code = "upstream_unavailable"


class RateLimited(ServiceUnavailable):
    """An exchange whose limit is used up."""

    default_code = "rate_limited"


class Overloaded(ServiceUnavailable):
    """A service at which too many requests wait."""

    default_code = "overloaded"


class ClockSkew(ServiceUnavailable):
    """Clocks of service and exchange that are too far apart to tell the newest candle."""

    default_code = "clock_skew"


class StoreUnavailable(ServiceUnavailable):
    """A database that can't be reached."""

    default_code = "store_unavailable"


class SyncerUnavailable(ServiceUnavailable):
    """A job's worth of candles to fetch, and no syncer that works on jobs."""

    default_code = "syncer_unavailable"


class ConnectionFailed(MdpError):
    """A connection that could not be made, or that broke."""

    default_code = "connection_failed"


class TimedOut(ConnectionFailed):
    """A connection on which no byte came for the time-out's seconds."""

    default_code = "timed_out"


class BadBody(MdpError):
    """A body other than was asked for: cut, of another type, or of another window."""

    default_code = "bad_body"


class BrokenBody(BadBody):
    """A body that was cut or garbled on its way."""

    default_code = "broken_body"


class JobStarted(MdpError):
    """A window that a job fetches first, where the caller does not wait; see `job`."""

    default_code = "job_started"

    def __init__(self, job: Job | AsyncJob) -> None:
        detail = f"job {job.id} fetches these candles: ask again when job.wait() returns"
        super().__init__(status=202, detail=detail)
        self.job: Any = job


class JobFailed(MdpError):
    """A job that ended without having fetched its window."""

    default_code = "job_failed"


class JobCancelled(JobFailed):
    """A job that was cancelled."""

    default_code = "job_cancelled"


class JobStalled(JobFailed):
    """A job without progress for as long as the client's patience lasts; it goes on."""

    default_code = "job_stalled"


class NotConfigured(MdpError):
    """A client that is not told where the service is."""

    default_code = "not_configured"


class MissingExtra(MdpError, ImportError):
    """A library that is not installed, for a shape that needs it."""

    default_code = "missing_extra"
