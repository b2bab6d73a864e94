"""Controls for tests: the log of requests, the faults to come, latency and limits.

Times here are real ones, as budgets are: they say how a client behaves, whatever the sandbox's
clock shows.
"""

import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Annotated, Literal, Self, get_args

from pydantic import BaseModel, ConfigDict, Field, model_validator

from scripts.sandbox.exchange import SandboxCall

Failure = Literal[
    "rate_limited",
    "banned",
    "server_error",
    "maintenance_html",
    "hang",
    "truncated_json",
    "null_body",
    "error_body",
    "redirect",
]
CandleFault = Literal[
    "empty_page",
    "short_page",
    "duplicate_rows",
    "conflicting_rows",
    "out_of_order",
    "off_grid",
    "ohlc_violation",
    "late_candle",
    "wrong_window",
    "shifted_window",
    "wrong_unit",
    "null_field",
]
TimeFault = Literal["clock_ahead", "clock_behind", "clock_in_seconds"]
SymbolFault = Literal["malformed_entry", "empty_list", "half_list"]
FileFault = Literal[
    "checksum",
    "remade",
    "truncated",
    "hole",
    "conflict",
    "bomb",
    "two_members",
    "wrong_member",
    "other_symbol",
    "other_era",
]
TransferFault = Literal["missing", "forbidden", "html", "drip", "cut_off"]


class FaultKind(StrEnum):
    """Kinds of requests that a fault can hit."""

    CANDLES = "candles"
    TIME = "time"
    SYMBOLS = "symbols"
    ARCHIVE = "archive"


_KIND_OF = (
    dict.fromkeys(get_args(CandleFault), FaultKind.CANDLES)
    | dict.fromkeys(get_args(TimeFault), FaultKind.TIME)
    | dict.fromkeys(get_args(SymbolFault), FaultKind.SYMBOLS)
    | dict.fromkeys((*get_args(FileFault), *get_args(TransferFault)), FaultKind.ARCHIVE)
)
_NO_FILE_HAS = {"late_candle", "wrong_window", "null_field"}
_FILE_FAULTS = {*get_args(FileFault), *get_args(CandleFault)} - {"remade", *_NO_FILE_HAS}
_NO_TRANSFER_HAS = {"truncated_json", "null_body", "error_body"}
_TRANSFER_FAULTS = {"remade", *get_args(TransferFault), *get_args(Failure)} - _NO_TRANSFER_HAS


@dataclass(slots=True)
class LogEntry:
    """One logged request; `status` is None until it is answered, which may be never."""

    exchange: str
    method: str
    path: str
    params: Mapping[str, object]
    headers: Mapping[str, str]
    status: int | None
    fault: str | None
    at: int


class Log:
    """All requests to the exchanges in the order in which they came, until cleared."""

    def __init__(self) -> None:
        """Start empty."""
        self._entries: list[LogEntry] = []

    def add(self, exchange: str, call: SandboxCall) -> LogEntry:
        """Note a request that has just come; its entry is completed when it is answered."""
        at = time.time_ns() // 1_000_000
        entry = LogEntry(
            exchange, call.method, call.path, call.params, call.headers, None, None, at
        )
        self._entries.append(entry)
        return entry

    def clear(self) -> None:
        """Forget all requests."""
        self._entries.clear()

    def rows(self) -> list[dict[str, object]]:
        """Give all entries as plain objects."""
        return [asdict(entry) for entry in self._entries]


class Fault(BaseModel):
    """An order to spoil the next `times` matching requests of an exchange.

    Other keys select: for candles `symbol` (native) and `interval` (`1m` to `1M`), or any parameter
    of the exchange's candle request; a request matches when all of them are equal, compared as
    text. For `malformed_entry`, `symbol` names the entry.

    Attributes:
        kind: Requests that it hits; left out: the ones that it is made for, else candles.
        retry_after: Seconds, for `rate_limited` and `banned`.
        seconds: Real seconds: how long `hang` waits before it gives up with 504 (default 60), and
            how long after its first omission `late_candle` withholds a row (default 30). Seconds
            of the exchange's clock for `clock_ahead` and `clock_behind` (default five hours).
        slot: Open time (epoch ms) of the row that `late_candle` withholds, from the first answer
            on that would hold it closed; left out: the newest row of the first matching answer.
        unit: For `wrong_unit`; `s` at Coinbase, whose own unit it is, prints milliseconds.
        field: Column that `null_field` empties, or key that `malformed_entry` does.
        location: Target of `redirect`; left out: a path of the sandbox that isn't there.
    """

    model_config = ConfigDict(extra="allow")
    exchange: Literal["binance", "hyperliquid", "coinbase", "archive"]
    fault: Failure | CandleFault | TimeFault | SymbolFault | FileFault | TransferFault
    kind: FaultKind = FaultKind.CANDLES
    times: Annotated[int, Field(ge=1)] = 1
    retry_after: Annotated[int, Field(ge=0)] = 1
    seconds: Annotated[float, Field(ge=0)] | None = None
    slot: int | None = None
    unit: Literal["s", "us", "ns"] = "us"
    field: str | None = None
    location: str | None = None

    @model_validator(mode="after")
    def _settle_kind(self) -> Self:
        own = _KIND_OF.get(self.fault)
        given = self.kind if "kind" in self.model_fields_set else None
        if FaultKind.ARCHIVE in {own, given} or self.exchange == "archive":
            return self._settle_archive(given)
        self.kind = own or self.kind
        if given and self.kind != given:
            message = f"{self.fault} hits requests of the kind {self.kind.value}"
            raise ValueError(message)
        return self

    def _settle_archive(self, given: FaultKind | None) -> Self:
        if self.exchange not in {"binance", "archive"} or given not in {None, FaultKind.ARCHIVE}:
            message = "only binance has an archive, and its faults the kind archive"
            raise ValueError(message)
        if self.fault not in _FILE_FAULTS | _TRANSFER_FAULTS:
            message = f"the archive has no fault {self.fault}"
            raise ValueError(message)
        self.exchange, self.kind = "archive", FaultKind.ARCHIVE
        return self

    @property
    def is_of_files(self) -> bool:
        """Tell whether the fault spoils a file of the archive, rather than a transfer."""
        return self.kind is FaultKind.ARCHIVE and self.fault in _FILE_FAULTS

    @property
    def selectors(self) -> Mapping[str, object]:
        """Give the keys that must be equal in a request."""
        return self.model_extra or {}


class SandboxSettings(BaseModel):
    """A change of settings; what is left out stays.

    Attributes:
        unknown_status: Whether one symbol of a list has a status that no client knows.
    """

    model_config = ConfigDict(extra="forbid")
    latency_ms: Annotated[float, Field(ge=0)] | None = None
    limits: Literal["on", "off"] | None = None
    unknown_status: Literal["on", "off"] | None = None
