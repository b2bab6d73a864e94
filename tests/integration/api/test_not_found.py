"""Words of a path that name nothing, and wires that break."""

import httpx
import pytest
import stamina
from support.sandbox import Sandbox
from support.services import opened_services

from mdp_core.errors import ExchangeUnavailable
from mdp_core.exchanges.http import ExchangeHttp
from mdp_core.ratelimit.budget import Budget
from mdp_core.ratelimit.scheduler import RequestScheduler
from mdp_core.ratelimit.tariff import Tariff
from mdp_core.settings import Settings
from mdp_core.wiring import Services

_UNKNOWN = [
    ("kraken/perp/BTC-USDT/1m", "unknown_exchange", "known", "binance"),
    ("binance/future/BTC-USDT/1m", "unknown_market_type", "known", "perp"),
    ("binance/perp/BTC-USTD/1m", "unknown_symbol", "near", "BTC-USDT"),
    ("binance/perp/1000PEPEUSD/1m", "unknown_symbol", "near", "1000PEPE-USDT"),
    ("binance/perp/BTC-USDT/2m", "unsupported_interval", "supported", "1m"),
    ("binance/perp/BTC-USDT/1H", "unsupported_interval", "supported", "1h"),
    ("binance/perp/BTC/1m", "unknown_symbol", "near", None),
    ("binance/perp/%00/1m", "unknown_symbol", "near", None),
    ("binance/perp/BTC-USDT%27;--/1m", "unknown_symbol", "near", None),
]


async def test_word_that_names_nothing_is_404_with_what_there_is(
    client: httpx.AsyncClient, sandbox: Sandbox, subtests: pytest.Subtests
) -> None:
    """A code for each of the four words, and the names that could have been meant."""
    for path, code, key, meant in _UNKNOWN:
        with subtests.test(path):
            answer = await client.get(f"/candles/{path}", params={"limit": 1})
            problem = answer.json()

            assert (answer.status_code, problem["code"]) == (404, code)
            assert answer.headers["Content-Type"] == "application/problem+json"
            assert meant is None or meant in problem[key]
            assert meant is None or meant in problem["detail"]
    assert sandbox.candle_requests() == []


async def test_unknown_symbols_cost_one_refresh_of_the_list(
    client: httpx.AsyncClient, sandbox: Sandbox
) -> None:
    """Guessed names make the exchange list its symbols once a minute at most."""
    for n in range(5):
        answer = await client.get(f"/candles/binance/perp/NOPE{n}-USDT/1m")
        assert answer.json()["code"] == "unknown_symbol"

    assert [entry["path"] for entry in sandbox.requests()] == ["/fapi/v1/exchangeInfo"]


async def test_delisted_symbol_is_known_and_has_its_candles(
    client: httpx.AsyncClient, sandbox: Sandbox
) -> None:
    """A delisted symbol is fetched like any other, and ends where it ended."""
    body = (await client.get("/candles/binance/perp/OMG-USDT/1d", params={"limit": 3})).json()

    assert body["count"] == 3
    assert body["candles"] == sandbox.candles("OMGUSDT", "1d", body["start"], body["end"])


def _transport_errors(kind: type[httpx.RequestError]) -> list[type[httpx.RequestError]]:
    return [
        kind,
        *(deep for subclass in kind.__subclasses__() for deep in _transport_errors(subclass)),
    ]


async def test_every_transport_error_becomes_one_of_ours(
    services: Services, subtests: pytest.Subtests
) -> None:
    """However a connection breaks, the answer names the exchange and the cause."""
    for kind in [*_transport_errors(httpx.TransportError), httpx.DecodingError]:
        with subtests.test(kind.__name__):
            with stamina.set_testing(True), pytest.raises(ExchangeUnavailable) as caught:
                await _ask_over_a_wire_that_breaks(services, kind)
            assert isinstance(caught.value.__cause__, kind)


async def _ask_over_a_wire_that_breaks(services: Services, kind: type[httpx.RequestError]) -> None:
    def break_(request: httpx.Request) -> httpx.Response:
        message = "broken"
        raise kind(message, request=request)

    budget = Budget(services.database, "broken", "default", Tariff(1000, 10), share=1.0)
    transport = httpx.MockTransport(break_)
    async with httpx.AsyncClient(transport=transport, base_url="http://broken") as wire:
        scheduler = RequestScheduler("broken", budget, slots=1)
        http = ExchangeHttp("broken", wire, scheduler, deadline_seconds=5)
        await http.get_json("/candles", {}, lambda payload: payload, weight=1)


@pytest.mark.parametrize("symbol", ["PURR%2FUSDC", "PURR/USDC", "%2F", "BTC-USDT%2F"])
async def test_slash_is_part_of_the_symbol(client: httpx.AsyncClient, symbol: str) -> None:
    """Exchanges have such names: it is the symbol that isn't known, not the path."""
    for route in ("candles", "latest", "coverage"):
        answer = await client.get(f"/{route}/hyperliquid/perp/{symbol}/1h")

        assert (answer.status_code, answer.json()["code"]) == (404, "unknown_symbol")


async def test_names_are_near_by_their_base_too(client: httpx.AsyncClient) -> None:
    """A misspelt base gets near names; text like none, or too long, gets none."""
    for wrong, right in [
        ("BITCOIN", "BTC-USDT"),
        ("ETHER-USDT", "ETH-USDT"),
        ("SOLUSD", "SOL-USDT"),
    ]:
        problem = (await client.get(f"/candles/binance/perp/{wrong}/1h")).json()
        assert right in problem["near"]
        assert 1 <= len(problem["near"]) <= 5
    for nothing in ("@", "B" * 5000):
        problem = (await client.get(f"/candles/binance/perp/{nothing}/1h")).json()
        assert (problem["code"], problem["near"]) == ("unknown_symbol", [])


async def test_series_in_memory_are_bounded(
    settings: Settings, sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A series has a name for each way to write its letters large or small."""
    monkeypatch.setattr("mdp_core.series.resolver._MOST_KNOWN", 3)
    spellings = ["BTC-USDT", "btc-usdt", "Btc-Usdt", "bTC-USDT", "BTCUSDT"]
    async with opened_services(settings, sandbox) as services:
        resolve = services.resolver.series
        found = [await resolve("binance", "perp", spelling, "1h") for spelling in spellings]

    assert len({series.id for series in found}) == 1
    assert len(services.resolver._known) <= 3  # noqa: SLF001 - there is no other way to see them
