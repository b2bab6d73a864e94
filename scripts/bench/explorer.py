"""Frames, tasks and memory of the explorer page, by the browser's own tracing."""

import bisect
import json
import shutil
import statistics
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from playwright.sync_api import Page, sync_playwright

from scripts.bench.client import Target, fetch
from scripts.bench.figures import Figure, unmeasured

_CANDLES = 100_000
_VISIBLE = 1_000
_MINUTE_MS = 60_000
_END = 1_717_200_000_000
_SYMBOL = "AVAX-USDT"
_BLOCK = 40_000
_WHEEL_PIXELS, _WHEEL_MS = 160, 16
_MOST_EVENTS = 20_000
_NEAR_MS = 5.0
_NAME = "explorer, scrolling back over 100,000 candles"
_AIMS = ("median ≤ 33 ms", "≤ 100 ms", "≤ 250 ms", "< 300 MB")
_CATEGORIES = ["blink.user_timing", "devtools.timeline", "disabled-by-default-devtools.timeline"]
# A mark in the trace whenever the chart has other candles than before.
_WATCH = """() => new MutationObserver(() => performance.mark("mdp-load")).observe(
    document.querySelector("#chart"), {attributes: true, attributeFilter: ["data-first"]})"""
_FRAMES = """() => { window.frames_ = []; let last = performance.now();
    const next = (now) => { frames_.push(now - last); last = now; requestAnimationFrame(next); };
    requestAnimationFrame(next); }"""


@dataclass(frozen=True, slots=True)
class _Scroll:
    frames: Sequence[float]
    trace: Sequence[Mapping[str, Any]]
    heap_mb: float


def measure_explorer(target: Target, token: str) -> list[Figure]:
    """Scroll back over stored candles; return frames, longest tasks and memory."""
    program = shutil.which("chromium")
    if program is None:
        return [unmeasured(_NAME, _AIMS[0], "no Chromium here")]
    for start in range(_END - _CANDLES * _MINUTE_MS, _END, _BLOCK * _MINUTE_MS):
        end = min(start + _BLOCK * _MINUTE_MS, _END)
        fetch(target, f"/candles/binance/perp/{_SYMBOL}/1m?start={start}&end={end}&fields=close")
    return _figures(_scroll(program, f"{target.url}{_view()}#token={token}"))


def _view() -> str:
    start = _END - _VISIBLE * _MINUTE_MS
    series = f"exchange=binance&market_type=perp&symbol={_SYMBOL}&interval=1m"
    return f"/?{series}&from={start}&to={_END}"


def _scroll(program: str, address: str) -> _Scroll:
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1280, "height": 800})
        page.goto(address)
        page.wait_for_selector("#chart[data-first]")
        path = Path(folder) / "trace.json"
        page.evaluate(_WATCH)
        page.evaluate(_FRAMES)
        browser.start_tracing(page=page, path=path, categories=_CATEGORIES)
        _turn_the_wheel(page)
        browser.stop_tracing()
        frames: list[float] = page.evaluate("frames_")
        heap = page.evaluate("performance.memory.usedJSHeapSize") / 1e6
        browser.close()
        return _Scroll(frames, json.loads(path.read_text())["traceEvents"], heap)


def _turn_the_wheel(page: Page) -> None:
    """Scroll until the oldest candle is loaded."""
    box = page.locator("#chart").bounding_box()
    assert box  # noqa: S101 - for the type checker
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 3)
    oldest = _END - (_CANDLES - _VISIBLE) * _MINUTE_MS
    for turn in range(_MOST_EVENTS):
        page.mouse.wheel(-_WHEEL_PIXELS, 0)
        page.wait_for_timeout(_WHEEL_MS)
        if turn % 25 == 0 and page.evaluate("+chart.dataset.first") <= oldest:
            return


def _figures(scroll: _Scroll) -> list[Figure]:
    main = {
        (event["pid"], event["tid"])
        for event in scroll.trace
        if event["name"] == "thread_name" and event["args"]["name"] == "CrRendererMain"
    }
    tasks = [
        event
        for event in scroll.trace
        if event["name"] == "RunTask" and (event["pid"], event["tid"]) in main and "dur" in event
    ]
    loads = sorted(event["ts"] / 1000 for event in scroll.trace if event["name"] == "mdp-load")
    at_loads = [task for task in tasks if _is_near(task, loads)]
    others = [task for task in tasks if not _is_near(task, loads)]
    median = statistics.median(scroll.frames)
    return [
        Figure(f"{_NAME}: frame", f"{median:.1f} ms", _AIMS[0], f"{len(scroll.frames)} frames"),
        Figure("… longest task but at a load", _longest(others), _AIMS[1], "of the main thread"),
        Figure("… longest task at a load", _longest(at_loads), _AIMS[2], f"{len(loads)} loads"),
        Figure("… memory of the tab", f"{scroll.heap_mb:.0f} MB", _AIMS[3], "its JavaScript's"),
    ]


def _is_near(task: Mapping[str, Any], loads: Sequence[float]) -> bool:
    begun = task["ts"] / 1000
    at = bisect.bisect_left(loads, begun - _NEAR_MS)
    return at < len(loads) and loads[at] <= begun + task["dur"] / 1000 + _NEAR_MS


def _longest(tasks: Sequence[Mapping[str, Any]]) -> str:
    """Return the longest by the clock, and by the CPU: load lengthens only the one."""
    wall = max((task["dur"] for task in tasks), default=0) / 1000
    cpu = max((task.get("tdur", 0) for task in tasks), default=0) / 1000
    return f"{wall:.0f} ms ({cpu:.0f} of the CPU)"
