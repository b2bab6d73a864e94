"""An exchange of another package: found by its entry point, and served like ours."""

import os
import re
import secrets
import subprocess
import sys
import time
import tomllib
from collections.abc import Generator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

import httpx
import pytest
from pydantic import SecretStr
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route
from support.http import HOST, served_over_http
from support.places import PROJECT
from support.sandbox import MINUTE_MS
from support.waiting import wait_until

from api.tokens import issue_token
from mdp_core.settings import Settings
from scripts.demo.ports import free_port

MODULES = Path(__file__).parent / "third_party"
START_MS = 1_788_220_800_000  # 2026-09-01
ROWS = [
    [START_MS + n * MINUTE_MS, f"{100 + n}", f"{102 + n}.5", f"{99 + n}", f"{101 + n}", f"{n}.25"]
    for n in range(100)
]


@pytest.fixture
def packages(tmp_path: Path) -> Path:
    """A folder with an installed distribution that names the adapter as the page says."""
    page = (PROJECT / "docs" / "add-an-exchange.md").read_text()
    (block,) = re.findall(r"(?s)```toml[^\n]*\n(.*?)```", page)
    points = tomllib.loads(block)["project"]["entry-points"]["mdp.exchanges"]
    named = "".join(f"{name} = {where}\n" for name, where in points.items())
    info = tmp_path / "mdp_lantern-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: mdp-lantern\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[mdp.exchanges]\n{named}")
    return tmp_path


async def _markets(_: Request) -> JSONResponse:
    return JSONResponse([{"market": "ELF:USD", "open": True}, {"market": "OLD:USD", "open": False}])


async def _clock(_: Request) -> JSONResponse:
    return JSONResponse({"ms": time.time_ns() // 1_000_000})


async def _bars(request: Request) -> JSONResponse:
    first, last = int(request.query_params["from"]), int(request.query_params["to"])
    wanted = (request.query_params["market"], request.query_params["every"]) == ("ELF:USD", "min1")
    rows = [row for row in ROWS if wanted and first <= int(row[0]) <= last]
    return JSONResponse(rows)


@contextmanager
def running_api(environment: dict[str, str]) -> Generator[str]:
    """Run `mdp api` and give its URL once it answers."""
    url = f"http://{HOST}:{(port := free_port())}"
    command = [sys.executable, "-m", "scripts.cli.entry", "api", "--port", str(port)]
    if (program := Path(sys.executable).with_name("mdp")).exists():
        command = [str(program), "api", "--port", str(port)]
    with subprocess.Popen(command, env={**os.environ, **environment}) as process:  # noqa: S603 - our own program
        try:
            wait_until(lambda: _answers(url))
            yield url
        finally:
            process.terminate()


def _answers(url: str) -> bool:
    try:
        return httpx.get(f"{url}/health", timeout=5).status_code == 200
    except httpx.HTTPError:
        return False


def test_exchange_of_another_package_is_served_like_ours(database_url: str, packages: Path) -> None:
    """Its candles, symbols and intervals come by the API; then from the store."""
    secret = secrets.token_hex(32)
    settings = Settings(database_url=database_url, jwt_secret=SecretStr(secret))
    token = issue_token(
        settings, "tester", frozenset({"candles:read", "meta:read"}), timedelta(hours=1)
    )
    routes = [Route("/markets", _markets), Route("/clock", _clock), Route("/bars", _bars)]
    with served_over_http(Starlette(routes=routes)) as exchange:
        environment = {
            "DATABASE_URL": database_url,
            "JWT_SECRET": secret,
            "PYTHONPATH": os.pathsep.join([str(packages), str(MODULES)]),
            "MDP_LANTERN_URL": exchange,
        }
        with (
            running_api(environment) as url,
            httpx.Client(
                base_url=url, headers={"Authorization": f"Bearer {token}"}, timeout=30
            ) as client,
        ):
            path = "/candles/lantern/spot/elf-usd/1m"
            window = {"start": START_MS, "end": START_MS + 100 * MINUTE_MS}
            first = client.get(path, params=window)
            second = client.get(path, params=window)
            listed = client.get("/meta/symbols", params={"exchange": "lantern"}).json()["symbols"]
            exchanges = client.get("/meta/exchanges").json()["exchanges"]
            refused = client.get("/candles/lantern/spot/ELF-USD/1d")

    assert first.status_code == 200, first.text
    assert first.json()["symbol"] == "ELF-USD"
    assert first.json()["candles"] == [[row[0], *map(float, row[1:])] for row in ROWS]
    assert (first.headers["X-Cache"], second.headers["X-Cache"]) == ("miss", "hit")
    assert second.json()["candles"] == first.json()["candles"]
    assert {entry["symbol"]: entry["active"] for entry in listed} == {
        "ELF-USD": True,
        "OLD-USD": False,
    }
    names = [entry["exchange"] for entry in exchanges]
    assert names == ["binance", "coinbase", "hyperliquid", "lantern"]
    assert refused.json()["supported"] == ["1m", "1h"]
