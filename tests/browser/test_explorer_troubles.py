"""Troubles on the explorer page: each says what to do, and breaks nothing."""

import re
from datetime import UTC, datetime, timedelta

import jwt
import pytest
from playwright.sync_api import expect
from support.explorer_page import (
    DAY_MS,
    HOUR_MS,
    MAY,
    MINUTE_MS,
    Explorer,
    chromium,
    context,
    demo,
    explorer,
    permalink,
)

__all__ = ["chromium", "context", "demo", "explorer"]  # fixtures

_ETH = "binance perp ETH-USDT 1h"


def _expired(explorer: Explorer) -> str:
    claims = {"sub": "late", "aud": "mdp", "scope": "candles:read meta:read"}
    claims |= {"exp": datetime.now(UTC) - timedelta(hours=1)}  # pyright: ignore[reportAssignmentType]
    return jwt.encode(claims, explorer.demo.env["JWT_SECRET"], algorithm="HS256")


@pytest.mark.parametrize("kind", ["nonsense", "expired"])
def test_refused_token_is_asked_for_again_with_the_reason(explorer: Explorer, kind: str) -> None:
    """The service's own words, and a good one goes on where the address says."""
    token = "nonsense" if kind == "nonsense" else _expired(explorer)
    explorer.open(permalink(_ETH, MAY, MAY + DAY_MS), token=token)

    expect(explorer.part("token")).to_be_visible()
    expect(explorer.page.locator("#token-reason")).to_contain_text(
        "not valid" if kind == "nonsense" else "expired"
    )
    assert explorer.page.evaluate("sessionStorage.length") == 0
    explorer.part("token").fill(f"Bearer {explorer.demo.token}")
    explorer.page.get_by_role("button", name="Use it").click()
    assert explorer.loaded() == (24, MAY, MAY + 23 * HOUR_MS)


def test_reader_sees_an_estimate_fetches_and_is_told_what_it_may_not(explorer: Explorer) -> None:
    """A token that may only read fetches by asking for candles."""
    token = explorer.demo.mint("candles:read", "meta:read")
    end = MAY + 4 * DAY_MS
    explorer.open(permalink("binance perp ETC-USDT 1m", MAY, end), token=token)
    expect(explorer.part("estimate")).to_have_attribute("data-pages", re.compile(r"\d+"))
    explorer.part("fetch").click()

    assert explorer.loaded() == (4 * 1440, MAY, end - MINUTE_MS)
    assert explorer.complaints == []
    explorer.page.get_by_role("link", name="Store", exact=True).click()
    expect(explorer.part("store")).to_contain_text("ETC-USDT")


def test_token_without_a_scope_is_told_which(explorer: Explorer) -> None:
    """The scope's name, in the error line."""
    token = explorer.demo.mint("candles:read")
    explorer.open(permalink(_ETH, MAY, MAY + DAY_MS), token=token)

    expect(explorer.part("error")).to_contain_text("meta:read")
    expect(explorer.part("error")).to_contain_text("does not allow")


def test_service_that_is_away_is_told_and_asked_again(explorer: Explorer) -> None:
    """The picture stays, and the page goes on when the service is back."""
    explorer.open_series(_ETH, MAY, MAY + 4 * DAY_MS).loaded()
    explorer.page.context.set_offline(True)
    explorer.drag(600)
    expect(explorer.part("error")).to_contain_text("Service away")
    assert int(explorer.chart.get_attribute("data-rows") or 0) == 96

    explorer.page.context.set_offline(False)
    explorer.until("(first) => Number(document.querySelector('#chart').dataset.first) < first", MAY)
    expect(explorer.part("error")).to_be_hidden()


def test_unknown_symbol_offers_near_names(explorer: Explorer) -> None:
    """A click on one of them shows it."""
    explorer.open_series("binance perp ETH-USTD 1h", MAY, MAY + DAY_MS)
    expect(explorer.part("error")).to_contain_text("unknown symbol 'ETH-USTD'")
    explorer.part("error").get_by_role("button", name="ETH-USDT").click()

    explorer.loaded()
    assert explorer.query()["symbol"] == "ETH-USDT"
    expect(explorer.part("error")).to_be_hidden()


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("/?exchange=kraken&market_type=perp&symbol=BTC-USDT&interval=1h", "no exchange kraken"),
        ("/?exchange=binance&market_type=spot&symbol=BTC-USDT&interval=1h", "no spot market"),
        ("/?exchange=binance&market_type=perp&symbol=ETH-USDT&interval=7m", "no 7m candles"),
        ("/?symbol=ETH-USDT&from=yesterday&to=1714521600000", "from=yesterday is no time"),
        ("/?symbol=ETH-USDT&from=2714521600000&to=1714521600000", "is not before"),
        ("/?symbol=ETH-USDT&interval=1m&from=0&to=1795000000000", "more than a chart can show"),
        ("/?symbol=%00&exchange=%3Cscript%3E&interval=%F0%9F%98%80", "no exchange <script>"),
    ],
)
def test_address_of_nonsense_is_told_in_words(explorer: Explorer, path: str, words: str) -> None:
    """And the search is there to go on with."""
    explorer.open(path)

    expect(explorer.part("error")).to_contain_text(words)
    search = explorer.part("symbol-search")
    search.fill("SOL-USDT")
    search.press("Enter")
    explorer.until("() => location.search.includes('SOL-USDT')")
    explorer.loaded()
    expect(explorer.part("error")).to_be_hidden()


@pytest.mark.parametrize(("start", "end"), [(MAY, MAY), (-1, 5), (1e99, 2e99), ("", "")])
def test_window_without_a_slot_breaks_nothing(
    explorer: Explorer, start: object, end: object
) -> None:
    """Odd bounds show the newest candles, or the one slot there."""
    explorer.open(f"{permalink(_ETH)}&from={start}&to={end}")

    explorer.loaded()
    assert [text for text in explorer.complaints if "Failed to load" not in text] == []


def test_window_in_the_future_is_empty_in_words(explorer: Explorer) -> None:
    """Nothing is closed there yet."""
    explorer.open_series(_ETH, 4_000_000_000_000 // HOUR_MS * HOUR_MS, 4_000_100_000_000)

    expect(explorer.page.locator("#chart-note")).to_contain_text("later than the newest")
    expect(explorer.part("chart")).to_have_attribute("data-rows", "0")
    assert explorer.complaints == []
