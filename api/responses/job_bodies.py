"""Jobs and estimates as they are shown; times in epoch ms."""

from typing_extensions import TypedDict


class Estimate(TypedDict):
    """What is left to fetch; `eta_s` counts the wait for what is queued ahead."""

    candles: int
    pages: int
    weight: float
    eta_s: float
    cached_share: float


class Bounds(TypedDict):
    """A window, half-open."""

    start: int
    end: int


class Lost(Bounds):
    """A window that could not be had: the code of the error that says why, and its text."""

    reason: str
    detail: str


class _OfSeries(Bounds):
    exchange: str
    market_type: str
    symbol: str
    interval: str


class _Known(_OfSeries):
    """What is known of a series.

    `beyond_memory` is what the exchange can't give any more. Unless `begins_known` the history may
    begin later than the estimate reckons with, and there is less to fetch: whoever works on the job
    finds out first.
    """

    beyond_memory: list[Bounds]
    begins_known: bool


class PlannedFill(_Known):
    """What a job would be."""

    estimate: Estimate


class Failed(TypedDict):
    """A series that has no job, and why: `code` and `detail` as an error's answer has them."""

    exchange: str
    market_type: str
    symbol: str
    interval: str
    code: str
    detail: str


class Made(_Known):
    """A job."""

    job: int
    status_url: str


class Accepted(Made):
    """A job that was just asked for."""

    estimate: Estimate


class Progress(TypedDict):
    """How many slots of the window there are, how many of them are covered.

    `unconfirmed` counts covered slots without a candle that will be asked for again.
    """

    slots: int
    covered: int
    unconfirmed: int
    share: float


class Job(Made):
    """A job; its progress is read from coverage, its estimate is of what is left.

    Both are null where its series can't be resolved, e.g. while its exchange is not installed.
    """

    state: str
    progress: Progress | None
    estimate: Estimate | None
    created_at: int
    started_at: int | None
    ended_at: int | None
    error: str | None
    missing: list[Lost]


class Jobs(TypedDict):
    """The newest first; `next` where there are more."""

    backfills: list[Job]
    next: str | None


class PlannedJobs(TypedDict):
    """What it would take; `failed` are series that can't be asked for now, or have no candle."""

    jobs: list[PlannedFill]
    failed: list[Failed]
    estimate: Estimate


class AcceptedJobs(TypedDict):
    """What was asked for; there is no job for what `failed`."""

    jobs: list[Accepted]
    failed: list[Failed]
    estimate: Estimate
