"""Candles that two wrong answers made a repair delete: doubted, and found again."""

import psycopg
import pytest
from support.clocks import advance
from support.sandbox import MINUTE_MS
from support.standing import BUSY, NOON_MS, Standing, minutes, open_times, standing

from mdp_core.domain.clock import from_ms
from mdp_core.domain.queries import CandleQuery
from mdp_core.service.mending import Mender, RepairReport
from mdp_core.service.repair import Repair
from mdp_core.service.stored_pages import PageComparer
from mdp_core.settings import Settings

_END = NOON_MS - 120 * MINUTE_MS
_WINDOW = {"start": _END - 14 * MINUTE_MS, "end": _END}
_DUE = "SELECT min(next_due_at) FROM absences"


@pytest.mark.parametrize("exchange", BUSY)
async def test_candles_that_two_short_answers_lack_are_doubted_and_come_back(
    settings: Settings, database: psycopg.Connection, exchange: str
) -> None:
    """Few enough to be deleted: unconfirmed, and stored again by the next recheck."""
    async with standing(settings) as stage:
        before = await stage.candles(exchange, **_WINDOW)
        stage.sandbox.fault("short_page", exchange=exchange, times=100)
        report = await _repair(stage, exchange)
        stage.sandbox.clear_faults()
        lost = await stage.candles(exchange, **_WINDOW)
        (due,) = database.execute(_DUE).fetchone() or (None,)
        assert due
        advance(stage.clock, (due - stage.clock()).total_seconds() + 0.01)
        found = await stage.recheck(exchange)
        healed = await stage.candles(exchange, **_WINDOW)

    middle = _WINDOW["start"] + 7 * MINUTE_MS
    assert report.deleted == 7
    assert open_times(lost) == minutes(_WINDOW["start"], middle)
    assert lost.json()["unconfirmed"] == [{"start": middle, "end": _END}]
    assert "ETag" not in lost.headers
    assert found == 7
    assert (healed.content, healed.json()["unconfirmed"]) == (before.content, [])


async def _repair(stage: Standing, exchange: str) -> RepairReport:
    services = stage.services
    comparer = PageComparer(services.store, services.resolver, services.markets)
    repair = Repair(comparer, Mender(services.store, pause_seconds=0))
    start, end = from_ms(_WINDOW["start"]), from_ms(_WINDOW["end"])
    return await repair.repair(CandleQuery(*BUSY[exchange].split("/"), start=start, end=end))
