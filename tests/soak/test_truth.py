"""Random requests through every fault, over real series: no 200 may lie.

`MDP_TRUTH_REQUESTS` is the number of requests in all, `MDP_TRUTH_SEED` chooses the same ones again,
`MDP_TRUTH_ROUND` runs one round of each series alone.
"""

import asyncio
import os
import random
from collections import Counter
from collections.abc import AsyncGenerator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any

import httpx
import psycopg
import pytest
import stamina
from pydantic import SecretStr
from support.clocks import advance, standing_clock
from support.http import connected
from support.places import DATA
from support.postgres import Server
from support.real_series import Question, RealSeries, Stored, false_facts, lies, real_series
from support.sandbox import Sandbox, running_sandbox
from support.services import app_of, opened_services, token_of

from mdp_core.domain.clock import Clock, from_ms, to_ms
from mdp_core.domain.queries import CandleQuery
from mdp_core.errors import MdpError
from mdp_core.exchanges.base import ExchangeAdapter
from mdp_core.service.mending import Mender
from mdp_core.service.repair import Repair
from mdp_core.service.stored_pages import PageComparer
from mdp_core.settings import Settings
from mdp_core.wiring import Services
from scripts.sandbox.app import SandboxOptions
from syncer.scheduled_jobs import rechecks_of, start_rechecks_of

pytestmark = [pytest.mark.soak, pytest.mark.timeout(7200)]

REQUESTS = int(os.environ.get("MDP_TRUTH_REQUESTS", "2400"))
SEED = os.environ.get("MDP_TRUTH_SEED") or str(random.SystemRandom().randrange(10**6))
ONLY_ROUND = os.environ.get("MDP_TRUTH_ROUND")
SERIES = real_series()
EACH_SERIES = [
    pytest.param(told, id=f"{told.exchange}-{told.native}-{told.interval}") for told in SERIES
]

Fault = Mapping[str, Any]

_MINUTE, _HOUR, _DAY = 60.0, 3600.0, 86_400.0
_STORED_ROWS = """
SELECT (extract(epoch FROM time) * 1000)::bigint, open, high, low, close, volume
FROM candles JOIN series ON series.id = series_id JOIN symbols ON symbols.id = symbol_id
WHERE native = %s AND interval = %s
"""
_SPANS = """
SELECT (extract(epoch FROM lower(span)) * 1000)::bigint,
       (extract(epoch FROM upper(span)) * 1000)::bigint
"""
_COVERAGE = f"""{_SPANS}
FROM series JOIN symbols ON symbols.id = symbol_id, unnest(coverage) span
WHERE native = %s AND interval = %s
"""
_ABSENCES = f"""{_SPANS}
FROM (SELECT series_id, slots AS span FROM absences) doubted
JOIN series ON series.id = series_id JOIN symbols ON symbols.id = symbol_id
WHERE native = %s AND interval = %s
"""  # noqa: S608 - of constants only
_NEXT_DUE = """
SELECT least((SELECT min(next_due_at) FROM absences), (SELECT min(history_recheck_at) FROM series
    WHERE history_checked_at > history_recheck_at - interval '25 days'))
"""
# Budgets and pauses in real time are tested elsewhere.
_NO_BUDGET = """
CREATE FUNCTION refill() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN NEW.tokens := 1e9; NEW.blocked_until := NULL; RETURN NEW; END $$;
CREATE TRIGGER refill BEFORE UPDATE ON rate_budgets FOR EACH ROW EXECUTE FUNCTION refill();
"""
_RESTED = "UPDATE rejected_rows SET last_seen = last_seen - interval '2 hours'"


# --- faults -------------------------------------------------------------------------------------


def _candle_faults() -> Iterator[Fault]:
    for name in (  # noqa: SIM905
        "server_error maintenance_html truncated_json null_body error_body redirect empty_page "
        "short_page duplicate_rows conflicting_rows out_of_order off_grid ohlc_violation "
        "late_candle wrong_window shifted_window"
    ).split():
        yield {"fault": name}
    yield from ({"fault": name, "retry_after": 0} for name in ("rate_limited", "banned"))
    yield from ({"fault": "wrong_unit", "unit": unit} for unit in ("s", "us", "ns"))
    yield from ({"fault": "null_field", "field": field} for field in ("close", "volume"))
    yield {"fault": "hang", "seconds": 1.7}


def _clock_faults() -> Iterator[Fault]:
    for name in ("clock_ahead", "clock_behind"):
        yield from ({"fault": name, "seconds": seconds} for seconds in (50, 115, 300, 2 * _DAY))
    yield {"fault": "clock_in_seconds"}
    # Of our own clock: nothing that the sandbox does.
    yield from ({"fault": "host", "seconds": by} for by in (-2 * _DAY, -100, 100, 400, 2 * _DAY))


def _list_faults() -> Iterator[Fault]:
    yield from ({"fault": name} for name in ("malformed_entry", "empty_list", "half_list"))
    yield {"fault": "server_error", "kind": "symbols"}
    yield {"fault": "truncated_json", "kind": "time"}


FAULTS = [*_candle_faults(), *_clock_faults(), *_list_faults()]
_TIMES = (1, 1, 2, 3, 5, 1000)


def _is_possible(pair: Sequence[Fault]) -> bool:
    """Tell whether one clock is right: two that agree on a wrong time are believed."""
    names = [fault["fault"] for fault in pair]
    is_told_wrong = any(name.startswith("clock") for name in names)
    is_told_wrong |= any(fault.get("kind") == "time" for fault in pair)
    return not ("host" in names and is_told_wrong)


# --- one series in one database -----------------------------------------------------------------


@dataclass
class World:
    """A sandbox, our clock, and what is opened on them for a round."""

    series: RealSeries
    sandbox: Sandbox
    theirs: Clock
    ours: Clock
    random: random.Random
    database: psycopg.Connection
    services: Services
    client: httpx.AsyncClient
    story: list[str] = field(default_factory=list)
    closed: int = 0
    statuses: Counter[str] = field(default_factory=Counter)
    kept: dict[str, httpx.Response] = field(default_factory=dict)
    asked: list[Mapping[str, Any]] = field(default_factory=list)

    def pass_time(self, seconds: float) -> None:
        """Move both clocks."""
        advance(self.theirs, seconds)
        advance(self.ours, seconds)
        self.story.append(f"{seconds:.0f} s pass; exchange {self.theirs():%F %T}")

    def set_host(self, seconds: float) -> None:
        """Let our clock be ahead of the exchange's."""
        object.__setattr__(self.ours, "shown", self.theirs.shown + timedelta(seconds=seconds))
        object.__setattr__(self.ours, "since", self.theirs.since)

    def order(self, fault: Fault) -> None:
        """Have a fault hit the next requests, or our clock."""
        times = self.random.choice(_TIMES)
        self.story.append(f"fault {dict(fault)} x {times}")
        if fault["fault"] == "host":
            self.set_host(fault["seconds"])
            return
        more = dict(fault)
        if more["fault"] == "late_candle":
            more |= self._late()
        elif more["fault"] == "malformed_entry":
            more |= {"symbol": self.series.native}
        elif self.random.random() < 0.4 and fault in list(_candle_faults()):
            more |= {"symbol": self.series.native, "interval": self.series.interval}
        self.sandbox.fault(more.pop("fault"), exchange=self.series.exchange, times=times, **more)

    def _late(self) -> dict[str, Any]:
        """Choose a candle that closes now: what is old is not late."""
        newest = (
            self.series.floor(to_ms(self.theirs())) - self.random.choice((0, 1)) * self.series.step
        )
        of = {"symbol": self.series.native, "interval": self.series.interval}
        return {"seconds": 1e6, "slot": newest, **of}

    def heal(self) -> None:
        """Let exchange and host be right again."""
        self.sandbox.clear_faults()
        self.set_host(0)
        self.database.execute(_RESTED)
        self.story.append("all is right again")

    async def ask(self, params: Mapping[str, Any]) -> httpx.Response:
        """Ask for candles; fail where a 200 lies."""
        asked = f"GET {self.series.path} {dict(params)}"
        known = self.kept.get(str(params))
        headers = {"If-None-Match": known.headers["ETag"]} if known else {}
        answer = await self.client.get(self.series.path, params=dict(params), headers=headers)
        if answer.status_code == 304 and known:
            self.statuses["304"] += 1
            self.story.append(f"{asked} -> 304")
            answer = known
        code = "" if answer.status_code == 200 else answer.json()["code"]
        self.statuses[f"{answer.status_code} {code}"] += 1
        self.story.append(f"{asked} -> {answer.status_code} {code}")
        assert answer.status_code != 500, self.tell(answer.text)
        if answer.status_code == 200:
            found = lies(self.series, Question(params, self.now_closed()), answer.json())
            assert not found, self.tell(*found, f"{dict(list(answer.json().items())[:-1])}"[:600])
            if "ETag" in answer.headers:
                assert not answer.json()["unconfirmed"], self.tell("an ETag in spite of doubt")
                self.kept[str(params)] = answer
        return answer

    def now_closed(self) -> int:
        """Return up to when candles are closed by the clocks that are right."""
        earlier = min(self.theirs(), self.ours())
        self.closed = max(self.closed, self.series.floor(to_ms(earlier)))
        return self.closed

    def stored(self) -> Stored:
        """Read everything that the store holds of the series."""
        words = [self.series.native, self.series.interval]
        rows = self.database.execute(_STORED_ROWS, words).fetchall()
        spans = [self.database.execute(q, words).fetchall() for q in (_COVERAGE, _ABSENCES)]
        return Stored({int(row[0]): tuple(row[1:]) for row in rows}, *spans)

    def check_store(self) -> None:
        """Fail where a stored fact is false."""
        found = false_facts(self.series, self.stored(), self.now_closed())
        assert not found, self.tell(*found)

    async def recheck(self) -> None:
        """Do what the syncer does on schedule; the exchange may be away."""
        (adapter,) = self.services.resolver.directory.markets(self.series.exchange, None)
        jobs = (rechecks_of(self.services, adapter), start_rechecks_of(self.services, adapter))
        for job in jobs:
            result = await job.run()
            self.story.append(f"{type(job).__name__}: {result.rows} rows, {result.error}")
        if self.random.random() < 0.3:
            await self._refresh_symbols(adapter)

    async def _refresh_symbols(self, adapter: ExchangeAdapter) -> None:
        try:
            await self.services.resolver.directory.refresh(adapter)
        except MdpError as error:
            self.story.append(f"symbols: {error}")
        else:
            self.story.append("symbols refreshed")

    async def repair(self) -> None:
        """Repair a random window; what the exchange really has must survive it."""
        words = self.series.path.split("/")[2:]
        params = _window(self)
        bounds = [None if params.get(k) is None else from_ms(params[k]) for k in ("start", "end")]
        query = CandleQuery(*words, start=bounds[0], end=bounds[1])
        mender = Mender(self.services.store, pause_seconds=0.0)
        comparer = PageComparer(self.services.store, self.services.resolver, self.services.markets)
        try:
            report = await Repair(comparer, mender).repair(query)
        except MdpError as error:
            self.story.append(f"repair {params}: {error}")
        else:
            self.story.append(f"repair {params}: {report}"[:300])

    def due_in(self) -> float | None:
        """Return in how many seconds something is due next."""
        (due,) = self.database.execute(_NEXT_DUE).fetchone() or (None,)
        return None if due is None else (due - self.ours()).total_seconds()

    def tell(self, *found: str) -> str:
        """Say what was found, and everything that led to it."""
        return "\n".join(["", f"MDP_TRUTH_SEED={SEED}", *found, "after:", *self.story])


def _params(world: World) -> Mapping[str, Any]:
    """Choose the parameters of a request: new ones, or those of one before."""
    if world.asked and world.random.random() < 0.4:
        return world.random.choice(world.asked)
    world.asked.append(_window(world))
    return world.asked[-1]


def _window(world: World) -> dict[str, Any]:
    """Choose the parameters of a request, mostly near now."""
    chance, series = world.random, world.series
    now = series.floor(to_ms(world.theirs()))
    widths = (1, 2, 3, 7, 20, 61, 200, 499, 700, 1500)
    width = chance.choice(widths) * series.step
    back = chance.choice((0, 0, 1, 3, 10, 40, 200, 900, 3000)) * series.step
    end = max(now - back, series.step) + chance.choice((0, 0, 0, series.step // 2, 5 * series.step))
    shape = chance.randrange(6)
    params: dict[str, Any] = {"start": max(end - width, 0), "end": end}
    if shape == 0:
        params = {"limit": chance.choice((1, 2, 5, 30, 100, 500))}
    elif shape == 1:
        params = {"end": end, "limit": chance.choice((1, 2, 5, 30, 400))}
    elif shape == 2:
        params = {"start": params["start"], "limit": chance.choice((1, 2, 5, 30, 400))}
    if chance.random() < 0.2:
        params["partial"] = "true"
    if chance.random() < 0.15:
        params["settled"] = "true"
    return params


@asynccontextmanager
async def _opened(
    server: Server, series: RealSeries, sandbox: Sandbox, theirs: Clock, chance: random.Random
) -> AsyncGenerator[World]:
    """Open a new database, and the services on it."""
    ours = replace(theirs)
    with server.clone() as url, psycopg.connect(url, autocommit=True) as database:
        database.execute(_NO_BUDGET)
        settings = Settings(
            database_url=url,
            jwt_secret=SecretStr("0123456789abcdefghijklmnopqrstuv!?"),
            clock=ours,
            second_look_seconds=0.0,
            attempt_timeout_seconds=1.5,
            fetch_deadline_seconds=10.0,
        )
        world = World(series, sandbox, theirs, ours, chance, database, None, None)  # pyright: ignore[reportArgumentType]
        async with _reopened(world, settings):
            yield world
        world.heal()
        async with _reopened(world, settings):  # as a new process, without provisional candles
            await _ends_true(world)


@asynccontextmanager
async def _reopened(world: World, settings: Settings) -> AsyncGenerator[None]:
    async with (
        opened_services(settings, world.sandbox) as services,
        connected(app_of(services), token_of(settings)) as client,
    ):
        world.services, world.client = services, client
        yield


async def _trouble(world: World, faults: Sequence[Fault], requests: int) -> None:
    """Ask while the faults come, for less time than an absence is doubted."""
    left = 500.0 if world.series.exchange == "coinbase" else 0.9 * _DAY
    if any(fault["fault"] == "late_candle" for fault in faults) and left < _HOUR:
        left = 200.0  # of the grace within which a candle may be late
    for _ in range(requests):
        if world.random.random() < 0.6:
            world.sandbox.clear_faults()
            for fault in faults:
                world.order(fault)
        together = world.random.choice((1, 1, 1, 2, 3))
        await asyncio.gather(*(world.ask(_params(world)) for _ in range(together)))
        world.check_store()
        step = min(world.random.choice((1.5, 3, 31, 61, 130, 700, _HOUR, 7 * _HOUR)), left)
        if step >= 1.5:
            left -= step
            world.pass_time(step)
        if world.random.random() < 0.5:
            await world.recheck()
            world.check_store()
        if world.random.random() < 0.15:
            await world.repair()
            world.check_store()


async def _ends_true(world: World) -> None:
    """Recheck what is due until nothing is in doubt, then compare everything."""
    series = world.series
    world.pass_time(1.5)
    for turn in range(60):
        due = world.due_in()
        if due is None:
            break
        world.pass_time(max(due + 1, 0 if turn < 15 else 200 * series.step / 1000))
        world.database.execute(_RESTED)
        await world.recheck()
        world.check_store()
    assert world.due_in() is None, world.tell("something stays in doubt")
    world.pass_time(_HOUR)
    start = series.first
    end = min(series.last + series.step, world.now_closed() - 20 * series.step)
    while start < end:
        answer = await world.ask({"start": start, "end": min(end, start + 5000 * series.step)})
        if answer.json().get("code") == "history_unavailable":
            start = min(answer.json()["earliest"], end)
            continue
        assert answer.status_code == 200, world.tell(answer.text)
        body = answer.json()
        given = [row[0] for row in body["candles"]]
        missed = sorted(set(series.inside(start, body["end"])) - set(given))
        assert not missed, world.tell(f"at the end {len(missed)} lack: {missed[:3]}")
        assert not body["unconfirmed"] or not missed, world.tell("in doubt at the end")
        start = body["end"]
    world.check_store()


# --- the trial ----------------------------------------------------------------------------------


def _rounds(chance: random.Random) -> Iterator[list[Fault]]:
    """Yield each fault alone, then random pairs, for ever."""
    alone = FAULTS.copy()
    chance.shuffle(alone)
    yield from ([fault] for fault in alone)
    while True:
        pair = chance.sample(FAULTS, 2)
        if _is_possible(pair):
            yield pair


@pytest.fixture(autouse=True)
def _prompt() -> Iterator[None]:
    """Let no time pass between attempts."""
    with stamina.set_testing(True, attempts=3, cap=True):
        yield


@pytest.mark.skipif(not DATA.is_dir(), reason=f"{DATA} is not there")
@pytest.mark.parametrize("series", EACH_SERIES)
async def test_no_answer_lies_under_any_fault(series: RealSeries, server: Server) -> None:
    """Every 200 is true or says what it doubts; at the end everything is true."""
    print(f"MDP_TRUTH_SEED={SEED}")  # noqa: T201 - to repeat it
    theirs = standing_clock(from_ms(series.last))
    asked, statuses = 0, Counter[str]()
    with running_sandbox(SandboxOptions(clock=theirs, data=DATA, limits=False)) as sandbox:
        rounds = _rounds(random.Random(f"{SEED} {series.path}"))  # noqa: S311 - no secret
        for number, faults in enumerate(rounds):
            if asked >= REQUESTS / len(SERIES):
                break
            chance = random.Random(f"{SEED} {series.path} {number}")  # noqa: S311 - no secret
            if ONLY_ROUND not in {None, str(number)}:
                asked += 6
                continue
            _set(theirs, _some_time(series, chance))
            sandbox.reset()
            async with _opened(server, series, sandbox, theirs, chance) as world:
                world.story.append(
                    f"round {number}: {[dict(it) for it in faults]}, exchange {theirs():%F %T}"
                )
                await _trouble(world, faults, 6)
            asked += sum(world.statuses.values())
            statuses += world.statuses
            hits = (entry["fault"] for entry in sandbox.requests())
            statuses.update(f"hit by {name}" for name in hits if name)
    print(f"{series.path}: {asked} requests, {dict(statuses)}")  # noqa: T201 - its figures


def _set(clock: Clock, shown: datetime) -> None:
    object.__setattr__(clock, "shown", shown)


def _some_time(series: RealSeries, chance: random.Random) -> datetime:
    """Choose a time inside the file, late in it."""
    slots = list(series.rows)
    slot = slots[chance.randrange(len(slots) // 3, len(slots))]
    return from_ms(slot + chance.randrange(series.step))
