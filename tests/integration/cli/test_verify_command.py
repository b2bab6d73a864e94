"""`mdp verify` from outside: a month of 1m candles, spoiled by SQL and mended."""

import asyncio
import json
from datetime import UTC, datetime

import psycopg
import pytest
from support.asking import answer_to
from support.command_line import mdp
from support.sandbox import Sandbox
from typer.testing import Result

from mdp_core.domain.queries import CandleQuery
from mdp_core.settings import Settings
from mdp_core.wiring import Services

_SERIES = ("binance", "perp", "BTC-USDT", "1m")
_START, _END = datetime(2024, 5, 1, tzinfo=UTC), datetime(2024, 6, 1, tzinfo=UTC)
_ALL = "SELECT * FROM candles ORDER BY time"
_CHANGE = "UPDATE candles SET volume = volume + 1 WHERE time = '2024-05-11 12:34Z'"
_DELETE = "DELETE FROM candles WHERE time = '2024-05-21 01:02Z'"


class Command:
    """Runs `mdp verify` on the test's database and sandbox."""

    def __init__(self, settings: Settings, sandbox: Sandbox) -> None:
        self._environment = {
            "DATABASE_URL": settings.database_url,
            "MDP_BINANCE_URL": f"{sandbox.url}/binance",
            "MDP_HYPERLIQUID_URL": f"{sandbox.url}/hyperliquid",
        }

    async def __call__(self, *arguments: str) -> Result:
        return await asyncio.to_thread(mdp, ["verify", *arguments], self._environment)


@pytest.fixture
def verify(settings: Settings, sandbox: Sandbox) -> Command:
    """The command."""
    return Command(settings, sandbox)


@pytest.fixture
async def month(services: Services, database: psycopg.Connection) -> int:
    """A month of one-minute candles; tells how many are stored."""
    await answer_to(services, CandleQuery(*_SERIES, start=_START, end=_END))
    return len(database.execute(_ALL).fetchall())


async def test_changed_value_and_deleted_row_are_found_and_mended(
    verify: Command, month: int, database: psycopg.Connection
) -> None:
    """One of each in a month: counted, named, and left alone until --repair."""
    before = database.execute(_ALL).fetchall()
    database.execute(_CHANGE)
    database.execute(_DELETE)
    spoiled = database.execute(_ALL).fetchall()
    found = await verify(*_SERIES, "--json")
    after = database.execute(_ALL).fetchall()
    mended = await verify(*_SERIES, "--repair")
    again = await verify(*_SERIES)

    assert (found.exit_code, mended.exit_code, again.exit_code) == (1, 0, 0)
    told = json.loads(found.stdout)
    counts = [told[name] for name in ("compared", "equal", "differing", "missing", "extra")]
    assert counts == [month, month - 2, 1, 1, 0]
    times = [(line["time"], line["kind"]) for line in told["series"][0]["differences"]]
    changed = datetime(2024, 5, 11, 12, 34, tzinfo=UTC), datetime(2024, 5, 21, 1, 2, tzinfo=UTC)
    kinds = zip(changed, ("differing", "missing"), strict=True)
    assert times == [(int(time.timestamp() * 1000), kind) for time, kind in kinds]
    assert after == spoiled
    assert "1 candles replaced, 1 added, 0 deleted" in mended.stdout
    assert again.stdout == (f"compared {month}, equal {month}, differing 0, missing 0, extra 0\n")
    assert database.execute(_ALL).fetchall() == before
    revised = "SELECT time, stored IS NULL, found_by FROM revisions ORDER BY time"
    assert database.execute(revised).fetchall() == [
        (changed[0], False, "verify"),
        (changed[1], True, "verify"),
    ]


async def test_window_is_compared_and_nothing_else(
    verify: Command, month: int, database: psycopg.Connection, sandbox: Sandbox
) -> None:
    """Rows spoilt outside the window are not found; requests stay inside it."""
    del month
    database.execute(_CHANGE)
    sandbox.clear()
    found = await verify(*_SERIES, "--start", "2024-05-12", "--end", "2024-05-13")

    assert found.exit_code == 0
    assert found.stdout == "compared 1440, equal 1440, differing 0, missing 0, extra 0\n"
    assert len(sandbox.candle_requests()) <= 4


async def test_sample_compares_so_many_pages(verify: Command, month: int, sandbox: Sandbox) -> None:
    """Chosen among all that is stored."""
    sandbox.clear()
    done = await verify("binance", "perp", "BTC-*", "1m,1h", "--sample", "5", "--json")

    assert done.exit_code == 0
    assert len({request["params"]["startTime"] for request in sandbox.candle_requests()}) == 5
    assert 0 < json.loads(done.stdout)["compared"] <= 5 * 499 < month


async def test_silent_exchange_contradicts_nothing(
    verify: Command, month: int, database: psycopg.Connection, sandbox: Sandbox
) -> None:
    """Pages with an empty answer are not compared; --repair loses nothing of them."""
    sandbox.fault("empty_page", times=1000)
    done = await verify(*_SERIES, "--start", "2024-05-12", "--end", "2024-05-13", "--repair")

    assert done.exit_code == 1
    assert "the answer is empty" in done.stdout
    assert done.stdout.endswith("compared 0, equal 0, differing 0, missing 0, extra 0\n")
    assert len(database.execute(_ALL).fetchall()) == month


@pytest.mark.parametrize(
    "arguments",
    [
        ("binance", "perp", "NOPE-USDT", "1h"),
        ("binance", "perp", "BTC-USDT", "7h"),
        ("nowhere", "perp", "BTC-USDT", "1h"),
        ("binance", "spot", "BTC-USDT", "1h"),
        (*_SERIES, "--start", "2024-05-02", "--end", "2024-05-01"),
        ("hyperliquid", "perp", "BTC-USDC", "1m", "--start", "2023-05-01", "--end", "2023-05-02"),
    ],
)
async def test_bad_input_is_one_line(verify: Command, arguments: tuple[str, ...]) -> None:
    """An unknown name, a reversed window, and one that the exchange has forgotten."""
    refused = await verify(*arguments)
    told = [line for line in refused.stderr.splitlines() if "HTTP/1.1" not in line]

    assert (refused.exit_code, refused.stdout) == (2, "")
    assert len(told) == 1


async def test_history_that_began_too_late_begins_anew(
    verify: Command, month: int, services: Services, database: psycopg.Connection
) -> None:
    """A start that an earlier version believed: candles before it are fetched."""
    early = CandleQuery(*_SERIES, start=datetime(2023, 5, 1, tzinfo=UTC), limit=10)
    database.execute("UPDATE series SET history_begins = '2024-05-01Z'")
    done = await verify(*_SERIES, "--repair")
    begins = database.execute("SELECT history_begins < '2023-01-01Z' FROM series").fetchone()
    window = (await answer_to(services, early)).window

    assert month
    assert done.exit_code == 0
    assert begins == (True,)
    assert (window.start, window.end) == (early.start, datetime(2023, 5, 1, 0, 10, tzinfo=UTC))
