"""The price of requests: what an exchange permits, as data."""

from collections.abc import Callable
from dataclasses import dataclass

MINUTE_SECONDS = 60


def _one(slots: int) -> float:
    del slots
    return 1.0


@dataclass(frozen=True, slots=True)
class Tariff:
    """An exchange's rate limit for one IP address, in its own unit of weight.

    The capacity and sixty seconds of refill make up the limit per minute, so that no minute sees
    more than the limit, whenever it begins.
    """

    capacity: float
    per_second: float
    used_header: str | None = None
    """The response header, if any, that tells what was used of the limit in this clock minute."""
    weigh: Callable[[int], float] = _one
    """What one request for so many slots weighs, at the most."""

    @property
    def per_minute(self) -> float:
        """The exchange's limit."""
        return self.capacity + MINUTE_SECONDS * self.per_second


@dataclass(frozen=True, slots=True)
class Terms:
    """The terms on which an exchange gives candles.

    `request_weight` tells what a request for so many slots costs, `per_second` how much of that
    may be spent for long.
    """

    page_size: int
    pages_per_request: int
    request_weight: Callable[[int], float]
    per_second: float

    def weigh(self, slots: int) -> float:
        """Return the weight of fetching adjacent slots from the start of a page."""
        size = self.page_size * self.pages_per_request
        full, rest = divmod(slots, size)
        return full * self.request_weight(size) + (self.request_weight(rest) if rest else 0.0)
