"""Looks and weight of the explorer page: light and dark, wide and narrow."""

import re
from collections.abc import Generator
from urllib.parse import urlsplit

import httpx
import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, expect
from support.explorer_page import (
    DATA,
    DAY_MS,
    HOUR_MS,
    MAY,
    Demo,
    Explorer,
    chromium,
    context,
    demo,
    explorer,
    new_context,
    permalink,
    take_picture,
)

__all__ = ["chromium", "context", "demo", "explorer"]  # fixtures

_LOOKS = [("light", 1280), ("dark", 1280), ("light", 390), ("dark", 390)]
_OCTOBER = 1_475_798_400_000
_MOST_BYTES = 120_000
_LARGEST_PICTURE = 150_000
_HTML = {"Accept": "text/html", "Accept-Encoding": "gzip"}


@pytest.fixture(params=_LOOKS, ids=lambda look: f"{look[0]}-{look[1]}")
def look(
    request: pytest.FixtureRequest, chromium: Browser, demo: Demo
) -> Generator[tuple[Explorer, str]]:
    """A tab in each colour scheme and width, and what they are called."""
    scheme, width = request.param
    with new_context(chromium, width, scheme) as opened:
        tab = Explorer(demo, opened.new_page())
        tab.watch()
        yield tab, f"{scheme}-{width}"
        assert tab.complaints == []
        hosts = {urlsplit(url).netloc for url in tab.requests if not url.startswith("blob:")}
        assert hosts <= {urlsplit(demo.url).netloc, ""}


def _check(explorer: Explorer) -> None:
    """Fail on any finding of axe that is serious."""
    found = Axe().run(explorer.page).response["violations"]
    serious = [
        (result["id"], result["help"], [node["html"][:200] for node in result["nodes"]])
        for result in found
        if result["impact"] in {"serious", "critical"}
    ]
    assert serious == []
    assert explorer.page.evaluate("document.documentElement.scrollWidth <= innerWidth")


def test_candles_with_holes(look: tuple[Explorer, str]) -> None:
    """Real candles where they are at hand, with the reasons for what is missing."""
    explorer, name = look
    if DATA.is_dir():
        path = permalink("coinbase spot BTC-USD 1m", _OCTOBER, _OCTOBER + 3 * HOUR_MS)
    else:
        path = permalink("binance perp ETH-USDT 1h", MAY, MAY + 5 * DAY_MS)
    explorer.open(path).loaded()
    take_picture(explorer.page, f"candles-{name}")
    _check(explorer)


def test_picture_for_the_readme(explorer: Explorer) -> None:
    """Half of it stored and half to be fetched: `docs/explorer.png` is a copy of it."""
    name, end = "coinbase spot ETH-USD 1h", MAY + 100 * DAY_MS
    explorer.demo.get("/candles/coinbase/spot/ETH-USD/1h", start=MAY, end=MAY + 35 * DAY_MS)
    explorer.open(permalink(name, MAY, end)).loaded()
    expect(explorer.part("estimate")).to_have_attribute("data-pages", re.compile(r"\d+"))
    picture = take_picture(explorer.page, "explorer")
    assert picture.stat().st_size < _LARGEST_PICTURE


def test_newest_candles(look: tuple[Explorer, str]) -> None:
    """The view that a newcomer sees first."""
    explorer, name = look
    explorer.open(permalink("binance perp ETH-USDT 1h")).loaded()
    expect(explorer.page.locator("#legend")).to_contain_text("forming")
    take_picture(explorer.page, f"newest-{name}")
    _check(explorer)


def test_stretch_that_is_not_fetched(look: tuple[Explorer, str]) -> None:
    """With its estimate, the search open, a menu open, and a text copied."""
    explorer, name = look
    explorer.open(permalink("binance perp UNI-USDT 1m", MAY, MAY + 31 * DAY_MS))
    expect(explorer.part("estimate")).to_have_attribute("data-pages", re.compile(r"\d+"))
    take_picture(explorer.page, f"not-fetched-{name}")
    _check(explorer)
    explorer.part("copy-as").click()
    _check(explorer)
    explorer.page.get_by_role("menuitem", name="pandas").click()
    explorer.part("symbol-search").fill("eth")
    expect(explorer.page.get_by_role("listbox").get_by_role("option").first).to_be_visible()
    take_picture(explorer.page, f"search-{name}")
    _check(explorer)


def test_overview(look: tuple[Explorer, str]) -> None:
    """Series, jobs, exchanges and runs."""
    explorer, name = look
    explorer.demo.get("/candles/coinbase/spot/ETH-USD/1h", start=MAY, end=MAY + DAY_MS)
    explorer.open("/?view=store")
    expect(explorer.part("store")).to_contain_text("What came of it")
    expect(explorer.part("store")).to_contain_text("ETH-USD")
    take_picture(explorer.page, f"store-{name}")
    _check(explorer)


def test_question_for_a_token(look: tuple[Explorer, str]) -> None:
    """All that a visitor without one sees."""
    explorer, name = look
    explorer.page.goto(explorer.demo.url)
    expect(explorer.part("token")).to_be_focused()
    take_picture(explorer.page, f"token-{name}")
    _check(explorer)


def test_colours_follow_the_system(explorer: Explorer) -> None:
    """Also while the page is open, the chart's own too."""
    explorer.open(permalink("binance perp ETH-USDT 1h", MAY, MAY + DAY_MS)).loaded()
    pixel = (
        "() => { const c = document.querySelector('#chart canvas');"
        " return c.getContext('2d').getImageData(3, 60, 1, 1).data[0]; }"
    )
    explorer.until(f"() => ({pixel})() > 200")
    explorer.page.emulate_media(color_scheme="dark")
    explorer.until(f"() => ({pixel})() < 60")


def test_page_and_assets_are_small_and_kept_for_ever(explorer: Explorer) -> None:
    """Everything loaded before the first question, compressed and immutable."""
    explorer.open(permalink("binance perp ETH-USDT 1h", MAY, MAY + DAY_MS)).loaded()
    assets = {url for url in explorer.requests if "/assets/" in url}
    assert len(assets) > 10
    total = 0
    for url in (f"{explorer.demo.url}/", *sorted(assets)):
        with (
            httpx.Client(trust_env=False, headers=_HTML) as client,
            client.stream("GET", url) as answer,
        ):
            assert answer.status_code == 200
            assert answer.headers["Content-Encoding"] == "gzip"
            assert answer.headers["X-Content-Type-Options"] == "nosniff"
            is_asset = "/assets/" in url
            assert ("immutable" in answer.headers["Cache-Control"]) is is_asset
            total += sum(len(chunk) for chunk in answer.iter_raw())
    assert total < _MOST_BYTES


def test_policy_allows_no_inline_script_and_no_eval(explorer: Explorer) -> None:
    """Neither in the header nor in fact, and no frame may hold the page."""
    policy = httpx.get(explorer.demo.url, headers=_HTML, trust_env=False).headers[
        "Content-Security-Policy"
    ]
    assert "script-src 'self';" in policy
    assert "unsafe" not in policy
    assert "frame-ancestors 'none'" in policy

    explorer.open(permalink("binance perp ETH-USDT 1h", MAY, MAY + DAY_MS)).loaded()
    explorer.page.evaluate(
        "() => { const s = document.createElement('script');"
        " s.textContent = 'window.isRun = true'; document.body.append(s); }"
    )
    assert explorer.page.evaluate("window.isRun") is None
    assert any("Content Security Policy" in text for text in explorer.complaints)


def test_root_points_programs_to_the_documentation(demo: Demo) -> None:
    """HTML is for those who accept it; an asset of another version is not there."""
    with httpx.Client(base_url=demo.url, trust_env=False) as client:
        assert client.get("/").json()["docs"] == "/docs"
        page = client.get("/", headers={"Accept": "text/html,*/*;q=0.8"})
        assert page.headers["Content-Type"].startswith("text/html")
        assert "VERSION" not in page.text
        assert client.head("/", headers={"Accept": "text/html"}).status_code == 200
        for path in ("/assets/0/main.js", "/assets/../app.py", "/assets/x/..%2f..%2fauth.py"):
            answer = client.get(path)
            assert answer.status_code in {401, 404}, path
        version = re.findall(r"/assets/(\w+)/main.js", page.text)[0]
        assert client.get(f"/assets/{version}/main.js").status_code == 200
        notice = client.get(f"/assets/{version}/third_party/NOTICE.txt").text
        assert "Apache License, Version 2.0" in notice
        assert "TradingView" in notice


def test_first_candles_are_painted_soon(explorer: Explorer) -> None:
    """From the click on the link to drawn candles, by the page's own clock."""
    path = permalink("binance perp ETH-USDT 1h", MAY, MAY + 5 * DAY_MS)
    explorer.open(path).loaded()
    explorer.open(path)
    explorer.page.wait_for_selector("#chart[data-first]")
    took = explorer.page.evaluate("performance.getEntriesByName('candles')[0].startTime")
    assert took > 0
    print(f"first candles after {took:.0f} ms")  # noqa: T201 - a figure, not a verdict
