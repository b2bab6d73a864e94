"""What an operator relies on: log lines, `mdp check`, and an end that finishes what was begun."""

import os
import secrets
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import IO, Any
from urllib.parse import urlsplit

import httpx
import orjson
import psycopg
import pytest
from conftest import HOST, PROJECT, Sandbox, Server, answers, ask, comes_true, free_port
from pydantic import SecretStr
from typer.testing import CliRunner

from api.auth import issue_token
from mdp_core.settings import TokenSettings
from scripts import cli
from scripts.check import findings

PATH = "/candles/binance/perp/BTC-USDT/1h"
SLOW_MS = 1500

FORGED = "eyJhbGciOiJub25lIn0.eyJzdWIiOiJub2JvZHkifQ.Zm9yZ2VkLXNpZ25hdHVyZQ"
PASSWORD = "hunter2-of-the-database"  # noqa: S105 - of the tests


@dataclass(frozen=True, slots=True)
class Told:
    """A service that has run: what it answered, how it ended, and what it wrote."""

    statuses: Mapping[str, int]
    slow: httpx.Response | None
    exit_code: int
    output: str
    known_secrets: Sequence[str]

    @property
    def lines(self) -> list[dict[str, Any]]:
        """Every line it wrote; all of them must be JSON."""
        return [orjson.loads(line) for line in self.output.splitlines()]

    def line_of(self, request_id: str) -> dict[str, Any]:
        """The one line about a request."""
        (line,) = [
            line
            for line in self.lines
            if line["event"] == "request" and line.get("request_id") == request_id
        ]
        return line


@pytest.fixture(scope="module")
def told(
    server: Server, tmp_path_factory: pytest.TempPathFactory, _shared_sandbox: tuple[Sandbox, Any]
) -> Told:
    """Run `mdp api` through good, bad and slow requests, and stop it during the slow one."""
    sandbox, secret = _shared_sandbox[0], secrets.token_hex(32)
    sandbox.reset()
    token = issue_token(
        TokenSettings(jwt_secret=SecretStr(secret)),
        "tester",
        frozenset({"candles:read"}),
        timedelta(hours=1),
    )
    log = tmp_path_factory.mktemp("operations") / "log"
    with server.clone() as url:
        environment = {
            "DATABASE_URL": url,
            "JWT_SECRET": secret,
            **{
                f"MDP_{name.upper()}_URL": f"{sandbox.url}/{name}"
                for name in ("binance", "coinbase", "hyperliquid")
            },
        }
        statuses, slow, code = _run(environment, sandbox, token, log)
    sandbox.reset()
    password = urlsplit(url).password
    assert password
    return Told(statuses, slow, code, log.read_text(), [secret, token, FORGED, password])


def _run(
    environment: Mapping[str, str], sandbox: Sandbox, token: str, log: Path
) -> tuple[dict[str, int], httpx.Response | None, int]:
    port = free_port()
    url = f"http://{HOST}:{port}"
    with log.open("wb") as output, _mdp(["api", "--port", str(port)], environment, output) as api:
        try:
            assert comes_true(lambda: answers(f"{url}/health")), log.read_text()
            statuses = {
                name: ask(f"{url}{path}", headers={"X-Request-Id": name, **headers}).status_code
                for name, path, headers in [
                    ("good", f"{PATH}?start=2024-05-01&limit=10", _bearer(token)),
                    ("forged", PATH, _bearer(FORGED)),
                    ("in-query", f"/health?token={token}", {}),
                    ("unknown", PATH.replace("BTC", "NOSUCH"), _bearer(token)),
                ]
            }
            slow = _stop_during(api, sandbox, f"{url}{PATH}?start=2023-01-01&limit=10", token)
            return statuses, slow, api.wait(60)
        finally:
            api.kill()


def _stop_during(
    api: subprocess.Popen[bytes], sandbox: Sandbox, url: str, token: str
) -> httpx.Response | None:
    """Send SIGTERM while a request waits for the exchange; give its answer."""
    answered: list[httpx.Response] = []
    sandbox.settings(latency_ms=SLOW_MS)
    sandbox.clear()
    headers = {"X-Request-Id": "slow", **_bearer(token)}
    asking = threading.Thread(target=lambda: answered.append(ask(url, headers=headers)))
    asking.start()
    assert comes_true(lambda: len(sandbox.requests()) > 0)
    api.send_signal(signal.SIGTERM)
    asking.join()
    return answered[0] if answered else None


def test_request_under_way_is_answered_before_the_end(told: Told) -> None:
    """SIGTERM came while it waited for the exchange; the process ended by that signal, no other."""
    assert told.slow is not None
    assert (told.slow.status_code, told.slow.json()["count"]) == (200, 10)
    assert told.exit_code == -signal.SIGTERM
    assert told.line_of("slow")["ms"] >= SLOW_MS


def test_log_has_one_line_for_a_request_with_what_it_got(told: Told) -> None:
    """Who asked for what, what came of it, and how long it took."""
    assert told.statuses["good"] == 200
    line = told.line_of("good")

    expected = {
        "level": "INFO",
        "event": "request",
        "method": "GET",
        "path": PATH,
        "status": 200,
        "series": "binance perp BTC-USDT 1h",
        "window": "2024-05-01T00:00:00Z/2024-05-01T10:00:00Z",
        "rows": 10,
        "cache": "miss",
    }
    assert {name: line.get(name) for name in expected} == expected
    assert line["ms"] > 0
    assert line["time"].endswith("+00:00")


def test_fill_has_a_line_under_the_request_that_began_it(told: Told) -> None:
    """So that the two can be put together."""
    (fill,) = [
        line
        for line in told.lines
        if line["event"] == "filled from the exchange" and line.get("request_id") == "good"
    ]

    assert fill["series"] == "binance perp BTC-USDT 1h"
    assert fill["rows"] >= 10
    assert fill["ms"] > 0


def test_refused_requests_have_their_line_too(told: Told) -> None:
    """With the status that their sender saw."""
    assert told.statuses["forged"] == told.line_of("forged")["status"] == 401
    assert told.statuses["unknown"] == told.line_of("unknown")["status"] == 404


def test_health_is_not_logged(told: Told) -> None:
    """A load balancer asks for it every few seconds."""
    assert told.statuses["in-query"] == 200
    assert [line for line in told.lines if line.get("path") == "/health"] == []


def test_no_secret_is_ever_logged(told: Told) -> None:
    """No key, no token, good or forged, in a header or in a query, and no database password."""
    assert told.lines
    for secret in told.known_secrets:
        assert secret not in told.output


# --- mdp check ------------------------------------------------------------------------------------


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch) -> Callable[[Mapping[str, str | None]], None]:
    """Sets variables; all others that mean something to the service are unset."""
    for name in os.environ:
        if name.startswith(("MDP_", "JWT_", "DATABASE_")):
            monkeypatch.delenv(name)

    def set_variables(variables: Mapping[str, str | None]) -> None:
        base = {"DATABASE_URL": f"postgresql://{HOST}:1/mdp", "JWT_SECRET": secrets.token_hex(32)}
        for name, value in {**base, **variables}.items():
            if value is not None:
                monkeypatch.setenv(name, value)

    return set_variables


def test_check_finds_nothing_wrong_with_what_serves(
    server: Server, environment: Callable[[Mapping[str, str | None]], None]
) -> None:
    """And it says what it stands on."""
    with server.clone() as url:
        environment({"DATABASE_URL": url})
        found = list(findings())

    assert [finding for finding in found if finding.is_wrong] == []
    assert any("TimescaleDB 2" in finding.text for finding in found) == server.has_timescaledb


@pytest.mark.parametrize(
    ("variables", "text"),
    [
        ({"MDP_BINANCE_SHARE": "3"}, "MDP_BINANCE_SHARE: "),
        ({"MDP_POOL_SIZE": "one"}, "MDP_POOL_SIZE: "),
        ({"JWT_SECRET": f"short-{PASSWORD}"}, "JWT_SECRET: must have at least 32 characters"),
        ({"JWT_SECRET": None}, "JWT_SECRET must be set"),
        ({"JWT_SECRET": ""}, "JWT_SECRET must be set"),
        ({"DATABASE_URL": ""}, "DATABASE_URL: Field required"),
        ({"DATABASE_URL": None}, "DATABASE_URL: Field required"),
        (
            {"DATABASE_URL": f"postgresql://mdp:{PASSWORD}@{HOST}:1/mdp"},
            "DATABASE_URL: connection failed",
        ),
        ({"DATABASE_URL": f"postgresql://mdp:{PASSWORD}@{HOST}:no/mdp"}, "DATABASE_URL: "),
    ],
)
def test_check_says_what_is_wrong_in_a_line(
    environment: Callable[[Mapping[str, str | None]], None],
    variables: Mapping[str, str | None],
    text: str,
) -> None:
    """By the variable's name and without its value."""
    environment(variables)
    wrong = [finding.text for finding in findings() if finding.is_wrong]

    assert [each for each in wrong if each.startswith(text)]
    assert not [each for each in wrong if PASSWORD in each or "\n" in each]


def test_check_wants_the_newest_schema(
    server: Server, environment: Callable[[Mapping[str, str | None]], None]
) -> None:
    """A database without tables is reachable, and no use."""
    with server.clone() as url:
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute("DROP TABLE alembic_version")
        environment({"DATABASE_URL": url})
        (wrong,) = [finding.text for finding in findings() if finding.is_wrong]

    assert "its schema is none" in wrong
    assert "mdp db upgrade" in wrong


def test_check_tells_programs_by_its_exit_code(
    environment: Callable[[Mapping[str, str | None]], None],
) -> None:
    """One that starts a service can ask first."""
    environment({"MDP_POOL_SIZE": "0"})
    done = CliRunner().invoke(cli.app, ["check"])

    assert done.exit_code == 1
    assert "WRONG MDP_POOL_SIZE" in done.stdout


def _mdp(
    arguments: Sequence[str], environment: Mapping[str, str], output: IO[bytes] | int
) -> subprocess.Popen[bytes]:
    inherited = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("MDP_", "JWT_", "DATABASE_"))
    }
    return subprocess.Popen(  # noqa: S603 - our own program
        [sys.executable, "-m", "scripts.cli", *arguments],
        cwd=PROJECT,
        env={**inherited, **environment},
        stdout=output,
        stderr=subprocess.STDOUT,
    )


def _bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}
