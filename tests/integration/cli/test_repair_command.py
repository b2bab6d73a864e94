"""`mdp repair` from outside: output, exit codes, the time between two answers."""

import asyncio
from datetime import UTC, datetime, timedelta

import psycopg
import pytest
from support.asking import answer_to
from support.command_line import mdp
from support.sandbox import Sandbox
from typer.testing import Result

from mdp_core.domain.queries import CandleQuery
from mdp_core.settings import Settings
from mdp_core.wiring import Services

_SERIES = ("binance", "perp", "BTC-USDT", "1h")
_START = datetime(2024, 5, 1, tzinfo=UTC)


class Command:
    """Runs `mdp repair` on the test's database and sandbox."""

    def __init__(self, settings: Settings, sandbox: Sandbox) -> None:
        self._environment = {
            "DATABASE_URL": settings.database_url,
            "MDP_BINANCE_URL": f"{sandbox.url}/binance",
            "MDP_HYPERLIQUID_URL": f"{sandbox.url}/hyperliquid",
        }

    async def __call__(self, *arguments: str) -> Result:
        return await asyncio.to_thread(mdp, ["repair", *arguments], self._environment)


@pytest.fixture
async def repair(settings: Settings, services: Services, sandbox: Sandbox) -> Command:
    """The command, beside hourly candles of some days."""
    await answer_to(services, CandleQuery(*_SERIES, start=_START, end=_START + timedelta(days=3)))
    sandbox.clear()
    return Command(settings, sandbox)


async def test_counts_are_printed_and_two_answers_lie_apart(
    repair: Command, sandbox: Sandbox, database: psycopg.Connection
) -> None:
    """The second question comes 5 s after the first answer, and is of another width."""
    database.execute("UPDATE candles SET close = high WHERE time = '2024-05-01 05:00Z'")
    dry = await repair(*_SERIES, "--dry-run")
    sandbox.clear()
    done = await repair(*_SERIES)
    asked = sandbox.candle_requests()

    assert (dry.exit_code, done.exit_code) == (0, 0)
    assert dry.stdout.endswith(": 1 candles replaced, 0 added, 0 deleted\n")
    assert done.stdout == "1 candles replaced, 0 added, 0 deleted\n"
    first, second = asked[-2:]
    assert second["at"] - first["at"] >= 5000
    assert _width(first) != _width(second)


@pytest.mark.parametrize(
    ("fault", "options", "hint"),
    [
        ("empty_page", [], "--force does not change this"),
        ("empty_page", ["--force"], "--force does not change this"),
        ("short_page", [], "or believe the exchange with --force"),
    ],
)
async def test_refusal_is_one_line_that_names_force(
    repair: Command, sandbox: Sandbox, fault: str, options: list[str], hint: str
) -> None:
    """Silence takes nothing away, with --force neither; short answers need it."""
    sandbox.fault(fault, times=100)
    refused = await repair(*_SERIES, *options)

    assert refused.exit_code == 1
    (line,) = _told(refused)
    assert line.startswith("mdp: kept what is stored of 2024-")
    assert line.endswith(hint)
    assert refused.stdout == "0 candles replaced, 0 added, 0 deleted\n"


@pytest.mark.parametrize(
    "arguments",
    [
        ("binance", "perp", "NOPE-USDT", "1h"),
        ("binance", "perp", "BTC-USDT", "7h"),
        ("nowhere", "perp", "BTC-USDT", "1h"),
        (*_SERIES, "--start", "2024-05-02", "--end", "2024-05-01"),
        ("hyperliquid", "perp", "BTC-USDC", "1m", "--start", "2023-05-01", "--end", "2023-05-02"),
    ],
)
async def test_bad_input_is_one_line(repair: Command, arguments: tuple[str, ...]) -> None:
    """An unknown name, a reversed window, and one that the exchange has forgotten."""
    refused = await repair(*arguments)

    assert refused.exit_code == 2
    (line,) = _told(refused)
    assert refused.stdout == ""
    assert line


def _told(done: Result) -> list[str]:
    """Return the command's lines; the tests' sandbox logs into the same stream."""
    return [line for line in done.stderr.splitlines() if "HTTP/1.1" not in line]


def _width(entry: dict[str, dict[str, str]]) -> int:
    return int(entry["params"]["endTime"]) - int(entry["params"]["startTime"])
