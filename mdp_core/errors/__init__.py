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

from mdp_core.errors.base import (
    MdpError,
    copied,
)
from mdp_core.errors.exchange import (
    BadPayload,
    BadRows,
    ClockSkew,
    ExchangeError,
    ExchangeRejected,
    ExchangeUnavailable,
    RateLimited,
)
from mdp_core.errors.queries import (
    AmbiguousSymbol,
    HistoryUnavailable,
    InvalidParameter,
    InvalidQuery,
    InvalidWindow,
    LimitTooLarge,
    NeverTraded,
    NoCandle,
    NothingClosed,
    UnknownBackfill,
    UnknownExchange,
    UnknownMarketType,
    UnknownSymbol,
    UnsupportedInterval,
    WindowTooLarge,
)
from mdp_core.errors.service import (
    NoSyncer,
    Overloaded,
    QuotaExceeded,
    SchemaMissing,
    SeriesRepaired,
    StoreUnavailable,
)

__all__ = [
    "AmbiguousSymbol",
    "BadPayload",
    "BadRows",
    "ClockSkew",
    "ExchangeError",
    "ExchangeRejected",
    "ExchangeUnavailable",
    "HistoryUnavailable",
    "InvalidParameter",
    "InvalidQuery",
    "InvalidWindow",
    "LimitTooLarge",
    "MdpError",
    "NeverTraded",
    "NoCandle",
    "NoSyncer",
    "NothingClosed",
    "Overloaded",
    "QuotaExceeded",
    "RateLimited",
    "SchemaMissing",
    "SeriesRepaired",
    "StoreUnavailable",
    "UnknownBackfill",
    "UnknownExchange",
    "UnknownMarketType",
    "UnknownSymbol",
    "UnsupportedInterval",
    "WindowTooLarge",
    "copied",
]
