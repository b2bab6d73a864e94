"""`fetch_ohlcv` from the store equals ccxt's own against the same exchange."""

import asyncio
import os
import random
import time
from collections.abc import Generator
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import ccxt
import ccxt.async_support
import httpx
import pytest
from mdp_client import AsyncClient, Client
from mdp_client.ccxt import with_store
from mdp_client.testing import Service

from client_tests.scripted import Reply, ScriptedServer

STEPS = {"1m": 60_000, "5m": 300_000, "1h": 3_600_000}
TRIES = 50
CALLS = int(os.environ.get("MDP_CCXT_CALLS", "10"))
"""Random calls of each exchange, by each kind of client."""
CALLS_OF_A_BACKTEST = {"binanceusdm": 100, "hyperliquid": 30, "coinbaseexchange": 30}
Row = list[float]


@dataclass(frozen=True, slots=True)
class Case:
    """An exchange of ccxt's, and a symbol that is not replayed from a file."""

    name: str
    address: str
    prefix: str
    symbol: str


CASES = [
    Case("binanceusdm", "https://fapi.binance.com", "binance", "SOL/USDT:USDT"),
    Case("hyperliquid", "https://api.{hostname}", "hyperliquid", "SOL/USDC:USDC"),
    Case("coinbaseexchange", "https://api.{hostname}", "coinbase", "ETH/USD"),
]


class Exchange:
    """ccxt's exchange at the sandbox, of either kind, called as if synchronous."""

    def __init__(self, case: Case, mdp: Service, kind: str, *, is_answered: bool) -> None:
        self._runner = asyncio.Runner()
        self._kind = kind
        made = ccxt if kind == "sync" else ccxt.async_support
        self.exchange: Any = getattr(made, case.name)({"enableRateLimit": False})
        known = self.exchange.urls["api"]
        to = f"{mdp.sandbox_url}/{case.prefix}"
        self.exchange.urls["api"] = {
            name: it.replace(case.address, to) for name, it in known.items()
        }
        self._client: Any = None
        if is_answered:
            self._client = (Client if kind == "sync" else AsyncClient)(mdp.url, token=mdp.token)
            assert with_store(self.exchange, self._client) is self.exchange

    def fetch(self, *arguments: object) -> list[Row]:
        return self._run(self.exchange.fetch_ohlcv, *arguments)

    def close(self) -> None:
        if self._kind == "async":
            self._run(self.exchange.close)
        if self._client:
            self._run(self._client.close)
        self._runner.close()

    def _run(self, method: Any, *arguments: object) -> Any:
        if self._kind == "sync":
            return method(*arguments)

        async def call() -> Any:
            return await method(*arguments)

        return self._runner.run(call())


@pytest.fixture(params=CASES, ids=lambda case: case.name)
def case(request: pytest.FixtureRequest) -> Case:
    return request.param


@pytest.fixture
def ours(case: Case, mdp: Service, kind: str) -> Generator[Exchange]:
    made = Exchange(case, mdp, kind, is_answered=True)
    yield made
    made.close()


@pytest.fixture
def own(case: Case, mdp: Service) -> Generator[Exchange]:
    made = Exchange(case, mdp, "sync", is_answered=False)
    yield made
    made.close()


def random_call(random_: random.Random) -> tuple[str, int | None, int | None, dict[str, int]]:
    """Choose a time frame and bounds; no edge of a minute between two equal calls."""
    frame = random_.choice([*STEPS])
    step, now = STEPS[frame], int(time.time() * 1000)
    since = random_.choice([None, now - random_.randrange(2000 * step)])
    limit = random_.choice([None, 1, 2, random_.randrange(1, 400)])
    until = since and since + random_.randrange(-2 * step, 300 * step)
    return frame, since, limit, {"until": until} if until and random_.random() < 0.4 else {}


def is_same(theirs: list[Row], given: list[Row], case: Case, since: int | None) -> bool:
    """Compare rows; of the last one, which may form, only time and open stand still.

    At Coinbase ccxt's limit spans slots, and has a cap: there may be more of ours.
    """
    if case.name == "coinbaseexchange":
        given = given[-len(theirs) :] if since is None else given[: len(theirs)]
    if case.name == "hyperliquid" and len(theirs) == 5000:
        theirs, given = theirs[10:], given[-4990:]  # the exchange's memory ends meanwhile
    return theirs[:-1] == given[:-1] and [it[:2] for it in theirs[-1:]] == [
        it[:2] for it in given[-1:]
    ]


def refusal(exchange: Exchange, arguments: tuple[object, ...]) -> ccxt.ExchangeError | None:
    """Return the error of a call that is refused, as a reversed window is."""
    try:
        exchange.fetch(*arguments)
    except ccxt.ExchangeError as error:
        return error
    return None


def test_random_calls_equal_ccxts_own(case: Case, ours: Exchange, own: Exchange) -> None:
    """Since, limit, until and the newest: the same rows in order, forming included."""
    own.exchange.load_markets()
    random_ = random.Random(case.name)  # noqa: S311 - no secret
    for _ in range(CALLS):
        frame, since, limit, params = random_call(random_)
        arguments = (case.symbol, frame, since, limit, params)
        if (refused := refusal(own, arguments)) or refusal(ours, arguments):
            assert refused, (arguments, "only the exchange answers")
            with pytest.raises(ccxt.ExchangeError):
                ours.fetch(*arguments)
            continue
        rows = own.fetch(*arguments), ours.fetch(*arguments)
        for _ in range(TRIES):
            if is_same(*rows, case, since):
                break
            time.sleep(0.1)  # a minute has turned, and the newest rows are shared for two seconds
            rows = own.fetch(*arguments), ours.fetch(*arguments)
        assert is_same(*rows, case, since), (arguments, [some[-2:] for some in rows])


def test_forming_candle_is_the_last_row(case: Case, ours: Exchange) -> None:
    """A bot that drops it loses no closed candle."""
    for limit in (1, 3, None):
        before = time.time()
        rows = ours.fetch(case.symbol, "1h", None, limit)
        hours = {it // 3600 * 3_600_000 for it in (before, time.time())}
        assert rows[-1][0] in hours
        assert len(rows) == limit or (limit is None and len(rows) > 300)


def test_backtest_asks_the_service_and_not_the_exchange(
    case: Case, ours: Exchange, mdp: Service
) -> None:
    """A window that was fetched once costs the exchange nothing."""
    since = int(time.time()) // 3600 * 3_600_000 - 500 * 3_600_000
    ours.fetch(case.symbol, "1h", since, 400)
    log = f"{mdp.sandbox_url}/_sandbox/requests"
    before = len(candle_requests(log, case, since))
    for at in range(CALLS_OF_A_BACKTEST[case.name]):
        rows = ours.fetch(case.symbol, "1h", since + at % 300 * 3_600_000, 100)
        assert len(rows) == 100

    assert len(candle_requests(log, case, since)) == before


def candle_requests(log: str, case: Case, since: int) -> list[object]:
    """Return the requests for that symbol's hours; the syncer makes others."""
    asked = httpx.get(log, timeout=30).json()
    base = case.symbol.split("/")[0]
    return [
        request
        for request in asked
        if request["exchange"] == case.prefix
        and base in str(request)
        and any(it in str(request["params"]) for it in ("'1h'", "3600"))
        and reaches(request["params"], since)
    ]


def reaches(params: dict[str, Any], since: int) -> bool:
    """Tell whether a request reaches into the backtest's window, not only the edge.

    A search for the history start asks for what lies before.
    """
    given = params.get("req", params)
    start, end = (
        to_ms(given.get(name) or given.get(f"{name}Time") or 0) for name in ("start", "end")
    )
    return start < (time.time() - 4 * 86400) * 1000 and end > since


def to_ms(given: str | int) -> int:
    """Read a time of an exchange's parameter."""
    if isinstance(given, str) and "T" in given:
        return int(datetime.fromisoformat(given).timestamp() * 1000)
    return int(given)


def test_no_cap_and_paginate(mdp: Service, kind: str) -> None:
    """A limit above ccxt's cap is kept, and a window is given whole."""
    exchange = Exchange(CASES[0], mdp, kind, is_answered=True)
    since = 1_704_067_200_000
    try:
        rows = exchange.fetch("SOL/USDT:USDT", "1h", since, 2500)
        until = {"until": since + 1799 * 3_600_000}
        window = exchange.fetch("SOL/USDT:USDT", "1h", since, None, until)
        paged = exchange.fetch("SOL/USDT:USDT", "1h", since, 1200, {"paginate": True})
    finally:
        exchange.close()

    assert len(rows) == 2500
    assert window == rows[:1800]
    assert paged == rows[:1200]


def test_what_the_store_lacks_is_the_exchanges_own(mdp: Service, kind: str) -> None:
    """A mark price is asked of the exchange, as is a parameter that is not ours."""
    log = f"{mdp.sandbox_url}/_sandbox/requests"
    exchange = Exchange(CASES[0], mdp, kind, is_answered=True)
    try:
        exchange.fetch("SOL/USDT:USDT", "1h", None, 2, {"price": "mark"})
        asked = {entry["path"] for entry in httpx.get(log, timeout=30).json()}
        with pytest.raises(ccxt.BadSymbol):
            exchange.fetch("NO/SUCH:THING", "1h")
        own = exchange.fetch(
            "SOL/USDT:USDT", "1h", 1_704_067_200_000, 2, {"endTime": 1_704_070_800_000}
        )
    finally:
        exchange.close()
    assert [row[0] for row in own] == [1_704_067_200_000, 1_704_070_800_000]
    assert any(path.endswith("/markPriceKlines") for path in asked)


@pytest.mark.parametrize(
    ("status", "code", "kind"),
    [
        (404, "unknown_symbol", ccxt.BadSymbol),
        (404, "unsupported_interval", ccxt.NotSupported),
        (422, "invalid_window", ccxt.BadRequest),
        (401, "unauthorized", ccxt.AuthenticationError),
        (403, "forbidden", ccxt.PermissionDenied),
        (429, "quota_exceeded", ccxt.RateLimitExceeded),
        (503, "rate_limited", ccxt.RateLimitExceeded),
        (503, "upstream_unavailable", ccxt.ExchangeNotAvailable),
        (503, "overloaded", ccxt.ExchangeNotAvailable),
        (502, "upstream_bad_data", ccxt.ExchangeError),
    ],
)
def test_errors_are_ccxts(
    scripted: ScriptedServer, status: int, code: str, kind: type[Exception]
) -> None:
    """A bot's handlers go on working."""
    headers = {"Content-Type": "application/problem+json", "Retry-After": "301"}
    scripted.script(Reply(status, headers, f'{{"code": "{code}", "detail": "why"}}'.encode()))
    exchange = with_store(ccxt.binanceusdm(), Client(scripted.url))

    with pytest.raises(kind, match="why") as refused:
        exchange.fetch_ohlcv("BTC/USDT:USDT")
    assert type(refused.value) is kind


def test_service_that_is_away_is_a_network_error() -> None:
    """As for any other server."""
    exchange = with_store(ccxt.binanceusdm(), Client("http://127.0.0.1:1", patience=0))

    with pytest.raises(ccxt.NetworkError):
        exchange.fetch_ohlcv("BTC/USDT:USDT")


def test_exchange_and_client_must_fit() -> None:
    """Both mistakes are told when they are made."""
    with pytest.raises(ccxt.NotSupported, match="kraken"):
        with_store(ccxt.kraken(), Client("http://127.0.0.1:1"))
    with pytest.raises(TypeError, match="AsyncClient"):
        with_store(ccxt.async_support.binanceusdm(), Client("http://127.0.0.1:1"))
