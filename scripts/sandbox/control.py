"""What a test controls: the log of requests, the faults to come, latency and limits.

Times here are real ones, as budgets are: they say how a client behaves, whatever the sandbox's
clock shows.
"""

import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

FaultName = Literal[
    "rate_limited",
    "banned",
    "server_error",
    "maintenance_html",
    "hang",
    "truncated_json",
    "null_body",
    "empty_page",
    "short_page",
    "duplicate_rows",
    "conflicting_rows",
    "out_of_order",
    "off_grid",
    "ohlc_violation",
    "late_candle",
]


@dataclass(slots=True)
class Entry:
    """One logged request; `status` is None until it is answered, which may be never."""

    exchange: str
    method: str
    path: str
    params: Mapping[str, object]
    status: int | None
    fault: str | None
    at: int


class Log:
    """All requests to the exchanges in the order in which they came, until cleared."""

    def __init__(self) -> None:
        """Start empty."""
        self._entries: list[Entry] = []

    def add(self, exchange: str, method: str, path: str, params: Mapping[str, object]) -> Entry:
        """Note a request that has just come; its entry is completed when it is answered."""
        at = time.time_ns() // 1_000_000
        entry = Entry(exchange, method, path, params, None, None, at)
        self._entries.append(entry)
        return entry

    def clear(self) -> None:
        """Forget all requests."""
        self._entries.clear()

    def rows(self) -> list[dict[str, object]]:
        """Give all entries as plain objects."""
        return [asdict(entry) for entry in self._entries]


class Fault(BaseModel):
    """An order to spoil the next `times` matching candle requests of an exchange.

    Other keys select: `symbol` (native) and `interval` (`1m` to `1M`), or any parameter of the
    exchange's candle request; a request matches when all of them are equal, compared as text.

    Attributes:
        retry_after: Seconds, for `rate_limited` and `banned`.
        seconds: Real seconds: how long `hang` waits before it gives up with 504 (default 60), and
            how long after its first omission `late_candle` withholds a row (default 30).
    """

    model_config = ConfigDict(extra="allow")
    exchange: Literal["binance", "hyperliquid", "coinbase"]
    fault: FaultName
    times: Annotated[int, Field(ge=1)] = 1
    retry_after: Annotated[int, Field(ge=0)] = 1
    seconds: Annotated[float, Field(ge=0)] | None = None

    @property
    def selectors(self) -> Mapping[str, object]:
        """Give the keys that must be equal in a request."""
        return self.model_extra or {}


class Settings(BaseModel):
    """A change of settings; what is left out stays."""

    model_config = ConfigDict(extra="forbid")
    latency_ms: Annotated[float, Field(ge=0)] | None = None
    limits: Literal["on", "off"] | None = None
