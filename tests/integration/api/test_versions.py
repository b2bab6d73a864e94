"""Versions of windows: a change shows in the answers that hold it, in no other."""

import itertools
import re
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

import httpx
import numpy as np
import psycopg
import pytest
from support.asking import answer_to
from support.sandbox import Sandbox
from support.services import opened_services
from support.stored_candles import PLAIN

from db.upgrade import upgrade
from mdp_core.domain.queries import CandleQuery
from mdp_core.domain.windows import Window
from mdp_core.service.mending import Mender
from mdp_core.service.repair import Repair
from mdp_core.service.stored_pages import PageComparer
from mdp_core.settings import Settings
from mdp_core.storage.candles.corrections import record_changes
from mdp_core.wiring import Services

_PATH = "/candles/binance/perp/BTC-USDT/1h"
_APRIL = {"start": "2024-04-01", "end": "2024-05-01"}
_MAY = {"start": "2024-05-01", "end": "2024-06-01"}
_QUERY = CandleQuery("binance", "perp", "BTC-USDT", "1h")
_DIFFER = "UPDATE candles SET close = high WHERE time = '2024-05-15 05:00Z'"
_START = datetime(2024, 5, 1, tzinfo=UTC)
_HOUR = timedelta(hours=1)


@pytest.fixture
def repair(services: Services) -> Repair:
    """A repair that does not wait between two observations."""
    comparer = PageComparer(services.store, services.resolver, services.markets)
    return Repair(comparer, Mender(services.store, pause_seconds=0))


async def _get(client: httpx.AsyncClient, window: dict[str, str]) -> httpx.Response:
    answer = await client.get(_PATH, params=window, headers=PLAIN)
    assert answer.status_code == 200
    return answer


def _version(answer: httpx.Response) -> list[int]:
    return [int(part) for part in answer.headers["X-Version"].split(".")]


async def test_version_is_told_by_get_and_head(
    client: httpx.AsyncClient, database: psycopg.Connection
) -> None:
    """Store, series, version and epoch; 0 while nothing has changed."""
    got = await _get(client, _MAY)
    head = await client.head(_PATH, params=_MAY, headers=PLAIN)
    row = database.execute("SELECT store.id, series.id FROM store, series").fetchone()

    assert row
    assert got.headers["X-Version"] == head.headers["X-Version"] == f"{row[0]}.{row[1]}.0.0"
    assert head.content == b""


async def test_change_leaves_other_windows_alone(
    client: httpx.AsyncClient, repair: Repair, database: psycopg.Connection
) -> None:
    """The window of the candle gets a new tag; another month's tag and rows stay good."""
    april, may = await _get(client, _APRIL), await _get(client, _MAY)
    database.execute(_DIFFER)
    await repair.repair(_QUERY)
    new_may = await _get(client, _MAY)
    both = await _get(client, {"start": "2024-04-20", "end": "2024-05-20"})
    database.execute("DELETE FROM candles WHERE time < '2024-05-01Z'")  # rows come from memory
    new_april = await _get(client, _APRIL)

    assert new_may.content == may.content
    assert new_may.headers["ETag"] != may.headers["ETag"]
    assert _version(new_may)[2:] == _version(both)[2:] == [1, 1]
    assert new_april.content == april.content
    assert new_april.headers["ETag"] == april.headers["ETag"]
    assert _version(april)[2:] == [0, 0]
    assert _version(new_april)[2:] == [0, 1]


async def test_wrong_rows_in_memory_are_not_answered_after_a_change(
    client: httpx.AsyncClient, repair: Repair, database: psycopg.Connection
) -> None:
    """They were read before it: the key of the new version finds none."""
    right = await _get(client, _MAY)
    database.execute(_DIFFER)
    database.execute("UPDATE store SET id = id + 1")  # so that the wrong row is read
    wrong = await _get(client, _MAY)
    await repair.repair(_QUERY)
    mended = await _get(client, _MAY)

    assert wrong.content != right.content
    assert mended.content == right.content
    assert len({answer.headers["ETag"] for answer in (right, wrong, mended)}) == 3


async def test_restored_store_brings_no_old_version_back(
    client: httpx.AsyncClient, settings: Settings
) -> None:
    """Epochs count on from the backup: the number of the store tells both times apart."""
    before = await _get(client, _MAY)
    upgrade(settings.database_url, is_restored=True)
    after = await _get(client, _MAY)

    assert after.content == before.content
    assert after.headers["ETag"] != before.headers["ETag"]
    assert _version(after)[0] != _version(before)[0]
    assert _version(after)[1:] == _version(before)[1:]


async def test_change_before_the_history_shows(
    client: httpx.AsyncClient, database: psycopg.Connection
) -> None:
    """A window that begins before it: another start may have been believed once."""
    early = {"start": "2000-01-01", "end": "2020-01-01"}
    before = await _get(client, early)
    database.execute("UPDATE series SET epoch = epoch + 1")
    database.execute(
        "INSERT INTO changes SELECT id, '[2001-01-01Z, 2001-01-02Z)', epoch FROM series"
    )
    after = await _get(client, early)

    assert _version(before)[2:] == [0, 0]
    assert _version(after)[2:] == [1, 1]


async def test_changes_of_neighbours_merge(
    settings: Settings, sandbox: Sandbox, database: psycopg.Connection
) -> None:
    """Rows never touch; each slot has its last change's epoch or later, or no row."""
    random = np.random.default_rng(15)
    last = np.zeros(60, np.int64)
    async with opened_services(settings, sandbox) as services:
        series = (await answer_to(services, CandleQuery(*_names(), limit=1))).series
        for epoch in range(1, 41):
            slots = np.sort(random.choice(59, size=random.integers(1, 4), replace=False))
            windows = _windows([slot for slot in slots.tolist() if slot % 4])
            if not windows:
                windows = _windows([1])
                slots = np.array([1])
            async with services.database.transaction() as connection:
                await record_changes(connection, series.id, windows)
            last[[slot for slot in slots.tolist() if slot % 4]] = epoch
            rows = database.execute(
                "SELECT lower(slots), upper(slots), epoch FROM changes ORDER BY slots"
            ).fetchall()
            assert all(one[1] < other[0] for one, other in itertools.pairwise(rows))
            told = np.zeros(60, np.int64)
            for start, end, since in rows:
                told[(start - _START) // _HOUR : (end - _START) // _HOUR] = since
            assert (told >= last).all()
            assert ((told > 0) == (last > 0)).all()
            assert told.max() == epoch


def _names() -> Sequence[str]:
    return re.findall(r"[^/]+", _PATH)[1:]


def _windows(slots: Sequence[int]) -> list[Window]:
    return [Window(_START + slot * _HOUR, _START + (slot + 1) * _HOUR) for slot in slots]
