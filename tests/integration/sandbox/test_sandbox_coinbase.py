"""The sandbox's Coinbase, asked over HTTP, against what is known of the real host."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta

import httpx
import pytest

from mdp_core.domain.clock import Clock
from scripts.sandbox.app import SandboxOptions, create_sandbox

HARDLY_MOVING = 1e-9
NOW = datetime(2026, 10, 7, 12, 0, 30, tzinfo=UTC)
SEPTEMBER = datetime(2026, 9, 1, tzinfo=UTC)

Row = list[float]


async def open_client(now: datetime) -> httpx.AsyncClient:
    app = create_sandbox(SandboxOptions(clock=Clock.starting_at(now, HARDLY_MOVING), limits=False))
    return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://sandbox")


@pytest.fixture
async def client() -> AsyncIterator[httpx.AsyncClient]:
    """A client of a sandbox whose clock hardly moves."""
    async with await open_client(NOW) as client:
        yield client


async def candles(
    client: httpx.AsyncClient, product: str, granularity: int, *bounds: datetime
) -> httpx.Response:
    named = zip(("start", "end"), (bound.isoformat() for bound in bounds), strict=False)
    params = {"granularity": str(granularity), **dict(named)}
    return await client.get(f"/coinbase/products/{product}/candles", params=params)


async def rows(
    client: httpx.AsyncClient, product: str, granularity: int, *bounds: datetime
) -> list[Row]:
    response = await candles(client, product, granularity, *bounds)
    assert response.status_code == 200, response.text
    return response.json()


async def test_row_is_time_low_high_open_close_volume_in_numbers(
    client: httpx.AsyncClient,
) -> None:
    """Six JSON numbers, seconds first and as an integer, low before high before open."""
    answer = await rows(client, "BTC-USD", 3600, SEPTEMBER, SEPTEMBER + timedelta(days=10))

    assert all(len(row) == 6 and type(row[0]) is int for row in answer)
    for _, low, high, opened, closed, volume in answer:
        assert low <= min(opened, closed) <= max(opened, closed) <= high
        assert volume > 0


async def test_whole_numbers_are_printed_without_a_point(client: httpx.AsyncClient) -> None:
    """A round price is an integer on the wire, as the exchange prints it."""
    response = await candles(client, "BTC-USD", 60, SEPTEMBER, SEPTEMBER + timedelta(hours=5))

    assert ".0," not in response.text
    assert ".0]" not in response.text


async def test_both_bounds_are_inclusive_and_the_newest_comes_first(
    client: httpx.AsyncClient,
) -> None:
    """Hours 00 to 05 are six rows, in descending order."""
    answer = await rows(client, "BTC-USD", 3600, SEPTEMBER, SEPTEMBER + timedelta(hours=5))

    first = int(SEPTEMBER.timestamp())
    assert [row[0] for row in answer] == [first + hour * 3600 for hour in (5, 4, 3, 2, 1, 0)]


async def test_more_than_300_intervals_are_refused(client: httpx.AsyncClient) -> None:
    """A span of 300 intervals gives 301 rows, one second more an error."""
    span = timedelta(hours=300)

    assert len(await rows(client, "BTC-USD", 3600, SEPTEMBER - span, SEPTEMBER)) == 301
    refused = await candles(
        client, "BTC-USD", 3600, SEPTEMBER - span, SEPTEMBER + timedelta(seconds=1)
    )
    assert refused.status_code == 400
    assert refused.json() == {
        "message": "granularity too small for the requested time range. "
        "Count of aggregations requested exceeds 300"
    }


async def test_without_both_bounds_the_350_newest_rows_come_back(
    client: httpx.AsyncClient,
) -> None:
    """A single bound counts for nothing."""
    newest = await rows(client, "ETH-USD", 60)

    assert len(newest) == 350
    assert newest[0][0] == int(NOW.timestamp()) - 30
    assert await rows(client, "ETH-USD", 60, SEPTEMBER) == newest


@pytest.mark.parametrize("granularity", [60, 300, 900, 3600, 21600, 86400])
async def test_six_granularities_lie_on_the_epoch_s_multiples(
    client: httpx.AsyncClient, granularity: int
) -> None:
    """Every row opens on a multiple of its granularity."""
    answer = await rows(client, "ETH-USD", granularity)

    assert all(row[0] % granularity == 0 for row in answer)


@pytest.mark.parametrize("granularity", [0, 1, 120, 1800, 604800])
async def test_other_granularities_are_refused(client: httpx.AsyncClient, granularity: int) -> None:
    """Only the six exist."""
    response = await candles(client, "ETH-USD", granularity)

    assert (response.status_code, response.json()) == (400, {"message": "Unsupported granularity"})


async def test_minutes_without_trades_have_no_row(client: httpx.AsyncClient) -> None:
    """A fifth of AERO's minutes is absent, nearly all of WAXL's, hardly any of BTC's."""
    end = SEPTEMBER + timedelta(minutes=299)
    counts = {
        product: len(await rows(client, product, 60, SEPTEMBER, end))
        for product in ("BTC-USD", "AERO-USD", "WAXL-USD")
    }

    assert counts["BTC-USD"] >= 295
    assert 210 <= counts["AERO-USD"] <= 270
    assert counts["WAXL-USD"] <= 10


async def test_just_closed_row_may_still_be_missing(client: httpx.AsyncClient) -> None:
    """DASH's rows appear 45 seconds after their close; then they never change."""
    start = NOW - timedelta(minutes=10)
    early = await rows(client, "DASH-USD", 60, start, NOW)
    async with await open_client(NOW + timedelta(minutes=2)) as later:
        full = await rows(later, "DASH-USD", 60, start, NOW)

    closed = int(NOW.timestamp()) - 30
    assert all(row[0] + 60 <= closed for row in early)
    assert closed - 60 not in [row[0] for row in early]
    assert early == full[-len(early) :]
    assert len(full) > len(early)


async def test_history_begins_at_a_different_time_for_each_granularity(
    client: httpx.AsyncClient,
) -> None:
    """BTC-USD has one-minute rows half a year before its first daily one."""
    first_minute = datetime(2015, 1, 20, 18, 13, tzinfo=UTC)
    first_day = datetime(2015, 7, 20, tzinfo=UTC)

    minutes = await rows(
        client, "BTC-USD", 60, first_minute - timedelta(hours=2), first_minute + timedelta(hours=2)
    )
    days = await rows(client, "BTC-USD", 86400, first_minute, first_minute + timedelta(days=250))
    assert minutes[-1][0] == int(first_minute.timestamp())
    assert days[-1][0] == int(first_day.timestamp())


async def test_empty_window_is_an_empty_array(client: httpx.AsyncClient) -> None:
    """Before listing and in the future there is nothing, without an error."""
    past = datetime(2010, 1, 1, tzinfo=UTC)

    assert await rows(client, "ETH-USD", 60, past, past + timedelta(hours=1)) == []
    future = NOW + timedelta(days=1)
    assert await rows(client, "ETH-USD", 60, future, future + timedelta(hours=1)) == []


@pytest.mark.parametrize(
    "path", ["products/NOPE-USD", "products/NOPE-USD/candles?granularity=60", "nope"]
)
async def test_unknown_things_are_not_found(client: httpx.AsyncClient, path: str) -> None:
    """Unknown products and paths get the same body."""
    response = await client.get(f"/coinbase/{path}")

    assert (response.status_code, response.json()) == (404, {"message": "NotFound"})


async def test_bad_times_are_refused(client: httpx.AsyncClient) -> None:
    """A malformed time, and a start after its end, get 400 and a message."""
    for start, end in (("yesterday", "now"), ("2026-09-02T00:00:00Z", "2026-09-01T00:00:00Z")):
        response = await client.get(
            "/coinbase/products/ETH-USD/candles",
            params={"granularity": "60", "start": start, "end": end},
        )
        assert response.status_code == 400
        assert response.json()["message"]


async def test_client_has_to_name_itself(client: httpx.AsyncClient) -> None:
    """A request without User-Agent is rejected."""
    response = await client.get("/coinbase/products", headers={"User-Agent": ""})

    assert response.status_code == 400


async def test_products_show_what_is_tradable(client: httpx.AsyncClient) -> None:
    """Delisted products stay listed; restrictions and unknown words are in the fields."""
    products = {p["id"]: p for p in (await client.get("/coinbase/products")).json()}

    assert products["BTC-USD"]["status"] == "online"
    for name in ("MOVE-USD", "BAL-BTC", "BTC-USDC"):
        assert (products[name]["status"], products[name]["trading_disabled"]) == ("delisted", True)
    assert products["BADGER-USD"]["limit_only"]
    assert products["BTCAUCTION-USD"]["base_currency"] == "BTC"
    assert products["NOVEL-USD"]["status"] not in {"online", "offline", "internal", "delisted"}
    one = (await client.get("/coinbase/products/BTC-USD")).json()
    assert one == products["BTC-USD"]


async def test_currencies_cover_all_products(client: httpx.AsyncClient) -> None:
    """Each base and quote is a currency, so that clients that map them find it."""
    codes = {c["id"] for c in (await client.get("/coinbase/currencies")).json()}
    products = (await client.get("/coinbase/products")).json()

    assert {code for product in products for code in product["id"].split("-")} == codes


async def test_time_is_the_clock_s(client: httpx.AsyncClient) -> None:
    """The exchange's time comes as text and in seconds."""
    answer = (await client.get("/coinbase/time")).json()

    assert answer == {"iso": "2026-10-07T12:00:30.000Z", "epoch": NOW.timestamp()}


async def test_burst_is_fifteen_requests(client: httpx.AsyncClient) -> None:
    """The sixteenth request at once is refused, with a message, without limit headers."""
    await client.post("/_sandbox/settings", json={"limits": "on"})
    answers = [await client.get("/coinbase/time")]
    while answers[-1].status_code == 200 and len(answers) < 200:
        answers.append(await client.get("/coinbase/time"))

    assert len(answers) > 15
    refused = answers[-1]
    assert (refused.status_code, refused.json()) == (
        429,
        {"message": "Public rate limit exceeded"},
    )
    assert "retry-after" not in refused.headers
