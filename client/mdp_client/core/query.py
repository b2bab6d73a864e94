"""Which candles a caller wants, and the window that an answer says it holds."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Self
from urllib.parse import urlencode

from mdp_client.core.actions import Head
from mdp_client.core.asking import request_id
from mdp_client.core.listing import series_path
from mdp_client.errors import BadBody
from mdp_client.times import aware

SECOND_MS = 1000
_MINUTE = 60 * SECOND_MS
_HOUR = 60 * _MINUTE
_DAY = 24 * _HOUR
# Multiples from the epoch; longer intervals have a phase that only the service knows.
_STEPS_MS = {
    **{f"{count}m": count * _MINUTE for count in (1, 3, 5, 15, 30)},
    **{f"{count}h": count * _HOUR for count in (1, 2, 4, 6, 8, 12)},
    "1d": _DAY,
}
_VERSION = re.compile(r"([\w-]+)\.([\w-]+)\.(\d+)\.(\d+)")
_LONGEST_MS = {"3d": 3 * _DAY, "1w": 7 * _DAY}
_LONGEST_STEP_MS = 31 * _DAY


@dataclass(frozen=True, slots=True)
class CandlesRequest:
    """A window of one series, half-open; times in epoch ms."""

    exchange: str
    market_type: str
    symbol: str
    interval: str
    start: int | None = None
    end: int | None = None
    limit: int | None = None
    fields: tuple[str, ...] | None = None
    settled: bool = False
    partial: bool = False

    @property
    def is_followed(self) -> bool:
        """Tell whether the answer goes on behind `next`: nothing else bounds it."""
        return self.start is not None and self.limit is None

    def path(self) -> str:
        """Return path and query, as the service takes them."""
        flags = {"settled": self.settled, "partial": self.partial}
        parameters = {
            "start": self.start,
            "end": self.end,
            "limit": self.limit,
            "fields": None if self.fields is None else ",".join(self.fields),
            **{name: "true" for name, is_set in flags.items() if is_set},
        }
        given = {name: value for name, value in parameters.items() if value is not None}
        names = (self.exchange, self.market_type, self.symbol, self.interval)
        return f"/candles/{series_path(*names)}" + (f"?{urlencode(given)}" if given else "")

    def window(self, start: int, end: int) -> Self:
        """Return the query for just a window."""
        return replace(self, start=start, end=end, limit=None)


@dataclass(frozen=True, slots=True)
class Version:
    """The state of a window's candles: `X-Version`."""

    store: str
    series: str
    version: int
    epoch: int

    @classmethod
    def read(cls, headers: Mapping[str, str]) -> Self | None:
        """Read the header; None where the service does not send it, or not in this form."""
        found = _VERSION.fullmatch(headers.get("x-version", ""))
        if not found:
            return None
        store, series, version, epoch = found.groups()
        return cls(store, series, int(version), int(epoch))


@dataclass(frozen=True, slots=True)
class Answered:
    """The window of a complete answer, and how far it is final; times in epoch ms."""

    start: int
    end: int
    settled_until: int
    complete: bool
    unconfirmed_slots: int
    version: Version | None
    next: str | None

    @classmethod
    def read(cls, head: Head) -> Self:
        """Read the headers of an answer.

        Raises:
            BadBody: They don't say what it holds.
        """
        headers = head.headers
        try:
            return cls(
                int(headers["x-window-start"]),
                int(headers["x-window-end"]),
                int(headers["x-settled-until"]),
                complete=headers["x-complete"] == "true",
                unconfirmed_slots=int(headers.get("x-unconfirmed", "0")),
                version=Version.read(headers),
                next=_next(headers.get("link", "")),
            )
        except (KeyError, ValueError) as error:
            detail = "the headers don't say which window the answer holds"
            raise BadBody(status=head.status, detail=detail, request_id=request_id(head)) from error

    def check(self, query: CandlesRequest) -> None:
        """Check that this is the window that was asked for.

        Where it may end earlier than asked for (at the limit, at the newest closed candle) the
        answer's own end says so.

        Raises:
            BadBody: The answer speaks of another window, or lacks what it calls complete.
        """
        starts_right = query.start is None or _is_ceiling(query.start, self.start, query.interval)
        ends_right = query.end is None or self.end < query.end + _step(query.interval)
        if not (starts_right and ends_right and self.start <= self.end):
            asked = " to ".join(map(_text, (query.start, query.end)))
            detail = f"asked for {asked}, answered {_text(self.start)} to {_text(self.end)}"
            raise BadBody(detail=detail)
        if not self.complete and not query.partial:
            raise BadBody(detail="the answer is incomplete, and partial was not asked for")


def _next(link: str) -> str | None:
    """Return the target of `<target>; rel="next"`."""
    target, _, parameters = link.partition(">")
    return target.lstrip().removeprefix("<") if 'rel="next"' in parameters else None


def _step(interval: str) -> int:
    return _STEPS_MS.get(interval) or _LONGEST_MS.get(interval, _LONGEST_STEP_MS)


def _is_ceiling(asked: int, answered: int, interval: str) -> bool:
    if step := _STEPS_MS.get(interval):
        return answered == -(-asked // step) * step
    return asked <= answered < asked + _step(interval)


def _text(time: int | None) -> str:
    return "any time" if time is None else aware(time).isoformat()
