"""The scan against sets of slots: stored, provisional, absent and missing ones."""

import random
from dataclasses import dataclass, replace
from datetime import timedelta

import psycopg
import pytest
from support.asking import answer_to
from support.sandbox import Sandbox
from support.strategies import candles_of, window_of

from mdp_core.domain.candles import COLUMNS, Candles
from mdp_core.domain.clock import to_ms
from mdp_core.domain.queries import Bounds, CandleQuery
from mdp_core.domain.series import Series
from mdp_core.domain.watermarks import Watermarks
from mdp_core.domain.windows import Window
from mdp_core.fill.provisional import ProvisionalCache
from mdp_core.ratelimit.context import RequestContext
from mdp_core.service.scan import RowScan
from mdp_core.service.scan_request import ScanRequest
from mdp_core.storage.candles.candle_reader import CandleReader
from mdp_core.wiring import Services

pytestmark = pytest.mark.every_kind_of_database

_SLOTS = 48
_QUERY = CandleQuery("binance", "perp", "BTC-USDT", "1m", limit=1)


@dataclass(frozen=True)
class _Scene:
    """The state of each slot: known or not, traded or not, stored or provisional."""

    first: int
    known: list[bool]
    traded: list[bool]
    provisional: list[bool]

    @classmethod
    def drawn(cls, draw: random.Random, first: int) -> "_Scene":
        known, provisional = list[bool](), list[bool]()
        while len(known) < _SLOTS:
            run, kind = draw.randint(1, 16), draw.choice("kkkkpu")
            known += [kind != "u"] * run
            provisional += [kind == "p"] * run
        often = draw.choice([0.1, 0.5, 0.9, 1.0])
        traded = [draw.random() < often for _ in range(_SLOTS)]
        return cls(first, known[:_SLOTS], traded, provisional[:_SLOTS])

    def runs(self, *, provisional: bool) -> list[tuple[int, int]]:
        """Give the runs of known slots that are provisional, or stored."""
        wanted = [k and p == provisional for k, p in zip(self.known, self.provisional, strict=True)]
        edges = [
            n for n in range(_SLOTS + 1) if (n < _SLOTS and wanted[n]) != (n > 0 and wanted[n - 1])
        ]
        pairs = zip(edges[::2], edges[1::2], strict=True)
        return [(self.first + start, self.first + stop) for start, stop in pairs]

    def expected(self, asked: range, rows: int, *, from_end: bool) -> list[int] | None:
        """Give the slots of the answer's rows; None: a slot that it needs is not known."""
        found = list[int]()
        for slot in reversed(asked) if from_end else asked:
            if len(found) == rows:
                break
            if not self.known[slot - self.first]:
                return None
            found += [slot] * self.traded[slot - self.first]
        return sorted(found)


class _Store:
    """A series that shows one scene after the other."""

    def __init__(self, services: Services, series: Series, database: psycopg.Connection) -> None:
        self._services = services
        self._database = database
        self.series = series
        self.market = services.markets["binance", "perp"]

    def candles(self, scene: _Scene, run: tuple[int, int]) -> Candles:
        slots = [slot for slot in range(*run) if scene.traded[slot - scene.first]]
        times = [to_ms(self.series.grid.at(slot)) for slot in slots]
        return candles_of([(ms, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0) for ms in times])

    async def show(self, scene: _Scene) -> None:
        """Make the store and the provisional ranges hold a scene, and nothing else."""
        self._database.execute("DELETE FROM candles WHERE series_id = %s", [self.series.id])
        self._database.execute("UPDATE series SET coverage = '{}' WHERE id = %s", [self.series.id])
        grid, ranges = self.series.grid, ProvisionalCache(60)
        stored = scene.runs(provisional=False)
        rows = Candles.concatenate([self.candles(scene, run) for run in stored])
        windows = [window_of(grid, *run) for run in stored]
        await self._services.store.save(self.series.id, windows, rows)
        for number, run in enumerate(scene.runs(provisional=True)):
            window = window_of(grid, *run)
            ranges.keep(self.series, number, window, self.candles(scene, run), at_edge=False)
        self.market = replace(self.market, ranges=ranges)

    async def look_up(
        self, scene: _Scene, asked: range, rows: int, *, from_end: bool
    ) -> list[int] | None:
        """Give the slots of the rows that the lookup finds."""
        grid, reader = self.series.grid, CandleReader(self._services.servers)
        first, stop = grid.at(scene.first), grid.at(scene.first + _SLOTS)
        window = window_of(grid, asked.start, asked.stop)
        request = ScanRequest(self.series, window, rows, 100, from_end, partial=False)
        watermarks = Watermarks(first, first, stop, stop, stop)
        scan = RowScan(reader, self.market, watermarks, request, RequestContext())
        if (found := await scan.look_up()) is None:
            return None
        block = await reader.read(self.series.id, found.stored, COLUMNS, epoch=found.versions.epoch)
        times = Candles.concatenate([block.candles, found.edge]).time
        assert all(to_ms(found.window.start) <= ms < to_ms(found.window.end) for ms in times)
        return grid.indices(times).tolist()


@pytest.mark.parametrize("seed", range(4))
async def test_lookup_agrees_with_sets_of_slots(
    services: Services, database: psycopg.Connection, seed: int
) -> None:
    """It answers exactly where every slot that it needs is known, with those rows."""
    draw = random.Random(seed)  # noqa: S311 - no secret
    answer = await answer_to(services, _QUERY)
    store = _Store(services, answer.series, database)
    first = answer.series.grid.index(answer.window.start) - 10_000
    outcomes = set[bool]()
    for _ in range(40):
        scene = _Scene.drawn(draw, first)
        await store.show(scene)
        for from_end in (False, True):
            start = draw.randint(0, _SLOTS - 1)
            asked = range(first + start, first + draw.randint(start + 1, _SLOTS))
            rows = draw.randint(3, _SLOTS + 2)
            found = await store.look_up(scene, asked, rows, from_end=from_end)

            assert found == scene.expected(asked, rows, from_end=from_end), (scene, asked, rows)
            outcomes.add(found is None)

    assert outcomes == {False, True}


def _punched(draw: random.Random, window: Window) -> list[Window]:
    """Draw some holes in a window of minutes."""
    holes = list[Window]()
    minutes = int((window.end - window.start) / timedelta(minutes=1))
    for _ in range(draw.randint(1, 4)):
        start = window.start + timedelta(minutes=draw.randrange(minutes))
        end = min(start + timedelta(minutes=draw.randint(1, 900)), window.end)
        holes.append(Window(start, end))
    return holes


async def test_scan_fills_holes_and_finds_the_same_rows(
    services: Services, sandbox: Sandbox, database: psycopg.Connection
) -> None:
    """Wherever coverage has holes, a limit gives the rows that it gives without any."""
    draw = random.Random(7)  # noqa: S311 - no secret
    end = (await answer_to(services, _QUERY)).window.start - timedelta(days=30)
    window = Window(end - timedelta(minutes=3000), end)
    whole = await answer_to(
        services, replace(_QUERY, start=window.start, end=window.end, limit=None)
    )
    times = (await services.candles.read(whole, whole.stored, COLUMNS)).candles.time
    series_id, asked = whole.series.id, list[int]()
    for number in range(12):
        for hole in _punched(draw, window):
            bounds = (series_id, hole.start, hole.end)
            database.execute(
                "DELETE FROM candles WHERE series_id = %s AND time >= %s AND time < %s", bounds
            )
            database.execute(
                "UPDATE series SET coverage = coverage - tstzmultirange(tstzrange(%s, %s))"
                " WHERE id = %s",
                (hole.start, hole.end, series_id),
            )
        rows, from_end = draw.randint(1, 2500), number % 2 == 1
        start = None if from_end else window.start
        before = len(sandbox.requests())
        bounds = Bounds(start=start, end=window.end, limit=rows)
        answer = await services.candles.get(whole.series, bounds, services.candles.interactive())
        found = (await services.candles.read(answer, answer.stored, COLUMNS)).candles.time
        asked.append(len(sandbox.requests()) - before)

        assert found.tolist() == (times[-rows:] if from_end else times[:rows]).tolist()
    assert max(asked) <= 8  # pages of 499 rows that hold a hole
    assert sum(asked) > 0
