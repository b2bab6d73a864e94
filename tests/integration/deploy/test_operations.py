"""Operation: log lines, `mdp check`, and a stop that finishes open requests."""

import os
import re
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
from pydantic import SecretStr
from support.http import HOST, answers, ask
from support.places import PROJECT
from support.postgres import Server
from support.sandbox import Sandbox
from support.waiting import wait_until
from typer.testing import CliRunner

from api.tokens import issue_token
from mdp_core.settings import TokenSettings
from scripts.cli import main as cli
from scripts.cli.check import findings, remarks
from scripts.cli.environment import known_variables
from scripts.demo.ports import free_port

pytestmark = pytest.mark.every_kind_of_database

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
    """Run `mdp api` through good, bad and slow requests; stop it during a slow one."""
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
            wait_until(lambda: answers(f"{url}/health"), or_tell=log.read_text)
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
    wait_until(lambda: len(sandbox.requests()) > 0)
    api.send_signal(signal.SIGTERM)
    asking.join()
    return answered[0] if answered else None


def test_request_under_way_is_answered_before_the_end(told: Told) -> None:
    """SIGTERM came while it waited for the exchange; that signal ended the process."""
    assert told.slow is not None
    assert (told.slow.status_code, told.slow.json()["count"]) == (200, 10)
    assert told.exit_code == -signal.SIGTERM
    assert told.line_of("slow")["ms"] >= SLOW_MS


def test_log_has_one_line_for_a_request_with_what_it_got(told: Told) -> None:
    """The request, its outcome, and how long it took."""
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
    """No key, no token, good or forged, in header or query, no database password."""
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
        ({"MDP_BINANCE_URL": "notaurl"}, "MDP_BINANCE_URL: must be a http"),
        ({"MDP_STATEMENT_TIMEOUT_SECONDS": "0.0001"}, "MDP_STATEMENT_TIMEOUT_SECONDS: "),
        ({"MDP_CORS_ORIGINS": "https://a.example b.example"}, "MDP_CORS_ORIGINS: must be origins"),
        ({"MDP_CORS_ORIGINS": "https://a.example/x"}, "MDP_CORS_ORIGINS: must be origins"),
        ({"MDP_HOT": "nosuch:*:1m"}, "MDP_HOT: there is no exchange nosuch"),
        ({"MDP_HOT": "binance:*:7m"}, "MDP_HOT: binance does not offer 7m"),
        ({"MDP_HOT": "binance"}, "MDP_HOT: 'binance' is no selection"),
        ({"MDP_KEEP": "hyperliquid:*:7m"}, "MDP_KEEP: hyperliquid does not offer 7m"),
        ({"MDP_KEEP": "binance:*:1m"}, "MDP_KEEP: binance forgets nothing"),
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

    assert [slot for slot in wrong if slot.startswith(text)]
    assert not [slot for slot in wrong if PASSWORD in slot or "\n" in slot]


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


def test_check_tells_every_fault_beside_a_bad_log_level(
    environment: Callable[[Mapping[str, str | None]], None],
) -> None:
    """Which is said like the others, though it is looked at before any command begins."""
    environment({"MDP_LOG_LEVEL": "LOUD", "MDP_POOL_SIZE": "0", "MDP_BINANCE_SHARE": "80"})
    checked = CliRunner().invoke(cli.app, ["check"])
    started = CliRunner().invoke(cli.app, ["syncer"])

    for name in ("MDP_LOG_LEVEL", "MDP_POOL_SIZE", "MDP_BINANCE_SHARE"):
        assert f"WRONG {name}: " in checked.stdout
        assert f"mdp: {name}: " in started.stderr
    assert checked.exit_code == started.exit_code == 1


def test_check_warns_of_names_that_nothing_reads(
    database_url: str, environment: Callable[[Mapping[str, str | None]], None]
) -> None:
    """With the one that may be meant; services start all the same."""
    environment({"DATABASE_URL": database_url, "MDP_POOLSIZE": "3", "MDP_ZZZZZ": "1"})
    done = CliRunner().invoke(cli.app, ["check"])

    assert "WARN  MDP_POOLSIZE: nothing reads it: is MDP_POOL_SIZE meant?" in done.stdout
    assert "WARN  MDP_ZZZZZ: nothing reads it\n" in done.stdout
    assert done.exit_code == 0


def test_check_knows_every_name_of_the_example(
    database_url: str, environment: Callable[[Mapping[str, str | None]], None]
) -> None:
    """Those that compose alone reads, too: a shell is handed all of them."""
    named = re.findall(r"(?m)^(?:# )?([A-Z_]+)=", (PROJECT / ".env.example").read_text())
    environment({**dict.fromkeys(named, ""), "DATABASE_URL": database_url})

    assert known_variables() == set(named)
    assert list(remarks()) == []


def test_check_warns_of_a_replica_that_is_away(
    environment: Callable[[Mapping[str, str | None]], None],
) -> None:
    """Services run without it."""
    environment({"DATABASE_READ_URL": f"postgresql://mdp:{PASSWORD}@{HOST}:1/mdp"})
    (remark,) = remarks()

    assert not remark.is_wrong
    assert remark.text.startswith("DATABASE_READ_URL: connection failed")
    assert PASSWORD not in remark.text


def test_check_refuses_a_replica_of_another_database(
    server: Server, environment: Callable[[Mapping[str, str | None]], None]
) -> None:
    """It will never be one; the primary itself is as good, and services start anyhow."""
    with server.clone() as url, server.clone() as other:
        environment({"DATABASE_URL": url, "DATABASE_READ_URL": other})
        (mistaken,) = remarks()
        environment({"DATABASE_URL": url, "DATABASE_READ_URL": url})
        (twice,) = remarks()
        found = list(findings())

    assert mistaken.is_wrong
    assert mistaken.text.startswith("DATABASE_READ_URL: names no replica of DATABASE_URL")
    assert twice.text == "replica: the primary"
    assert not [finding for finding in found if finding.is_wrong]


def _mdp(
    arguments: Sequence[str], environment: Mapping[str, str], output: IO[bytes] | int
) -> subprocess.Popen[bytes]:
    inherited = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("MDP_", "JWT_", "DATABASE_"))
    }
    return subprocess.Popen(  # noqa: S603 - our own program
        [sys.executable, "-m", "scripts.cli.entry", *arguments],
        cwd=PROJECT,
        env={**inherited, **environment},
        stdout=output,
        stderr=subprocess.STDOUT,
    )


def _bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}
