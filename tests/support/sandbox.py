"""A sandbox, its controls and its own answers."""

import itertools
from collections.abc import Generator, Mapping
from contextlib import closing, contextmanager
from typing import Any

import httpx
from starlette.types import ASGIApp, Receive, Scope, Send

from scripts.sandbox.app import SandboxOptions, create_sandbox
from support.http import TLS, served_over_http

MINUTE_MS = 60_000


_KLINES = "/fapi/v1/klines"


class Sandbox:
    """The controls of a running sandbox, and its own answers."""

    def __init__(self, url: str) -> None:
        self.url = url
        self._http = httpx.Client(base_url=url, timeout=30, verify=TLS)

    def requests(self) -> list[dict[str, Any]]:
        """Return the log: every request to an exchange since it was cleared."""
        return self._http.get("/_sandbox/requests").json()

    def candle_requests(self) -> list[dict[str, Any]]:
        """Return the requests for candles of Binance, without probes of a history's start."""
        asked = [entry for entry in self.requests() if entry["path"] == _KLINES]
        return [entry for entry in asked if entry["params"]["startTime"] != "0"]

    def probes(self) -> list[dict[str, Any]]:
        """Return the requests that asked Binance for the start of a history."""
        asked = [entry for entry in self.requests() if entry["path"] == _KLINES]
        return [entry for entry in asked if entry["params"]["startTime"] == "0"]

    def clear(self) -> None:
        """Empty the log."""
        self._http.delete("/_sandbox/requests").raise_for_status()

    def fault(self, name: str, *, times: int = 1, **more: object) -> None:
        """Register a fault for the next candle requests to Binance."""
        order = {"exchange": "binance", "fault": name, "times": times, **more}
        self._http.post("/_sandbox/faults", json=[order]).raise_for_status()

    def clear_faults(self) -> None:
        """Remove the faults that have not come yet."""
        self._http.delete("/_sandbox/faults").raise_for_status()

    def settings(self, **changes: object) -> None:
        """Change `latency_ms` or `limits`."""
        self._http.post("/_sandbox/settings", json=changes).raise_for_status()

    def reset(self) -> None:
        """Restore the state in which a test expects to find it."""
        self.clear_faults()
        self.settings(latency_ms=0, limits="off")
        self.clear()

    def candles(self, symbol: str, interval: str, start_ms: int, end_ms: int) -> list[list[float]]:
        """Fetch from Binance itself the candles that open in the window, 1500 at most."""
        bounds = {"startTime": start_ms, "endTime": end_ms - 1, "limit": 1500}
        params = {"symbol": symbol, "interval": interval, **bounds}
        answer = self._http.get(f"/binance{_KLINES}", params=params).raise_for_status()
        return [[row[0], *map(float, row[1:6])] for row in answer.json()]

    def ask(self, path: str, params: Mapping[str, Any] | None = None) -> Any:  # noqa: ANN401 - JSON
        """Fetch JSON from an exchange itself, e.g. `/coinbase/products`."""
        return self._http.get(path, params=params).raise_for_status().json()

    def post(self, path: str, body: Mapping[str, Any]) -> Any:  # noqa: ANN401 - JSON
        """Send a body to an exchange itself; return its JSON."""
        return self._http.post(path, json=body).raise_for_status().json()

    def close(self) -> None:
        """Close the connections to it."""
        self._http.close()


class Addressed:
    """An application that sees its clients under an address that can be changed.

    An exchange counts per address: with one of its own no test is charged for another's requests.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self._addresses = (f"10.{n >> 16}.{n >> 8 & 255}.{n & 255}" for n in itertools.count(1))
        self._address = next(self._addresses)

    def move(self) -> None:
        """Use another address from now on."""
        self._address = next(self._addresses)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._app({**scope, "client": (self._address, 1)}, receive, send)


@contextmanager
def running_sandbox(options: SandboxOptions) -> Generator[Sandbox]:
    """Run a sandbox, for a clock or data of the test's own."""
    with addressed_sandbox(options) as (running, _):
        yield running


@contextmanager
def addressed_sandbox(options: SandboxOptions) -> Generator[tuple[Sandbox, Addressed]]:
    """Run a sandbox; yield its controls and the address of its clients."""
    addressed = Addressed(create_sandbox(options))
    with served_over_http(addressed) as url, closing(Sandbox(url)) as running:
        running.reset()
        yield running, addressed
