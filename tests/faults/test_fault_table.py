"""Each fault on each exchange: the answer, the store, and the request after it.

The outcome must not depend on the exchange; it is the table in `docs/faults.md`.
"""

import asyncio
import re
from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import psycopg
import pytest
import stamina
from support.places import PROJECT
from support.sandbox import MINUTE_MS, Sandbox
from support.services import serving

from mdp_core.domain.clock import from_ms, to_ms
from mdp_core.settings import Settings

DOCUMENTED = PROJECT / "docs" / "faults.md"
ATTEMPTS = 4
INTERVALS = {
    name: minutes * MINUTE_MS for name, minutes in (("1m", 1), ("5m", 5), ("15m", 15), ("1h", 60))
}

Row = list[float]

_STORED = """
SELECT (extract(epoch FROM time) * 1000)::bigint, open, high, low, close, volume
FROM candles JOIN series ON series.id = series_id
WHERE interval = %s AND time >= to_timestamp(%s) AND time < to_timestamp(%s) ORDER BY time
"""
_UNCOVERED = """
SELECT (extract(epoch FROM lower(span)) * 1000)::bigint,
       (extract(epoch FROM upper(span)) * 1000)::bigint
FROM series, unnest(
    tstzmultirange(tstzrange(to_timestamp(%s), to_timestamp(%s))) - coverage
) span
WHERE interval = %s
"""
_OUTSIDE_COVERAGE = """
SELECT count(*) FROM candles JOIN series ON series.id = series_id WHERE NOT coverage @> time
"""
_REJECTED = """
SELECT (extract(epoch FROM slot) * 1000)::bigint FROM rejected_rows
JOIN series ON series.id = series_id WHERE interval = %s AND slot >= to_timestamp(%s)
AND slot < to_timestamp(%s)
"""
# Budgets are tested elsewhere, and Hyperliquid's would have this take minutes.
_NO_BUDGET = """
CREATE FUNCTION refill() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN NEW.tokens := 1e9; RETURN NEW; END $$;
CREATE TRIGGER refill BEFORE UPDATE ON rate_budgets FOR EACH ROW EXECUTE FUNCTION refill();
"""
# As if the time had passed for which an exchange has us wait.
_UNBLOCK = "UPDATE rate_budgets SET blocked_until = NULL"


# --- the exchanges ------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Asked:
    """A page of a series: whole, on the grid that pages lie on, and final."""

    interval: str
    start: int
    end: int

    @property
    def step(self) -> int:
        return INTERVALS[self.interval]

    @property
    def window(self) -> dict[str, int]:
        return {"start": self.start, "end": self.end}

    @property
    def seconds(self) -> tuple[float, float]:
        return self.start / 1000, self.end / 1000


@dataclass(frozen=True, slots=True)
class Exchange:
    """The requests for one exchange, through us and directly."""

    name: str
    path: str
    page_slots: int
    selector: Callable[[Asked], Mapping[str, object]]
    """Of a fault: hits the request for exactly that page."""
    truth: Callable[[Sandbox, Asked], list[Row]]
    """Asks the exchange itself."""

    def page(self, number: int, now_ms: int) -> Asked:
        """Give a page; those of different numbers are different. All are remembered."""
        interval = list(INTERVALS)[number % len(INTERVALS)]
        page_ms = INTERVALS[interval] * self.page_slots
        start = (now_ms // page_ms - 2 - number // len(INTERVALS)) * page_ms
        return Asked(interval, start, start + page_ms)


def _iso(ms: int) -> str:
    return from_ms(ms).strftime("%Y-%m-%dT%H:%M:%SZ")


def _of_binance(sandbox: Sandbox, asked: Asked) -> list[Row]:
    bounds = {"startTime": asked.start, "endTime": asked.end - 1, "limit": 499}
    params = {"symbol": "SOLUSDT", "interval": asked.interval, **bounds}
    rows = sandbox.ask("/binance/fapi/v1/klines", params)
    return [[row[0], *map(float, row[1:6])] for row in rows]


def _of_hyperliquid(sandbox: Sandbox, asked: Asked) -> list[Row]:
    bounds = {"startTime": asked.start, "endTime": asked.end - 1}
    req = {"coin": "SOL", "interval": asked.interval, **bounds}
    body = {"type": "candleSnapshot", "req": req}
    rows = sandbox.post("/hyperliquid/info", body)
    return [
        [row["t"], *(float(row[key]) for key in "ohlcv")] for row in rows if row["t"] >= asked.start
    ]


def _of_coinbase(sandbox: Sandbox, asked: Asked) -> list[Row]:
    params = {
        "granularity": str(asked.step // 1000),
        "start": _iso(asked.start),
        "end": _iso(asked.end - asked.step),
    }
    rows = sandbox.ask("/coinbase/products/SOL-USD/candles", params)
    return [[t * 1000, open_, high, low, close, v] for t, low, high, open_, close, v in rows[::-1]]


EXCHANGES = [
    Exchange(
        "binance",
        "/candles/binance/perp/SOL-USDT",
        499,
        lambda asked: {"interval": asked.interval, "startTime": asked.start},
        _of_binance,
    ),
    Exchange(
        "hyperliquid",
        "/candles/hyperliquid/perp/SOL-USDC",
        500,
        lambda asked: {"interval": asked.interval, "startTime": asked.start},
        _of_hyperliquid,
    ),
    Exchange(
        "coinbase",
        "/candles/coinbase/spot/SOL-USD",
        300,
        lambda asked: {"interval": asked.interval, "start": _iso(asked.start)},
        _of_coinbase,
    ),
]
EACH_EXCHANGE = [pytest.param(entry, id=entry.name) for entry in EXCHANGES]


# --- the faults ---------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Trial:
    """A fault of a page's first request, or of every one, and how it is set."""

    fault: str
    hits: int = 1
    partial: bool = False
    more: Mapping[str, float | str] | None = None

    @property
    def label(self) -> str:
        hits = "every attempt" if self.hits == ATTEMPTS else "once"
        variant = (self.more or {}).get("unit")
        fault = f"`{self.fault}` {variant}" if variant else f"`{self.fault}`"
        return f"{fault} | {hits} | {'yes' if self.partial else 'no'}"


PASSING = (
    "server_error maintenance_html hang truncated_json null_body empty_page short_page "
    "duplicate_rows out_of_order shifted_window"
)
LASTING = "server_error maintenance_html hang truncated_json null_body"
SPOILING = "conflicting_rows off_grid ohlc_violation null_field"
# No retry follows: the answer was whole, and of something else.
OFF_THE_QUESTION = "wrong_window error_body redirect"
REFUSALS = "rate_limited banned"

TRIALS = [
    *(Trial(fault) for fault in PASSING.split()),
    *(Trial(fault, ATTEMPTS) for fault in LASTING.split()),
    *(Trial(fault) for fault in SPOILING.split()),
    *(Trial(fault, partial=True) for fault in SPOILING.split()),
    *(Trial(fault) for fault in OFF_THE_QUESTION.split()),
    *(Trial("wrong_unit", more={"unit": unit}) for unit in ("s", "us", "ns")),
]
# They stop all that is asked of an exchange: one after the other.
REFUSED = [Trial(fault, more={"retry_after": 60}) for fault in REFUSALS.split()]


@dataclass(frozen=True, slots=True)
class Outcome:
    """A line of the table."""

    status: int
    code: str
    stored: str
    named: str
    then: str

    def line(self, trial: Trial) -> str:
        return " | ".join(
            [trial.label, str(self.status), self.code, self.stored, self.named, self.then]
        )


@pytest.fixture(autouse=True)
def _no_waiting_between_attempts() -> Generator[None]:
    with stamina.set_testing(True, attempts=ATTEMPTS, cap=True):
        yield


@dataclass(frozen=True, slots=True)
class Bench:
    """The surroundings of a trial."""

    exchange: Exchange
    client: httpx.AsyncClient
    sandbox: Sandbox
    database: psycopg.Connection

    async def run(self, trial: Trial, asked: Asked) -> str:
        """Order the fault, ask twice, and say what came of it."""
        truth = self.exchange.truth(self.sandbox, asked)
        selector = {**self.exchange.selector(asked), **(trial.more or {})}
        self.sandbox.fault(trial.fault, times=trial.hits, exchange=self.exchange.name, **selector)
        failed = await self.ask(asked, partial=trial.partial)
        stored, missing = self.stored(asked), self.uncovered(asked)
        rejected = self.database.execute(_REJECTED, [asked.interval, *asked.seconds]).fetchall()
        if trial in REFUSED:
            self.database.execute(_UNBLOCK)
        after = await self.ask(asked)
        outcome = Outcome(
            failed.status_code,
            _code(failed),
            _stored(stored, truth, missing),
            _named(failed, [entry[0] for entry in rejected], truth, asked),
            "200, complete" if self.is_whole(after, asked, truth) else after.text,
        )
        return outcome.line(trial)

    async def ask(self, asked: Asked, *, partial: bool = False) -> httpx.Response:
        params: dict[str, Any] = {**asked.window, **({"partial": True} if partial else {})}
        return await self.client.get(f"{self.exchange.path}/{asked.interval}", params=params)

    def stored(self, asked: Asked) -> list[Row]:
        rows = self.database.execute(_STORED, [asked.interval, *asked.seconds])
        return [[int(row[0]), *row[1:]] for row in rows]

    def uncovered(self, asked: Asked) -> list[tuple[Any, ...]]:
        return self.database.execute(_UNCOVERED, [*asked.seconds, asked.interval]).fetchall()

    def is_whole(self, answer: httpx.Response, asked: Asked, truth: list[Row]) -> bool:
        """Tell whether the answer and the store equal the exchange."""
        body = answer.json()
        return (
            answer.status_code == 200
            and body["complete"] is True
            and body["candles"] == truth == self.stored(asked)
            and self.uncovered(asked) == []
        )


def _code(answer: httpx.Response) -> str:
    body = answer.json()
    if answer.status_code != 200:
        return f"`{body['code']}`"
    return "complete" if body["complete"] else "`complete: false`"


def _stored(rows: list[Row], truth: list[Row], missing: list[tuple[Any, ...]]) -> str:
    """Say what is stored; anything that is not true is shown in full."""
    step = truth[1][0] - truth[0][0]
    covered = [row for row in truth if not any(start <= row[0] < end for start, end in missing)]
    if rows != covered:
        return f"{rows} although covered but for {missing}"
    if not missing:
        return "all"
    if missing == [(truth[0][0], truth[-1][0] + step)]:
        return "nothing"
    if missing == [(_middle(truth), _middle(truth) + step)]:
        return "all but the wrong one"
    return f"all but {missing}"


def _named(answer: httpx.Response, rejected: list[int], truth: list[Row], asked: Asked) -> str:
    """Say which slots the answer and the table of rejected rows name."""
    body, middle = answer.json(), _middle(truth)
    if answer.status_code == 200:
        reason = "upstream_bad_data"
        slot = {"start": middle, "end": middle + asked.step, "reason": reason}
        named = [middle] if body.get("missing") == [slot] else body.get("missing", [])
        shown = [row for row in truth if row[0] not in named]
        if body["candles"] != shown:
            return f"{body['candles']}"
    else:
        named = body.get("times", [])
    if (named, rejected) == ([], []):
        return "nothing"
    return "its slot" if named == rejected == [middle] else f"{named}, {rejected}"


def _middle(truth: list[Row]) -> int:
    """Every fault that spoils a row spoils the middle one."""
    return int(truth[len(truth) // 2][0])


# --- the table ----------------------------------------------------------------------------------


@pytest.mark.parametrize("exchange", EACH_EXCHANGE)
async def test_every_fault_ends_as_the_table_says(
    exchange: Exchange, settings: Settings, sandbox: Sandbox, database: psycopg.Connection
) -> None:
    """Nothing wrong is stored, nothing false is covered, and what comes next is right."""
    impatient = settings.model_copy(
        update={
            "attempt_timeout_seconds": 0.8,
            "fetch_deadline_seconds": 12.0,
            "concurrent_pages": len(TRIALS),
        }
    )
    now_ms = to_ms(settings.clock())
    database.execute(_NO_BUDGET)
    async with serving(impatient, sandbox) as client:
        bench = Bench(exchange, client, sandbox, database)
        for interval in INTERVALS:  # so that a fault hits a page and no question of where to begin
            await client.get(f"{exchange.path}/{interval}", params={"start": now_ms, "limit": 1})
        pages = [exchange.page(number, now_ms) for number in range(len(TRIALS + REFUSED))]
        lines = await asyncio.gather(*map(bench.run, TRIALS, pages))
        lines += [await bench.run(trial, pages.pop()) for trial in REFUSED]

    assert "\n".join(lines) == "\n".join(_documented(DOCUMENTED))
    assert database.execute(_OUTSIDE_COVERAGE).fetchone() == (0,)


def _documented(path: Path) -> list[str]:
    return re.findall(r"^\| (`\w+`(?: \w+)? \| .*) \|$", path.read_text(), re.MULTILINE)
