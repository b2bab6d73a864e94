"""Real series of the shared folder: the truth, and what answers or stores lack."""

import csv
import gzip
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from support.places import DATA

_MINUTE = 60_000
_STEPS = {"m": _MINUTE, "h": 60 * _MINUTE, "d": 1440 * _MINUTE, "w": 10_080 * _MINUTE}
_NAMES = {"BTCUSDT": "BTC-USDT", "BTC": "BTC-USDC", "PURR": "PURR-USDC", "BTC-USD": "BTC-USD"}
# Hyperliquid answers rows with prices from before a coin was traded: no candles of ours.
_UNTRADED = "hyperliquid"

Row = tuple[float, ...]
Span = tuple[int, int]


@dataclass(frozen=True)
class RealSeries:
    """A file of real candles, all of them; times in epoch ms."""

    exchange: str
    market: str
    native: str
    interval: str

    @property
    def step(self) -> int:
        """Length of a slot."""
        return int(self.interval[:-1]) * _STEPS[self.interval[-1]]

    @property
    def path(self) -> str:
        """Path of its candles in the API."""
        return f"/candles/{self.exchange}/{self.market}/{_NAMES[self.native]}/{self.interval}"

    @cached_property
    def rows(self) -> Mapping[int, Row]:
        """Open, high, low, close, volume by open time, ascending."""
        name = f"{self.exchange}__{self.market}__{self.native}__{self.interval}"
        with gzip.open(DATA / f"{name}.csv.gz", "rt", encoding="ascii", newline="") as text:
            _header, *lines = csv.reader(text)
        rows = {int(line[0]): tuple(map(float, line[1:])) for line in lines}
        traded = min(time for time, row in rows.items() if row[4] > 0)
        begins = traded if self.exchange == _UNTRADED else 0
        return {time: row for time, row in rows.items() if time >= begins}

    @property
    def first(self) -> int:
        """Open time of the first candle."""
        return next(iter(self.rows))

    @property
    def last(self) -> int:
        """Open time of the last candle."""
        return next(reversed([*self.rows]))

    def floor(self, ms: int) -> int:
        """Return the open time of the slot that a time lies in."""
        return ms - (ms - self.first) % self.step

    def ceil(self, ms: int) -> int:
        """Return the first open time that is not earlier."""
        return self.floor(ms + self.step - 1)

    def inside(self, start: int, end: int) -> list[int]:
        """Return the open times of candles in a window."""
        return [time for time in self.rows if start <= time < end]


def real_series() -> list[RealSeries]:
    """Return every series of the shared folder; none where that is not there."""
    return [RealSeries(*_words(path)) for path in sorted(DATA.glob("*.csv.gz"))]


def _words(path: Path) -> list[str]:
    return path.name.removesuffix(".csv.gz").split("__")


@dataclass(frozen=True, slots=True)
class Question:
    """Parameters of a request, and up to when candles are closed by both clocks."""

    params: Mapping[str, Any]
    closed: int


def lies(series: RealSeries, question: Question, body: Mapping[str, Any]) -> list[str]:
    """Return what is wrong with the body of a 200, in words."""
    start, end = body["start"], body["end"]
    given = {int(row[0]): tuple(row[1:]) for row in body["candles"]}
    asked_from = question.params.get("start")
    excused = [*body["unconfirmed"], *body.get("missing", [])]
    settled = min(end, body["settled_until"])
    true = series.inside(start, end)
    lacking = [time for time in true if time < settled and time not in given]
    unsaid = _outside(lacking, [(entry["start"], entry["end"]) for entry in excused])
    wrong = [time for time in given if given[time] != series.rows.get(time)]
    found = [
        _said("not as the exchange has it", wrong),
        _said("lacking without a word", unsaid),
        _said("outside the window", [time for time in given if not start <= time < end]),
        _said("not closed by both clocks", [t for t in given if t + series.step > question.closed]),
        _said("settled beyond both clocks", [settled] if settled > question.closed else []),
        _said("count", [] if body["count"] == len(given) else [body["count"]]),
    ]
    if body["complete"] is not True and "partial" not in question.params:
        found.append("incomplete without being allowed to")
    if asked_from is not None and start != series.ceil(asked_from):
        found.append(f"begins at {start} and not where it was asked for")
    return [*filter(None, found), *_ends_early(series, question, body, given)]


def _ends_early(
    series: RealSeries, question: Question, body: Mapping[str, Any], given: Mapping[int, Row]
) -> list[str]:
    """Return whether less came than was asked for, and no more is announced."""
    params = question.params
    if body["next"] or len(given) >= params.get("limit", 10_000) or series.exchange == _UNTRADED:
        return []
    if "start" not in params and (before := series.inside(0, body["start"])):
        return [_said("before the start of an answer that says there are no more", before)]
    return []


def _outside(times: Iterable[int], spans: Sequence[Span]) -> list[int]:
    return [time for time in times if not any(start <= time < end for start, end in spans)]


def _said(what: str, times: Sequence[int]) -> str:
    return f"{len(times)} {what}: {list(times[:3])}" if times else ""


@dataclass(frozen=True, slots=True)
class Stored:
    """All that is stored of a series."""

    rows: Mapping[int, Row]
    coverage: Sequence[Span]
    absences: Sequence[Span]


def false_facts(series: RealSeries, stored: Stored, closed: int) -> list[str]:
    """Return which stored facts are false, in words."""
    rows, covered = stored.rows, [span for span in stored.coverage if span[1] > closed]
    known = [time for start, end in stored.coverage for time in series.inside(start, end)]
    lacking = _outside([time for time in known if time not in rows], stored.absences)
    wrong = [time for time in rows if rows[time] != series.rows.get(time)]
    found = [
        _said("stored not as the exchange has it", wrong),
        _said("covered without a row or a doubt", lacking),
        _said("stored outside coverage", _outside(rows, stored.coverage)),
        _said("covered beyond both clocks", [end for _, end in covered]),
    ]
    return [*filter(None, found)]
