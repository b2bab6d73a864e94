"""Jobs and estimates as they are shown; times in epoch ms."""

from typing_extensions import TypedDict


class EstimateBody(TypedDict):
    """The work that is left; `eta_s` includes the wait for jobs queued ahead."""

    candles: int
    pages: int
    weight: float
    eta_s: float
    cached_share: float


class BoundsBody(TypedDict):
    """A window, half-open."""

    start: int
    end: int


class LostBody(BoundsBody):
    """A window that could not be fetched: the error's code and its text."""

    reason: str
    detail: str


class _OfSeries(BoundsBody):
    exchange: str
    market_type: str
    symbol: str
    interval: str


class _Known(_OfSeries):
    """The facts about a job's series.

    `beyond_memory` is what the exchange can't give any more. Unless `begins_known` the history may
    begin later than the estimate assumes, and there is less to fetch: the job's worker finds out.
    """

    beyond_memory: list[BoundsBody]
    begins_known: bool


class PlannedBody(_Known):
    """A job that a dry run describes."""

    estimate: EstimateBody


class FailedBody(TypedDict):
    """A series without a job: `code` and `detail` as in an error's answer."""

    exchange: str
    market_type: str
    symbol: str
    interval: str
    code: str
    detail: str


class MadeBody(_Known):
    """A job."""

    job: int
    status_url: str


class AcceptedBody(MadeBody):
    """A job that was just asked for."""

    estimate: EstimateBody


class ProgressBody(TypedDict):
    """The slots of the window, and how many of them are covered.

    `unconfirmed` counts covered slots without a candle that will be asked for again.
    """

    slots: int
    covered: int
    unconfirmed: int
    share: float


class JobBody(MadeBody):
    """A job; its progress is read from coverage, its estimate is of what is left.

    Both are null where its series can't be resolved, e.g. while its exchange is not installed.
    """

    state: str
    progress: ProgressBody | None
    estimate: EstimateBody | None
    created_at: int
    started_at: int | None
    ended_at: int | None
    error: str | None
    missing: list[LostBody]


class JobsBody(TypedDict):
    """The newest first; `next` where there are more."""

    backfills: list[JobBody]
    next: str | None


class PlannedJobsBody(TypedDict):
    """The estimate of a dry run; `failed`: series that can't be filled now."""

    jobs: list[PlannedBody]
    failed: list[FailedBody]
    estimate: EstimateBody


class AcceptedJobsBody(TypedDict):
    """The jobs of a request; there is no job for the series of `failed`."""

    jobs: list[AcceptedBody]
    failed: list[FailedBody]
    estimate: EstimateBody
