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
    """A window that could not be had, and the code of the error that says why."""

    reason: str


class _OfSeries(Bounds):
    exchange: str
    market_type: str
    symbol: str
    interval: str


class Planned(_OfSeries):
    """What a job would be; `beyond_memory` is what the exchange can't give any more."""

    beyond_memory: list[Bounds]
    estimate: Estimate


class Accepted(_OfSeries):
    """A job that was just asked for; `beyond_memory` is what the exchange can't give any more."""

    job: int
    status_url: str
    beyond_memory: list[Bounds]
    estimate: Estimate


class Progress(TypedDict):
    """How many slots of the window there are, and how many of them are covered."""

    slots: int
    covered: int
    share: float


class Job(Accepted):
    """A job; its progress is read from coverage, its estimate is of what is left."""

    state: str
    progress: Progress
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
    """What it would take."""

    jobs: list[Planned]
    estimate: Estimate


class AcceptedJobs(TypedDict):
    """What was asked for."""

    jobs: list[Accepted]
    estimate: Estimate
