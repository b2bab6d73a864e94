"""Examples of answers for OpenAPI; a test holds them to its schemas."""

from typing import Any

_SERIES: dict[str, Any] = {
    "exchange": "binance",
    "market_type": "perp",
    "symbol": "BTC-USDT",
    "interval": "1m",
    "start": 1577836800000,
    "end": 1704067200000,
}
_ESTIMATE: dict[str, Any] = {
    "candles": 2103840,
    "pages": 4217,
    "weight": 8434.0,
    "eta_s": 264.1,
    "cached_share": 0.0,
}
_ACCEPTED: dict[str, Any] = {
    "job": 7,
    "status_url": "/backfills/7",
    **_SERIES,
    "beyond_memory": [],
    "begins_known": True,
    "estimate": _ESTIMATE,
}

CANDLES: dict[str, Any] = {
    "exchange": "binance",
    "market_type": "perp",
    "symbol": "BTC-USDT",
    "interval": "1h",
    "start": 1714521600000,
    "end": 1714528800000,
    "settled_until": 1714528800000,
    "unconfirmed": [],
    "columns": ["time", "open", "high", "low", "close", "volume"],
    "candles": [
        [1714521600000, 60642.4, 60815.9, 60423.1, 60530.0, 9853.117],
        [1714525200000, 60530.0, 60601.3, 59878.0, 60017.5, 15120.482],
    ],
    "count": 2,
    "complete": True,
    "next": None,
}
_LATEST: dict[str, Any] = {
    "candle": {
        "time": 1714521600000,
        "open": 60642.4,
        "high": 60815.9,
        "low": 60423.1,
        "close": 60530.0,
        "volume": 9853.117,
        "quote_volume": 597351482.7,
        "trades": 151203,
        "taker_buy_volume": 4571.9,
        "taker_buy_quote_volume": 309552108.4,
    },
    "closed": True,
    "settled": True,
    "as_of": 1714525263000,
    "unconfirmed": [],
}
_COVERAGE: dict[str, Any] = {
    "windows": [
        {"start": 1714521600000, "end": 1715040000000, "state": "covered"},
        {"start": 1715040000000, "end": 1717200000000, "state": "not_fetched"},
    ],
    "next": None,
}
_INVENTORY: dict[str, Any] = {
    "series": [
        {
            **_SERIES,
            "covered_slots": 2103840,
            "unconfirmed_slots": 0,
            "last_requested": 1714525263000,
        }
    ],
    "next": None,
}
_EXCHANGES: dict[str, Any] = {
    "exchanges": [{"exchange": "coinbase", "name": "Coinbase Exchange", "market_types": ["spot"]}],
    "next": None,
}
_SYMBOLS: dict[str, Any] = {
    "symbols": [
        {
            "exchange": "binance",
            "market_type": "perp",
            "symbol": "1000PEPE-USDT",
            "native_symbol": "1000PEPEUSDT",
            "ccxt_symbol": "1000PEPE/USDT:USDT",
            "base": "1000PEPE",
            "quote": "USDT",
            "multiplier": 1000,
            "active": True,
            "tick_size": 1e-07,
            "step_size": 1.0,
            "listed_at": 1683270000000,
            "delisted_at": None,
        }
    ],
    "next": None,
}
_INTERVALS: dict[str, Any] = {
    "intervals": [
        {
            "exchange": "coinbase",
            "market_type": "spot",
            "interval": "6h",
            "native": "21600",
            "grid": {"step_ms": 21600000, "phase_ms": 0, "phase_varies": False},
        }
    ],
    "next": None,
}
_JOB: dict[str, Any] = {
    **_ACCEPTED,
    "state": "running",
    "progress": {"slots": 2103840, "covered": 499000, "unconfirmed": 0, "share": 0.237185},
    "created_at": 1714525263000,
    "started_at": 1714525265000,
    "ended_at": None,
    "error": None,
    "missing": [],
}
_JOBS: dict[str, Any] = {"backfills": [_JOB], "next": None}
_PLANNED_JOBS: dict[str, Any] = {
    "jobs": [{**_SERIES, "beyond_memory": [], "begins_known": True, "estimate": _ESTIMATE}],
    "failed": [],
    "estimate": _ESTIMATE,
}
_ACCEPTED_JOBS: dict[str, Any] = {
    "jobs": [_ACCEPTED],
    "failed": [
        {
            "exchange": "binance",
            "market_type": "perp",
            "symbol": "ETH-USDT",
            "interval": "1m",
            "code": "upstream_unavailable",
            "detail": "binance answered HTTP 500: try again in 1 s",
        }
    ],
    "estimate": _ESTIMATE,
}
_HEALTH: dict[str, Any] = {
    "status": "ok",
    "database": {
        "reachable": True,
        "replica": "used",
        "kind": "timescaledb",
        "postgres": "16.9",
        "timescaledb": "2.19.3",
        "migration": "0007",
        "expected_migration": "0007",
    },
    "exchanges": {
        "binance": {
            "reachable": True,
            "last_error": None,
            "clock_offset_ms": 12,
            "blocked": [],
            "expiring": [],
        }
    },
    "syncers": [{"name": "41:f09e8b", "alive": True, "heartbeat_at": 1714525263000}],
    "runs": [],
    "counters": {
        "hits": 4112,
        "misses": 29,
        "pages": 61,
        "waiting": 0,
        "series_waiting": 0,
        "rejected_rows": 0,
        "unconfirmed_slots": 0,
        "verified": 69860,
        "differing": 0,
    },
}
_OUT_OF_REACH: dict[str, Any] = {
    "status": "unavailable",
    "database": {
        "reachable": False,
        "replica": None,
        "problem": "the database does not answer in time",
    },
}


_SERIES_PATH = "{exchange}/{market_type}/{symbol}/{interval}"
# By method, path and status.
EXAMPLES: dict[tuple[str, str, str], dict[str, Any]] = {
    ("get", f"/candles/{_SERIES_PATH}", "200"): CANDLES,
    ("get", f"/candles/{_SERIES_PATH}", "202"): _ACCEPTED,
    ("get", f"/latest/{_SERIES_PATH}", "200"): _LATEST,
    ("get", f"/coverage/{_SERIES_PATH}", "200"): _COVERAGE,
    ("get", "/coverage", "200"): _INVENTORY,
    ("get", "/meta/exchanges", "200"): _EXCHANGES,
    ("get", "/meta/symbols", "200"): _SYMBOLS,
    ("get", "/meta/intervals", "200"): _INTERVALS,
    ("post", "/backfills", "200"): _PLANNED_JOBS,
    ("post", "/backfills", "202"): _ACCEPTED_JOBS,
    ("get", "/backfills", "200"): _JOBS,
    ("get", "/backfills/{job}", "200"): _JOB,
    ("delete", "/backfills/{job}", "200"): _JOB,
    ("get", "/health", "200"): _HEALTH,
    ("get", "/health", "503"): _OUT_OF_REACH,
    ("get", "/health/live", "200"): {"status": "ok"},
}
