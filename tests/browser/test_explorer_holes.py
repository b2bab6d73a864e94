"""Holes on the explorer page: told apart, fetched by a click, and cancelled."""

import re
from datetime import UTC, datetime
from typing import Any

import psycopg
import pytest
from playwright.sync_api import expect
from support.explorer_page import (
    DATA,
    DAY_MS,
    HOUR_MS,
    MAY,
    MINUTE_MS,
    Explorer,
    chromium,
    context,
    demo,
    explorer,
    joined,
)

__all__ = ["chromium", "context", "demo", "explorer"]  # fixtures

needs_data = pytest.mark.skipif(not DATA.is_dir(), reason=f"{DATA} is not there")
_WEEK = 7 * DAY_MS
# Real minutes of Coinbase in October 2016, when there were minutes without a trade.
_OCTOBER = 1_475_798_400_000


def _plan(explorer: Explorer, name: str, start: int, end: int) -> dict[str, Any]:
    exchange, market, symbol, interval = name.split()
    body = {"exchange": exchange, "market_type": market, "symbols": [symbol]}
    body |= {"intervals": [interval], "start": start, "end": end, "dry_run": True}
    return explorer.demo.post("/backfills", body).json()["estimate"]


def test_large_stretch_waits_for_a_click_and_is_then_fetched(explorer: Explorer) -> None:
    """Looking asks the exchange for nothing; estimate before, progress meanwhile."""
    name, end = "binance perp LTC-USDT 1m", MAY + _WEEK
    explorer.demo.sandbox("DELETE", "/_sandbox/requests")
    explorer.open_series(name, MAY, end)
    estimate = explorer.part("estimate")
    expect(estimate).to_have_attribute("data-pages", re.compile(r"\d+"))
    expect(explorer.part("fetch")).to_be_visible()
    assert explorer.windows() == [("not_fetched", MAY, end)]
    assert explorer.demo.candle_requests("LTCUSDT") == []
    plan = _plan(explorer, name, MAY, end)
    for part in (f"{plan['candles']:,} candles", f"{plan['pages']} pages", f"{plan['weight']:g}"):
        expect(estimate).to_contain_text(part)
    expect(estimate).to_contain_text(re.compile(r"about .*(s|second)\."))

    explorer.demo.sandbox("POST", "/_sandbox/settings", {"latency_ms": 300})
    try:
        explorer.part("fetch").click()
        expect(explorer.part("progress")).to_be_visible()
        explorer.until("() => document.querySelector('#progress-bar').value > 0")
    finally:
        explorer.demo.sandbox("POST", "/_sandbox/settings", {"latency_ms": 0})

    assert explorer.loaded() == (7 * 1440, MAY, end - MINUTE_MS)
    assert explorer.windows() == [("covered", MAY, end)]
    expect(explorer.part("progress")).to_be_hidden()
    expect(explorer.part("fetch")).to_be_hidden()
    assert len(explorer.demo.candle_requests("LTCUSDT")) == plan["pages"]
    assert explorer.complaints == []


def test_small_stretch_is_fetched_by_looking(explorer: Explorer) -> None:
    """Less than five pages need no click, also where the service has to count them."""
    explorer.open_series("binance perp LINK-USDT 1m", MAY, MAY + DAY_MS)

    assert explorer.loaded() == (1440, MAY, MAY + DAY_MS - MINUTE_MS)
    expect(explorer.part("fetch")).to_be_hidden()


def test_stretch_beside_what_is_stored_is_offered_alone(explorer: Explorer) -> None:
    """The stored part is drawn at once, and the estimate is of the rest."""
    name, middle, end = "binance perp BCH-USDT 1m", MAY + 2 * DAY_MS, MAY + _WEEK
    explorer.demo.get("/candles/binance/perp/BCH-USDT/1m", start=MAY, end=middle)
    explorer.open_series(name, MAY, end)
    expect(explorer.part("estimate")).to_have_attribute("data-candles", re.compile(r"\d+"))

    windows = explorer.demo.get("/coverage/binance/perp/BCH-USDT/1m", start=MAY, end=end).json()
    assert explorer.windows() == joined(windows["windows"])
    assert [state for state, _, _ in explorer.windows()] == ["covered", "not_fetched"]
    covered = explorer.windows()[0][2]
    assert explorer.loaded() == ((covered - MAY) // MINUTE_MS, MAY, covered - MINUTE_MS)
    candles = int(explorer.part("estimate").get_attribute("data-candles") or 0)
    assert candles == (end - covered) // MINUTE_MS


@pytest.mark.parametrize("kind", ["request", "job"])
def test_fetch_is_cancelled_by_a_click(explorer: Explorer, kind: str) -> None:
    """Both a request of a few pages and a job; fetched candles are kept."""
    symbol, days = ("ADA-USDT", 7) if kind == "request" else ("XLM-USDT", 200)
    end = MAY + days * DAY_MS
    explorer.open_series(f"binance perp {symbol} 1m", MAY, end)
    expect(explorer.part("estimate")).to_have_attribute("data-pages", re.compile(r"\d+"))
    explorer.demo.sandbox("POST", "/_sandbox/settings", {"latency_ms": 1000})
    try:
        explorer.part("fetch").click()
        explorer.until("() => document.querySelector('#progress-bar').value > 0")
        explorer.part("cancel").click()
        expect(explorer.part("error")).to_contain_text("cancelled")
    finally:
        explorer.demo.sandbox("POST", "/_sandbox/settings", {"latency_ms": 0})

    expect(explorer.part("progress")).to_be_hidden()
    expect(explorer.part("fetch")).to_be_visible()
    states = [state for state, _, _ in explorer.windows()]
    assert {"covered", "not_fetched"} <= set(states)
    jobs = explorer.demo.get("/backfills").json()["backfills"]
    assert [job["state"] for job in jobs if job["symbol"] == symbol] == (
        ["cancelled"] if kind == "job" else []
    )


@needs_data
def test_minutes_without_a_trade_are_no_candles(explorer: Explorer) -> None:
    """Each hole of the real data, where it is, and in words."""
    end = _OCTOBER + 6 * HOUR_MS
    path = "/coinbase/spot/BTC-USD/1m"
    rows = explorer.demo.get(f"/candles{path}", start=_OCTOBER, end=end).json()["count"]
    detail = explorer.demo.get(f"/coverage{path}", start=_OCTOBER, end=end, detail=True).json()
    explorer.open_series("coinbase spot BTC-USD 1m", _OCTOBER, end)

    assert explorer.loaded()[0] == rows
    assert explorer.windows() == joined(detail["windows"])
    assert "no_candles" in {state for state, _, _ in explorer.windows()}
    expect(explorer.part("holes")).to_contain_text("no candles: the exchange was asked")


def test_time_before_history_is_told(explorer: Explorer) -> None:
    """A stretch that begins before the exchange's first candle."""
    path = "/coverage/binance/perp/ETH-USDT/1d"
    begins = explorer.demo.get(path).json()["windows"][0]["start"]
    start, end = begins - 20 * DAY_MS, begins + 20 * DAY_MS
    explorer.open_series("binance perp ETH-USDT 1d", start, end)

    _, first, _ = explorer.loaded()
    assert first >= begins
    assert explorer.windows()[0] == ("before_history", start, begins)
    expect(explorer.part("holes")).to_contain_text("before history")


def test_time_beyond_retention_is_told(explorer: Explorer) -> None:
    """Hyperliquid gives 5,000 candles; for older ones nothing is offered."""
    explorer.open_series("hyperliquid perp ETH-USDC 1m", MAY, MAY + DAY_MS)

    expect(explorer.part("holes")).to_contain_text("beyond retention")
    assert explorer.windows() == [("beyond_memory", MAY, MAY + DAY_MS)]
    expect(explorer.page.locator("#chart-note")).to_contain_text("Beyond retention")
    expect(explorer.part("fetch")).to_be_hidden()


def test_rejected_slot_is_told_with_the_service_s_words(explorer: Explorer) -> None:
    """The good candles around it are drawn, the bad one is a hole with a reason."""
    explorer.demo.get("/coverage/binance/perp/TRX-USDT/1m")  # asks where history begins
    fault = {"exchange": "binance", "fault": "ohlc_violation", "times": 1, "symbol": "TRXUSDT"}
    explorer.demo.sandbox("POST", "/_sandbox/faults", [fault])
    explorer.open_series("binance perp TRX-USDT 1m", MAY, MAY + 5 * HOUR_MS)

    expect(explorer.part("error")).to_contain_text("can't be right")
    states = [state for state, _, _ in explorer.windows()]
    assert states.count("rejected") >= 1
    assert states.count("covered") >= 1
    expect(explorer.part("holes")).to_contain_text("rejected")
    rows, _, _ = explorer.loaded()
    assert 0 < rows < 300


def test_slot_in_doubt_is_told_apart_from_one_without_candles(explorer: Explorer) -> None:
    """Unconfirmed slots are shown wherever the service answers with them."""
    start, end = MAY, MAY + 10 * HOUR_MS
    path = "/coverage/binance/perp/ETH-USDT/1h"
    explorer.demo.get(path.replace("coverage", "candles"), start=start, end=end)
    middle = start + 4 * HOUR_MS
    windows = [
        {"start": start, "end": middle, "state": "candles"},
        {"start": middle, "end": middle + HOUR_MS, "state": "unconfirmed"},
        {"start": middle + HOUR_MS, "end": end, "state": "candles"},
    ]
    explorer.page.route(
        re.compile(r"/coverage/.*detail=true"),
        lambda route: route.fulfill(json={"windows": windows, "next": None}),
    )
    explorer.open_series("binance perp ETH-USDT 1h", start, end)

    explorer.loaded()
    assert ("unconfirmed", middle, middle + HOUR_MS) in explorer.windows()
    expect(explorer.part("holes")).to_contain_text("will be asked again")


def test_exchange_that_is_away_is_told_in_words(explorer: Explorer) -> None:
    """Stored candles are drawn, and the rest comes when the exchange is back."""
    path = "/candles/binance/perp/DOT-USDT/1m"
    explorer.demo.get(path, start=MAY, end=MAY + 4 * HOUR_MS)
    fault = {"exchange": "binance", "fault": "server_error", "times": 1000, "symbol": "DOTUSDT"}
    explorer.demo.sandbox("POST", "/_sandbox/faults", [fault])
    try:
        explorer.open_series("binance perp DOT-USDT 1m", MAY, MAY + 16 * HOUR_MS)
        expect(explorer.part("error")).to_contain_text("Exchange away", timeout=90_000)
        expect(explorer.part("error")).to_contain_text("binance")
        assert explorer.loaded()[1] == MAY
        assert [state for state, _, _ in explorer.windows()] == ["covered", "not_fetched"]
    finally:
        explorer.demo.sandbox("DELETE", "/_sandbox/faults")

    explorer.page.wait_for_function(
        "(rows) => Number(document.querySelector('#chart').dataset.rows) === rows",
        arg=16 * 60,
        timeout=90_000,
    )
    expect(explorer.part("error")).to_be_hidden()


def test_overview_shows_series_jobs_and_runs(explorer: Explorer) -> None:
    """The inventory, a job under way that a click cancels, and the last runs."""
    explorer.demo.get("/candles/coinbase/spot/ETH-USD/1h", start=MAY, end=MAY + DAY_MS)
    job = explorer.demo.get(
        "/candles/binance/perp/ATOM-USDT/1m", start="2020-06-01", end="2023-06-01"
    )
    assert job.status_code == 202, job.text
    explorer.open("/?view=store")
    store = explorer.part("store")
    listed = explorer.demo.get("/coverage").json()["series"]
    hours = next(entry for entry in listed if entry["symbol"] == "ETH-USD")

    row = store.get_by_role("row").filter(has_text="coinbase spot").filter(has_text="ETH-USD")
    expect(row.first).to_contain_text(f"{hours['covered_slots']:,}")
    expect(row.first).to_contain_text(_text(hours["end"]))
    cancel = explorer.part(f"cancel-{job.json()['job']}")
    cancel.click()
    expect(cancel).to_be_hidden()
    state = explorer.demo.get(job.json()["status_url"]).json()["state"]
    assert state == "cancelled"
    expect(store).to_contain_text("refresh binance perp")
    expect(store).to_contain_text("not blocked")
    explorer.page.get_by_role("link", name="ETH-USD", exact=True).first.click()
    explorer.until("() => location.search.includes('symbol=ETH-USD')")
    assert explorer.complaints == []


def test_overview_tells_of_an_exchange_that_is_blocked(explorer: Explorer) -> None:
    """Until when, and why, as the budget has it."""
    until = datetime.now(UTC).timestamp() + 3600
    with psycopg.connect(explorer.demo.env["DATABASE_URL"]) as connection:
        connection.execute(
            "INSERT INTO rate_budgets (exchange, egress, tokens, refilled_at, blocked_until,"
            " blocked_why) VALUES ('coinbase', 'elsewhere', 0, now(), to_timestamp(%s), 'banned')",
            [until],
        )
    explorer.open("/?view=store")

    row = explorer.part("store").get_by_role("row").filter(has_text="blocked until")
    expect(row).to_contain_text("banned")
    expect(row).to_contain_text("coinbase")


def _text(ms: int) -> str:
    return f"{datetime.fromtimestamp(ms / 1000, UTC):%Y-%m-%d %H:%M}"
