"""The explorer page in a real browser: it shows the service's own answers."""

import json
import re
import shlex
import subprocess
import sys

import pytest
from playwright.sync_api import expect
from support.explorer_page import (
    DATA,
    DAY_MS,
    HOUR_MS,
    MAY,
    MINUTE_MS,
    REAL_END,
    REAL_START,
    Explorer,
    chromium,
    context,
    demo,
    explorer,
    joined,
    permalink,
)

__all__ = ["chromium", "context", "demo", "explorer"]  # fixtures

needs_data = pytest.mark.skipif(not DATA.is_dir(), reason=f"{DATA} is not there")
_HOUR_OF_ETH = "binance perp ETH-USDT 1h"
_ETH = "/candles/binance/perp/ETH-USDT/1h"


def test_demo_prints_a_link_that_shows_candles(explorer: Explorer) -> None:
    """One click on what is printed, once, and there are candles."""
    text = explorer.demo.output.read_text()
    greeting = text[text.index("Serving at ") : text.index("Ctrl-C stops it.")]
    (link,) = re.findall(r"http\S+/#token=\S+", greeting)
    assert re.findall(r"MDP_URL=(\S+)", text) == [explorer.demo.url]
    assert re.findall(r"MDP_TOKEN=(\S+)", text) == [explorer.demo.token]

    explorer.page.goto(link)
    explorer.part("symbol-search").fill("eth-usdt")
    explorer.part("symbol-search").press("Enter")

    rows, _, _ = explorer.loaded()
    assert rows > 100


def test_token_leaves_the_address_and_never_reaches_the_log(explorer: Explorer) -> None:
    """It is kept for the tab alone, and of all output only the greeting has it."""
    explorer.open_series(_HOUR_OF_ETH, MAY, MAY + DAY_MS).loaded()

    assert explorer.page.evaluate("location.hash") == ""
    assert explorer.page.evaluate("Object.values(sessionStorage)") == [explorer.demo.token]
    assert explorer.page.evaluate("[document.cookie, localStorage.length]") == ["", 0]
    after = explorer.demo.output.read_text().split("Ctrl-C stops it.")[1]
    assert "/candles/binance/perp/ETH-USDT/1h" in after
    assert explorer.demo.token not in after
    assert not [url for url in explorer.requests if explorer.demo.token in url.partition("#")[0]]


def test_page_asks_for_a_token_where_there_is_none(explorer: Explorer) -> None:
    """Until then nothing is asked of the service; then the address is shown."""
    explorer.page.goto(explorer.demo.url + permalink(_HOUR_OF_ETH, MAY, MAY + DAY_MS))
    expect(explorer.part("token")).to_be_visible()
    assert not [url for url in explorer.requests if "/candles" in url or "/meta" in url]

    explorer.part("token").fill(explorer.demo.token)
    explorer.part("token").press("Enter")

    assert explorer.loaded() == (24, MAY, MAY + 23 * HOUR_MS)
    expect(explorer.part("token")).to_be_hidden()


def test_permalink_shows_its_very_window(explorer: Explorer) -> None:
    """The service's candles for it, its coverage, and the address as given."""
    end = MAY + 5 * DAY_MS
    explorer.open_series(_HOUR_OF_ETH, MAY, end)
    body = explorer.demo.get(_ETH, start=MAY, end=end).json()
    times = [row[0] for row in body["candles"]]

    assert explorer.loaded() == (len(times), times[0], times[-1])
    windows = explorer.demo.get(_ETH.replace("candles", "coverage"), start=MAY, end=end).json()
    assert explorer.windows() == joined(windows["windows"])
    assert explorer.query()["from"] == str(MAY)
    assert explorer.query()["to"] == str(end)
    settled = explorer.part("settled-until")
    expect(settled).to_have_attribute("data-time", str(body["settled_until"]))
    expect(settled).to_contain_text("2024-05-06 00:00 UTC")


@pytest.mark.parametrize(
    ("typed", "exchange", "symbol"),
    [
        ("ETHUSDT", "binance", "ETH-USDT"),
        ("sol-usdt", "binance", "SOL-USDT"),
        ("btc", "binance", "BTC-USDT"),
        ("BTC-USD", "coinbase", "BTC-USD"),
        ("coinbase btc", "coinbase", "BTC-USD"),
        ("hyperliquid eth", "hyperliquid", "ETH-USDC"),
        ("ETH-UDST", "binance", "ETH-USDT"),
    ],
)
def test_enter_takes_the_best_symbol_of_all_exchanges(
    explorer: Explorer, typed: str, exchange: str, symbol: str
) -> None:
    """By either name, in any case, by words, and for a slip of the finger a near name."""
    explorer.open_series("binance perp DOGE-USDT 1h", MAY, MAY + DAY_MS).loaded()
    explorer.page.keyboard.press("/")
    explorer.page.keyboard.type(typed)
    explorer.page.keyboard.press("Enter")

    explorer.until(
        "(symbol) => new URLSearchParams(location.search).get('symbol') === symbol", symbol
    )
    assert explorer.query()["exchange"] == exchange
    assert explorer.query()["interval"] == "1h"


def test_search_is_a_combobox_for_the_keyboard(explorer: Explorer) -> None:
    """Arrows choose, the chosen one is announced, and Escape changes nothing."""
    explorer.open_series(_HOUR_OF_ETH, MAY, MAY + DAY_MS).loaded()
    search = explorer.part("symbol-search")
    search.fill("btc")
    options = explorer.page.get_by_role("listbox", name="Symbols").get_by_role("option")
    expect(options.nth(2)).to_be_visible()
    search.press("ArrowDown")
    expect(options.nth(1)).to_have_attribute("aria-selected", "true")
    expect(search).to_have_attribute("aria-activedescendant", "hit-1")
    search.press("Escape")
    expect(options).to_have_count(0)
    assert explorer.query()["symbol"] == "ETH-USDT"


def test_interval_is_chosen_from_what_the_market_publishes(explorer: Explorer) -> None:
    """The choice is the service's list, and it changes view and address."""
    explorer.open_series(_HOUR_OF_ETH, MAY, MAY + DAY_MS).loaded()
    listed = explorer.demo.get("/meta/intervals", exchange="binance").json()["intervals"]
    offered = explorer.part("interval").locator("option").all_text_contents()
    assert offered == [entry["interval"] for entry in listed]

    explorer.part("interval").select_option("4h")

    explorer.until("() => new URLSearchParams(location.search).get('interval') === '4h'")
    _, first, last = explorer.loaded()
    assert first % (4 * HOUR_MS) == last % (4 * HOUR_MS) == 0


@needs_data
def test_scrolling_back_loads_older_candles_without_a_jump(explorer: Explorer) -> None:
    """A drag moves the picture by its pixels, loads older candles, and is a view."""
    name = "binance perp BTC-USDT 1m"
    explorer.demo.get("/candles/binance/perp/BTC-USDT/1m", start=REAL_START, end=REAL_END)
    start = REAL_END - 300 * MINUTE_MS
    explorer.open_series(name, start, REAL_END)
    rows, first, _ = explorer.loaded()
    assert (rows, first) == (300, start)
    width = explorer.page.evaluate(
        "document.querySelector('[data-testid=coverage-strip]').getBoundingClientRect().width"
    )

    for turn in range(1, 5):
        explorer.drag(600)
        explorer.until(
            "(before) => Number(new URLSearchParams(location.search).get('from')) < before", start
        )
        moved = start - int(explorer.query()["from"])
        assert moved / MINUTE_MS == pytest.approx(600 / width * 300, abs=2), turn
        start -= moved
        assert int(explorer.query()["to"]) - start == pytest.approx(300 * MINUTE_MS, abs=MINUTE_MS)
        explorer.until("(first) => document.querySelector('#chart').dataset.first <= first", start)

    rows, first, last = explorer.loaded()
    assert first < start
    assert rows == (last - first) // MINUTE_MS + 1


@needs_data
def test_chart_holds_thirty_thousand_candles_at_most(explorer: Explorer) -> None:
    """The far side goes; scrolling forward again brings it back."""
    explorer.demo.get("/candles/binance/perp/BTC-USDT/1m", start=REAL_START, end=REAL_END)
    start = REAL_END - 9_000 * MINUTE_MS
    explorer.open_series("binance perp BTC-USDT 1m", start, REAL_END).loaded()
    most = 0
    for _ in range(3):
        before = explorer.loaded()[1]
        explorer.drag(1000)
        explorer.until(
            "(before) => Number(document.querySelector('#chart').dataset.first) < before", before
        )
        most = max(most, explorer.loaded()[0])
    _, _, last = explorer.loaded()
    assert 20_000 < most <= 30_000
    assert last < REAL_END - MINUTE_MS

    for _ in range(5):
        explorer.drag(-1000)
        explorer.page.wait_for_timeout(400)
    explorer.until(
        "(end) => Number(document.querySelector('#chart').dataset.last) === end",
        REAL_END - MINUTE_MS,
    )
    assert explorer.loaded()[0] <= 30_000


@needs_data
def test_permalink_may_ask_for_more_than_the_chart_loads_by_itself(explorer: Explorer) -> None:
    """All 43,199 real minutes, in one picture."""
    explorer.demo.get("/candles/binance/perp/BTC-USDT/1m", start=REAL_START, end=REAL_END)
    explorer.open_series("binance perp BTC-USDT 1m", REAL_START, REAL_END)

    rows, first, last = explorer.loaded()
    assert (rows, first, last) == (43_199, REAL_START, REAL_END - MINUTE_MS)
    visible = explorer.windows()
    assert visible == [("covered", REAL_START, REAL_END)]
    assert explorer.query()["from"] == str(REAL_START)


def test_back_and_forward_show_the_views_that_were(explorer: Explorer) -> None:
    """Each drag and each symbol is a view of its own."""
    explorer.open_series(_HOUR_OF_ETH, MAY, MAY + 4 * DAY_MS).loaded()
    first = explorer.page.evaluate("location.search")
    explorer.drag(-300)
    explorer.until("(first) => location.search !== first", first)
    second = _standing_view(explorer)
    explorer.part("symbol-search").fill("SOL-USDT")
    explorer.part("symbol-search").press("Enter")
    explorer.until("() => location.search.includes('SOL-USDT')")
    explorer.loaded()

    for expected in (second, first):
        _go_back_to(explorer, expected)
        explorer.until("() => document.querySelector('h1').textContent.startsWith('ETH-USDT')")
        explorer.loaded()
        assert explorer.page.evaluate("location.search") == expected
    explorer.page.go_forward()
    explorer.until("(expected) => location.search === expected", second)


def _standing_view(explorer: Explorer) -> str:
    """Return the view once a drag has come to rest."""
    seen, shown = "", explorer.page.evaluate("location.search")
    while shown != seen:
        explorer.page.wait_for_timeout(200)
        seen, shown = shown, explorer.page.evaluate("location.search")
    return shown


def _go_back_to(explorer: Explorer, expected: str) -> None:
    """Go back until a view shows; a drag on a busy machine may leave several."""
    while (shown := explorer.page.evaluate("location.search")) != expected:
        explorer.page.go_back()
        explorer.until("(shown) => location.search !== shown", shown)


def test_go_to_a_date_puts_it_at_the_left(explorer: Explorer) -> None:
    """With as many slots as were visible."""
    explorer.open_series(_HOUR_OF_ETH, MAY, MAY + DAY_MS).loaded()
    explorer.part("go-to-date").fill("2024-05-03")

    explorer.until(
        "(day) => new URLSearchParams(location.search).get('from') === String(day)",
        MAY + 2 * DAY_MS,
    )
    assert int(explorer.query()["to"]) == MAY + 3 * DAY_MS
    explorer.until(
        "(day) => Number(document.querySelector('#chart').dataset.last) >= day",
        MAY + 3 * DAY_MS - HOUR_MS,
    )


def test_keyboard_moves_and_zooms_the_chart(explorer: Explorer) -> None:
    """Arrows move, plus and minus zoom, and the address follows."""
    explorer.open_series(_HOUR_OF_ETH, MAY, MAY + 4 * DAY_MS).loaded()
    explorer.chart.focus()
    explorer.page.keyboard.press("ArrowLeft")
    explorer.until("(was) => Number(new URLSearchParams(location.search).get('from')) < was", MAY)
    explorer.page.keyboard.press("+")
    explorer.until(
        "(was) => { const q = new URLSearchParams(location.search);"
        " return q.get('to') - q.get('from') < was; }",
        4 * DAY_MS,
    )


def test_newest_candle_moves_and_is_not_counted(explorer: Explorer) -> None:
    """The forming one is drawn after the last closed one, and polled."""
    explorer.open_series("binance perp SOL-USDT 1m")
    _, _, last = explorer.loaded()
    legend = explorer.page.locator("#legend")
    expect(legend).to_contain_text("forming")
    before = legend.inner_text()
    explorer.until("(before) => document.querySelector('#legend').innerText !== before", before)

    latest = explorer.demo.get("/latest/binance/perp/SOL-USDT/1m", forming=True).json()
    assert latest["candle"]["time"] > last
    settled = int(explorer.part("settled-until").get_attribute("data-time") or 0)
    assert last - 5 * MINUTE_MS < settled <= latest["candle"]["time"]


def test_newest_view_goes_on_with_the_clock(explorer: Explorer) -> None:
    """When a minute ends its candle is counted, and the picture moves by a slot."""
    explorer.open_series("binance perp XRP-USDT 1m")
    _, _, last = explorer.loaded()
    start = int(explorer.query()["from"])

    explorer.page.wait_for_function(
        "(last) => Number(document.querySelector('#chart').dataset.last) > last",
        arg=last,
        timeout=100_000,
    )
    explorer.until(
        "(start) => Number(new URLSearchParams(location.search).get('from')) > start", start
    )
    assert explorer.complaints == []


def test_symbol_information_is_the_service_s_own(explorer: Explorer) -> None:
    """Tick, listing date with its source, coverage in days and candles."""
    explorer.demo.get(_ETH, start=MAY, end=MAY + 10 * DAY_MS)
    explorer.open_series(_HOUR_OF_ETH, MAY, MAY + DAY_MS).loaded()
    listed = explorer.demo.get("/meta/symbols", exchange="binance", q="ETH-USDT").json()["symbols"]
    symbol = next(entry for entry in listed if entry["symbol"] == "ETH-USDT")
    windows = explorer.demo.get(_ETH.replace("candles", "coverage")).json()["windows"]
    covered = sum(
        window["end"] - window["start"] for window in windows if window["state"] == "covered"
    )

    information = explorer.part("symbol-info")
    expect(information).to_contain_text(f"Tick {symbol['tick_size']}")
    expect(information).to_contain_text("2019-11-27 (from the exchange's list)")
    expect(information).to_contain_text(f"{covered // HOUR_MS:,} candles")
    expect(information).to_contain_text("days")


@pytest.mark.parametrize("width", [1280, 390])
def test_what_matters_is_always_visible(explorer: Explorer, width: int) -> None:
    """At both widths, without a scroll to the side."""
    explorer.page.set_viewport_size({"width": width, "height": 844})
    explorer.open_series(_HOUR_OF_ETH, MAY, MAY + DAY_MS).loaded()

    for name in ("symbol-search", "interval", "symbol-info", "chart", "copy-as", "download"):
        expect(explorer.part(name)).to_be_in_viewport()
    assert explorer.page.evaluate("document.documentElement.scrollWidth") <= width
    if width == 1280:
        expect(explorer.part("settled-until")).to_be_in_viewport()
        expect(explorer.part("coverage-strip")).to_be_in_viewport()


def _copied(explorer: Explorer, name: str) -> str:
    explorer.part("copy-as").click()
    explorer.page.get_by_role("menuitem", name=name, exact=True).click()
    shown = explorer.part("copied").inner_text()
    assert explorer.page.evaluate("navigator.clipboard.readText()").strip() == shown.strip()
    assert explorer.demo.token not in shown
    assert "$MDP_TOKEN" in shown
    return shown


def test_copied_curl_and_pandas_answer_with_the_view(explorer: Explorer) -> None:
    """Run as they are pasted, with the token in the environment."""
    end = MAY + 2 * DAY_MS
    explorer.open_series(_HOUR_OF_ETH, MAY, end).loaded()
    env = {"MDP_TOKEN": explorer.demo.token, "PATH": "/usr/bin:/bin", "no_proxy": "*"}
    curl = _copied(explorer, "curl")
    pandas = _copied(explorer, "pandas")

    assert shlex.split(curl)[0] == "curl"
    done = subprocess.run(["bash", "-c", curl], env=env, capture_output=True, text=True, check=True)  # noqa: S603, S607 - the page's own text
    body = json.loads(done.stdout)
    assert (body["start"], body["end"], body["count"]) == (MAY, end, 48)
    script = [sys.executable, "-c", f"{pandas}\nprint(len(frame), frame.index[0].isoformat())"]
    done = subprocess.run(script, env=env, capture_output=True, text=True, check=True)  # noqa: S603 - the page's own text
    assert done.stdout.splitlines()[-1] == "48 2024-05-01T00:00:00+00:00"


def test_copied_client_and_ccxt_name_the_view(explorer: Explorer) -> None:
    """Python that compiles, with the window to the millisecond."""
    end = MAY + 2 * DAY_MS
    explorer.open_series(_HOUR_OF_ETH, MAY, end).loaded()
    client, ccxt = _copied(explorer, "Python client"), _copied(explorer, "ccxt")

    for text in (client, ccxt):
        compile(text, "copied", "exec")
        assert explorer.demo.url in text
    assert f"start={MAY}, end={end}" in client
    assert "ccxt.binanceusdm()" in ccxt
    assert f'"ETH/USDT:USDT", "1h", since={MAY}, limit=48' in ccxt
    assert f'"until": {end - 1}' in ccxt


@pytest.mark.parametrize(("label", "format_"), [("CSV", "csv"), ("Parquet", "parquet")])
def test_download_is_the_service_s_answer_for_the_view(
    explorer: Explorer, label: str, format_: str
) -> None:
    """To the byte, under a name that says what it is."""
    end = MAY + 2 * DAY_MS
    explorer.open_series(_HOUR_OF_ETH, MAY, end).loaded()
    explorer.part("download").click()
    with explorer.page.expect_download() as started:
        explorer.page.get_by_role("menuitem", name=label).click()

    name = started.value.suggested_filename
    assert name == f"binance_perp_ETH-USDT_1h_20240501T0000_20240503T0000.{format_}"
    expected = explorer.demo.get(_ETH, start=MAY, end=end, format=format_).content
    assert started.value.path().read_bytes() == expected
