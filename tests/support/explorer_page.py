"""A running `mdp demo` and a real Chromium that looks at it.

The page is driven as a person drives it, and compared with what the service itself answers.
"""

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

import httpx
import pytest
from playwright.sync_api import (
    Browser,
    BrowserContext,
    ConsoleMessage,
    Error,
    Locator,
    Page,
    Request,
    expect,
    sync_playwright,
)

PROJECT = Path(__file__).parents[2]
DATA = PROJECT.parent / "shared" / "data"
SCREENSHOTS = PROJECT / ".screenshots"

MINUTE_MS, HOUR_MS, DAY_MS = 60_000, 3_600_000, 86_400_000
# Days of May 2024, in which every invented series of Binance has candles.
MAY = 1_714_521_600_000
# Real minutes of BTC-USDT: every slot has a candle from here to the end.
REAL_START, REAL_END = 1_746_372_780_000, 1_748_964_720_000
PATIENCE_MS = 30_000
_START_SECONDS = 180
_POLL_SECONDS = 0.1

expect.set_options(timeout=PATIENCE_MS)


@dataclass(frozen=True, slots=True)
class Demo:
    """A running demo: what `ready.json` says, and where its output goes."""

    url: str
    token: str
    sandbox_url: str
    env: Mapping[str, str]
    output: Path

    def get(self, path: str, **parameters: object) -> httpx.Response:
        """Ask the service itself, with the demo's token."""
        return self._send("GET", path, params=parameters)

    def post(self, path: str, body: object) -> httpx.Response:
        """Send the service a body."""
        return self._send("POST", path, json=body)

    def _send(self, method: str, path: str, **more: Any) -> httpx.Response:  # noqa: ANN401 - httpx's own
        headers = {"Authorization": f"Bearer {self.token}"}
        with httpx.Client(base_url=self.url, headers=headers, timeout=90, trust_env=False) as http:
            return http.request(method, path, **more)

    def sandbox(self, method: str, path: str, body: object = None) -> Any:  # noqa: ANN401 - JSON
        """Use the controls of the sandbox."""
        with httpx.Client(base_url=self.sandbox_url, timeout=30, trust_env=False) as http:
            answer = http.request(method, path, json=body).raise_for_status()
            return answer.json() if answer.content else None

    def candle_requests(self, symbol: str) -> list[Mapping[str, Any]]:
        """Return Binance's candle requests for a symbol since the log was cleared."""
        return [
            entry
            for entry in self.sandbox("GET", "/_sandbox/requests")
            if entry["path"] == "/fapi/v1/klines"
            and entry["params"]["symbol"] == symbol
            and entry["params"].get("startTime") != "0"  # a question where history begins
        ]

    def mint(self, *scopes: str, hours: float = 1) -> str:
        """Make a token with the command of the house."""
        command = [_MDP, "token", "--subject", "reader", "--hours", str(hours)]
        for scope in scopes:
            command += ["--scope", scope]
        env = {**os.environ, **self.env}
        done = subprocess.run(command, env=env, capture_output=True, text=True, check=True)  # noqa: S603 - our own program
        return done.stdout.split()[-1]


_MDP = str(Path(sys.executable).parent / "mdp")


@pytest.fixture(scope="module")
def demo() -> Generator[Demo]:
    """A demo for a module's tests, on the real candles of the shared folder."""
    with running_demo() as running:
        yield running


@contextmanager
def running_demo() -> Generator[Demo]:
    """Run `mdp demo` until the context is left."""
    with tempfile.TemporaryDirectory(prefix="mdp-test-") as name:
        folder = Path(name)
        folder.chmod(0o755)  # the database of root runs as another account
        ready, output = folder / "demo" / "ready.json", folder / "output"
        data = ["--sandbox-data", str(DATA)] if DATA.is_dir() else []
        arguments = ["demo", "--port", str(_free_port()), "--data-dir", str(ready.parent), *data]
        with output.open("wb") as file:
            process = subprocess.Popen(  # noqa: S603 - our own program
                [_MDP, *arguments], cwd=folder, stdout=file, stderr=subprocess.STDOUT
            )
        try:
            _wait_for(lambda: ready.exists() or process.poll() is not None)
            assert ready.exists(), output.read_text()
            said = json.loads(ready.read_text())
            yield Demo(said["url"], said["token"], said["sandbox_url"], said["env"], output)
        finally:
            process.terminate()
            process.wait(60)


def _free_port() -> int:
    from random import sample  # noqa: PLC0415 - of use here alone
    from socket import socket  # noqa: PLC0415

    for port in sample(range(20_000, 32_768), 100):
        with socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)):
                return port
    pytest.fail("no port is free")


def _wait_for(holds: Callable[[], bool], seconds: float = _START_SECONDS) -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, "it did not come about in time"
        time.sleep(_POLL_SECONDS)


@pytest.fixture(scope="module")
def chromium() -> Generator[Browser]:
    """Debian's Chromium, for one module: Playwright occupies the thread meanwhile."""
    program = os.environ.get("MDP_TEST_CHROMIUM") or shutil.which("chromium")
    if program is None:
        pytest.skip("no Chromium: apt-get install chromium, or set MDP_TEST_CHROMIUM")
    with sync_playwright() as playwright:
        # A container's root has no sandbox, and its /dev/shm may be small.
        arguments = ["--no-sandbox", "--disable-dev-shm-usage"]
        browser = playwright.chromium.launch(executable_path=program, args=arguments)
        yield browser
        browser.close()


@dataclass(slots=True)
class Explorer:
    """The page in one tab: its parts, its requests and its complaints."""

    demo: Demo
    page: Page
    requests: list[str] = field(default_factory=list)
    complaints: list[str] = field(default_factory=list)

    def watch(self) -> None:
        """Note requests, console errors and exceptions from now on."""

        def note_request(request: Request) -> None:
            self.requests.append(request.url)

        def note_console(message: ConsoleMessage) -> None:
            if message.type in {"error", "warning"}:
                self.complaints.append(message.text)

        def note_error(error: Error) -> None:
            self.complaints.append(str(error))

        # Playwright marks a method's object, which has slots: so functions.
        self.page.on("request", note_request)
        self.page.on("console", note_console)
        self.page.on("pageerror", note_error)

    def open(self, path: str = "/", *, token: str | None = None) -> "Explorer":
        """Open the page with a token in the fragment; the demo's unless another is given."""
        self.page.goto("about:blank")
        self.page.goto(f"{self.demo.url}{path}#token={token or self.demo.token}")
        return self

    def open_series(
        self, name: str, start: int | None = None, end: int | None = None
    ) -> "Explorer":
        """Open a permalink: `binance perp BTC-USDT 1m`, and its window if it has one."""
        return self.open(permalink(name, start, end))

    def part(self, name: str) -> Locator:
        """Return the part with a test id."""
        return self.page.get_by_test_id(name)

    @property
    def chart(self) -> Locator:
        """The chart."""
        return self.part("chart")

    def loaded(self) -> tuple[int, int, int]:
        """Wait for candles; return how many there are, the first and the last open time."""
        expect(self.chart).to_have_attribute("data-first", re.compile(r"\d+"))
        expect(self.page.locator("#busy")).to_be_empty()
        rows, first, last = (
            int(self.chart.get_attribute(f"data-{name}") or 0) for name in ("rows", "first", "last")
        )
        return rows, first, last

    def windows(self) -> list[tuple[str, int, int]]:
        """Return what the strip shows."""
        return [
            (state, int(start), int(end))
            for state, start, end in self.page.evaluate(
                "[...document.querySelectorAll('[data-testid=coverage-strip] > *')]"
                ".map((each) => [each.dataset.state, each.dataset.start, each.dataset.end])"
            )
        ]

    def query(self) -> Mapping[str, str]:
        """Return the parameters of the address."""
        text = urlsplit(self.page.evaluate("location.href")).query
        return {name: values[0] for name, values in parse_qs(text).items()}

    def drag(self, pixels: int, steps: int = 12) -> None:
        """Drag the chart: to the right shows what is older."""
        box = self.chart.bounding_box()
        assert box
        x = box["x"] + (80 if pixels > 0 else 80 - pixels)
        y = box["y"] + box["height"] / 3
        self.page.mouse.move(x, y)
        self.page.mouse.down()
        # The chart begins a drag at the first place that is a few pixels away.
        x += 12 if pixels > 0 else -12
        self.page.mouse.move(x, y, steps=4)
        self.page.mouse.move(x + pixels, y, steps=steps)
        self.page.mouse.up()

    def until(self, expression: str, argument: object = None) -> None:
        """Wait for a condition in the page."""
        self.page.wait_for_function(expression, arg=argument, timeout=PATIENCE_MS)


def permalink(name: str, start: int | None = None, end: int | None = None) -> str:
    """Return the address of a view."""
    words = dict(zip(("exchange", "market_type", "symbol", "interval"), name.split(), strict=True))
    bounds = {"from": start, "to": end} if start is not None else {}
    return f"/?{urlencode({**words, **bounds})}"


@pytest.fixture
def context(chromium: Browser) -> Generator[BrowserContext]:
    """A browser without a past: 1280 px wide, light."""
    with new_context(chromium) as opened:
        yield opened


@contextmanager
def new_context(
    chromium: Browser, width: int = 1280, scheme: str = "light"
) -> Generator[BrowserContext]:
    """Open a browser window of a width, in a colour scheme."""
    opened = chromium.new_context(
        viewport={"width": width, "height": 800 if width > 600 else 844},
        color_scheme="dark" if scheme == "dark" else "light",
        permissions=["clipboard-read", "clipboard-write"],
    )
    try:
        yield opened
    finally:
        opened.close()


@pytest.fixture
def explorer(
    request: pytest.FixtureRequest, context: BrowserContext, demo: Demo
) -> Generator[Explorer]:
    """A tab on the demo; after a failure there is a picture of it."""
    failed_before = request.session.testsfailed
    opened = Explorer(demo, context.new_page())
    opened.watch()
    yield opened
    if request.session.testsfailed > failed_before:
        take_picture(opened.page, f"failed-{request.node.name}")


def take_picture(page: Page, name: str) -> Path:
    """Save a screenshot into the folder of screenshots, which git ignores."""
    SCREENSHOTS.mkdir(exist_ok=True)
    path = SCREENSHOTS / f"{re.sub(r'[^A-Za-z0-9.-]+', '-', name)[:100]}.png"
    page.screenshot(path=path)
    return path


def joined(windows: Sequence[Mapping[str, Any]]) -> list[tuple[str, int, int]]:
    """Write windows of `/coverage` as the strip does."""
    return [(window["state"], window["start"], window["end"]) for window in windows]
