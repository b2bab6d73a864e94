"""Errors of this service: its syncer, its capacity, its database."""

from mdp_core.errors.base import MdpError


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
