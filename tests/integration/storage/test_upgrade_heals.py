"""False facts of version 0.1, healed by the commands of the changelog."""

import asyncio
import re
from datetime import UTC, datetime
from typing import Any

import httpx
import psycopg
import pytest
from support.command_line import mdp
from support.migrations import downgrade
from support.places import PROJECT
from support.processes import environment_of
from support.sandbox import MINUTE_MS, Sandbox
from support.services import serving

from db.upgrade import upgrade
from mdp_core.domain.clock import from_ms, to_ms
from mdp_core.settings import Settings

HOUR_MS = 60 * MINUTE_MS
_FIRST_VERSION = "0003"
_SERIES = {
    "binance": ("binance", "perp", "BTC-USDT", "1h"),
    "hyperliquid": ("hyperliquid", "perp", "BTC-USDC", "1h"),
    "coinbase": ("coinbase", "spot", "WAXL-USD", "1h"),
}
_FALSE_FACTS = """
-- Coverage of the future, and the forming candle taken for final.
UPDATE series SET coverage = coverage + tstzmultirange(tstzrange(:now, :now + interval '4 hours'));
INSERT INTO candles SELECT id, :now, 2, 3, 1, 2, 5, 10, 7 FROM series;
-- Hours called empty, a wrong value, a half-formed candle, one that never was.
DELETE FROM candles WHERE time >= :hole AND time < :hole + interval '3 hours';
UPDATE candles SET high = high * 2, volume = 1 WHERE time = :wrong;
UPDATE candles SET close = open, high = open, low = open WHERE time = :half;
INSERT INTO candles SELECT id, :extra, 2, 3, 1, 2, 5, 10, 7 FROM series ON CONFLICT DO NOTHING;
"""
# A history start after stored candles, which hides what lies before it.
_LATE_START = """
UPDATE series SET history_begins = :begins, history_source = coalesce(history_source, 'bisection')
"""
_LAST = "SELECT extract(epoch FROM max(upper(coverage))) <= extract(epoch FROM now()) FROM series"


@pytest.mark.parametrize("exchange", _SERIES)
@pytest.mark.parametrize("tool", ["verify", "repair"])
async def test_false_facts_of_the_first_version_are_healed(
    exchange: str, tool: str, settings: Settings, sandbox: Sandbox, database: psycopg.Connection
) -> None:
    """After the upgrade and the command every answer equals the exchange again."""
    hour = datetime.now(UTC).replace(minute=0, second=0, microsecond=0)
    path = f"/candles/{'/'.join(_SERIES[exchange])}"
    window = {"start": to_ms(hour) - 480 * HOUR_MS, "end": to_ms(hour) - 2 * HOUR_MS}
    async with serving(settings, sandbox) as client:
        truth = await _candles(client, path, window)
    downgrade(settings.database_url, _FIRST_VERSION)
    _lie(database, truth, hour)
    upgrade(settings.database_url)
    command = {
        "verify": ["verify", exchange, _SERIES[exchange][1], "*", "1h", "--repair"],
        "repair": ["repair", *_SERIES[exchange]],
    }[tool]
    done = await asyncio.to_thread(mdp, command, environment_of(settings, sandbox))
    async with serving(settings, sandbox) as client:
        healed = await _candles(client, path, window)
        newest = (await client.get(path, params={"limit": 5})).json()

    assert done.exit_code == 0, done.output
    assert healed == truth
    assert newest["end"] <= to_ms(datetime.now(UTC))
    assert all(row[0] < newest["end"] for row in newest["candles"])
    assert database.execute(_LAST).fetchone() == (True,)


def test_changelog_says_which_commands_follow_the_upgrade() -> None:
    """Both of those that are tried here."""
    changelog = re.sub(r"\s+", " ", (PROJECT / "CHANGELOG.md").read_text())
    note = changelog[changelog.index("**After the upgrade**") :][:500]
    assert "mdp verify EXCHANGE MARKET '*' INTERVALS --repair" in note
    assert "mdp repair" in note


def _lie(database: psycopg.Connection, truth: list[Any], hour: datetime) -> None:
    """Store each kind of false fact by SQL."""
    times = [row[0] for row in truth]
    absent = sorted(set(range(times[0], times[-1], HOUR_MS)) - set(times))
    facts = {
        "now": hour,
        "hole": from_ms(times[0]),
        "wrong": from_ms(times[30]),
        "half": from_ms(times[40]),
        "extra": from_ms(absent[9] if absent else times[25]),
        "begins": from_ms(times[50]),
    }
    statements = _FALSE_FACTS + _LATE_START
    for name, time in facts.items():
        statements = statements.replace(f":{name}", f"'{time.isoformat()}'::timestamptz")
    database.execute(statements.encode())


async def _candles(client: httpx.AsyncClient, path: str, window: dict[str, int]) -> list[Any]:
    answer = await client.get(path, params=window)
    assert answer.status_code == 200, answer.text
    body = answer.json()
    assert (body["complete"], body["next"]) == (True, None)
    return body["candles"]
