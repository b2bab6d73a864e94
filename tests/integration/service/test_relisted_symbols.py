"""Symbols listed again: silence after their history end proves nothing any more."""

import psycopg
import pytest
from support.sandbox import MINUTE_MS
from support.standing import BUSY, NATIVE, NOON_MS, minutes, open_times, standing
from support.waiting import eventually

from mdp_core.domain.clock import from_ms
from mdp_core.settings import Settings

_END = NOON_MS - 30 * MINUTE_MS
_SILENT = _END + 5 * MINUTE_MS
_WINDOW = {"start": _END - 10 * MINUTE_MS, "end": _END + 10 * MINUTE_MS}
_DELIST = """
UPDATE symbols SET active = false, history_ends = %s, history_ends_source = 'a test',
    history_ends_checked_at = %s
WHERE native = %s AND exchange = %s
"""
_DOUBTS = "SELECT FROM absences"
_ENDS = "SELECT history_ends, active FROM symbols WHERE native = %s AND exchange = %s"


@pytest.mark.parametrize("exchange", BUSY)
async def test_absences_after_the_end_of_a_symbol_are_unconfirmed_once_it_is_listed_again(
    settings: Settings, database: psycopg.Connection, exchange: str
) -> None:
    """Facts while it was inactive; asked again then, and found. Candles stay facts."""
    name = [NATIVE[exchange], exchange]
    async with standing(settings) as stage:
        directory, adapter = stage.services.resolver.directory, stage.adapter(exchange)
        await directory.refresh(adapter)
        checked = from_ms(NOON_MS - 5 * MINUTE_MS)
        database.execute(_DELIST, [from_ms(_END), checked, *name])
        stage.sandbox.fault("late_candle", exchange=exchange, slot=_SILENT, seconds=3600)
        inactive = await stage.candles(exchange, **_WINDOW)
        stage.sandbox.clear_faults()
        for _ in range(2):  # the second time there is nothing to do
            await directory.refresh(adapter)
        relisted = await stage.candles(exchange, **_WINDOW)
        await eventually(lambda: not database.execute(_DOUBTS).fetchall())  # it was due
        healed = await stage.candles(exchange, **_WINDOW)

    every_minute = minutes(_WINDOW["start"], _WINDOW["end"])
    assert open_times(inactive) == [time for time in every_minute if time != _SILENT]
    assert inactive.json()["unconfirmed"] == []
    assert "ETag" in inactive.headers
    assert relisted.json()["unconfirmed"] == [{"start": _SILENT, "end": _SILENT + MINUTE_MS}]
    assert "ETag" not in relisted.headers
    assert open_times(healed) == every_minute
    assert healed.headers["ETag"] != inactive.headers["ETag"]
    assert database.execute(_ENDS, name).fetchall() == [(None, True)]
