"""Receive a query's candles whole, page after page, whatever breaks in between."""

# pyarrow comes without types.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownParameterType=false, reportUnknownArgumentType=false

import json
import struct
from dataclasses import dataclass, replace
from typing import Any, Self
from urllib.parse import parse_qs, urlsplit

from mdp_client.arrow import RecordBatch, Schema
from mdp_client.core.actions import Emit, Flow, Head, Wait
from mdp_client.core.arrow_stream import read_batches, read_schema
from mdp_client.core.asking import Call, Question, ask, check_type
from mdp_client.core.coding import inflated
from mdp_client.core.following import wait_for_window
from mdp_client.core.query import Answered, CandlesRequest, Version
from mdp_client.errors import BadBody, BrokenBody, MdpError
from mdp_client.records import Missing, Window
from mdp_client.times import aware

ARROW_TYPE = "application/vnd.apache.arrow.stream"
_ACCEPTED = 202
_TIME = struct.Struct("<q")


class SeriesChanged(Exception):
    """Candles were repaired between two parts of one answer."""


@dataclass(frozen=True, slots=True)
class Summary:
    """An answer but for its candles; times in epoch ms."""

    schema: Schema
    start: int
    end: int
    settled_until: int
    complete: bool
    unconfirmed: tuple[Window, ...]
    missing: tuple[Missing, ...]
    version: Version | None

    @classmethod
    def of(
        cls,
        schema: Schema,
        answered: Answered,
        *,
        unconfirmed: tuple[Window, ...] = (),
        missing: tuple[Missing, ...] = (),
    ) -> Self:
        """Build the summary of what an answer's headers and its schema say."""
        return cls(
            schema,
            answered.start,
            answered.end,
            answered.settled_until,
            answered.complete,
            unconfirmed,
            missing,
            answered.version,
        )

    @classmethod
    def read(cls, schema: Schema, answered: Answered) -> Self:
        """Read what a schema's metadata says; of JSON's members those that headers lack.

        Where a service only counts unconfirmed slots, the whole window stands for them.
        """
        said: dict[bytes, bytes] = schema.metadata or {}
        missing = tuple(Missing.of(entry) for entry in _json(said, b"missing"))
        unconfirmed = tuple(Window.of(entry) for entry in _json(said, b"unconfirmed"))
        if answered.unconfirmed_slots and not unconfirmed:
            unconfirmed = (Window.between(answered.start, answered.end),)
        return cls.of(schema, answered, unconfirmed=unconfirmed, missing=missing)

    def joined(self, later: Self) -> Self:
        """Return both as one answer; `later` holds what came after this one."""
        is_settled = self.settled_until >= min(self.end, later.start)
        return replace(
            self,
            end=max(self.end, later.end),
            settled_until=later.settled_until if is_settled else self.settled_until,
            complete=self.complete and later.complete,
            unconfirmed=self.unconfirmed + later.unconfirmed,
            missing=self.missing + later.missing,
        )

    def until(self, end: int) -> Self:
        """Return what the answer says of the time before `end`."""
        missing = tuple(gap.until(aware(end)) for gap in self.missing if gap.start < aware(end))
        return replace(
            self,
            end=end,
            settled_until=min(self.settled_until, end),
            complete=not missing,
            unconfirmed=tuple(
                window.until(aware(end)) for window in self.unconfirmed if window.start < aware(end)
            ),
            missing=missing,
        )


@dataclass(frozen=True, slots=True)
class Wanted:
    """A query, and how it is to be answered.

    Attributes:
        wait: Whether a job that fetches the candles first is waited for.
        uniform: Whether all parts must be of one version of the series.
    """

    query: CandlesRequest
    wait: bool = True
    uniform: bool = True


@dataclass(slots=True)
class _Page:
    """One answer on its way, over as many connections as it takes."""

    query: CandlesRequest
    answered: Answered | None = None
    summary: Summary | None = None
    last: int | None = None

    def rest(self) -> CandlesRequest:
        """Return the query for what has not come yet."""
        if self.answered is None or self.last is None:
            return self.query
        # The first answer's end is where its limit is reached.
        return self.query.window(self.last + 1, self.answered.end)

    def begin(self, schema: Schema, answered: Answered) -> None:
        """Take what an answer says; of a second one, for the time after the last candle."""
        said = Summary.read(schema, answered)
        if self.summary and self.summary.schema.names != schema.names:
            columns = f"from {self.summary.schema.names} to {schema.names}"
            raise BadBody(detail=f"the columns changed {columns}")
        kept = self.summary and self.last is not None and self.summary.until(self.last + 1)
        self.summary = kept.joined(said) if kept else said

    def accept(self, batch: RecordBatch, answered: Answered) -> None:
        """Check that a batch goes on where the last one ended, inside the answer's window."""
        if not batch.num_rows:
            return
        first, last = time_at(batch, 0), time_at(batch, batch.num_rows - 1)
        begin = answered.start if self.last is None else max(answered.start, self.last + 1)
        if not begin <= first <= last < answered.end:
            raise BrokenBody(detail="the body's candles lie outside the window, or not in order")
        self.last = last


def receive(call: Call, wanted: Wanted) -> Flow[Summary]:
    """Receive all candles of a query and emit them in batches, ascending.

    Raises:
        SeriesChanged: A part has another version than those before it, and `uniform` is set.
        MdpError: The answer can't be had whole.
    """
    query, summary = wanted.query, None
    while True:
        page, following = yield from _page(call, replace(wanted, query=query))
        if summary and wanted.uniform:
            check_version(summary.version, page.version)
        summary = summary.joined(page) if summary else page
        if following is None or not wanted.query.is_followed:
            return summary
        query = query.window(page.end, end_of(following))


def collect(call: Call, wanted: Wanted) -> Flow[tuple[list[RecordBatch], Summary]]:
    """Receive all candles of a query, of one version of the series."""
    while True:
        try:
            return (yield from collected(receive(call, wanted)))
        except SeriesChanged as error:
            yield Wait(call.patience.pause_after(changed(error)))


def collected(flow: Flow[Summary]) -> Flow[tuple[list[RecordBatch], Summary]]:
    """Keep what a flow emits; every other action goes on to the loop."""
    batches = list[RecordBatch]()
    result: Any = None
    failure: MdpError | None = None
    while True:
        try:
            action = flow.throw(failure) if failure else flow.send(result)
        except StopIteration as end:
            return batches, end.value
        result = failure = None
        if isinstance(action, Emit):
            batches.append(action.batch)
            continue
        try:
            result = yield action
        except MdpError as error:
            failure = error


def _page(call: Call, wanted: Wanted) -> Flow[tuple[Summary, str | None]]:
    """Receive one answer; a broken connection goes on after the last whole batch."""
    page = _Page(wanted.query)
    while True:
        try:
            yield from _attempt(call, wanted, page)
        except MdpError as error:
            yield Wait(call.patience.pause_after(error))
            continue
        if page.summary and page.answered:
            call.patience.succeed()
            return page.summary, page.answered.next


def _attempt(call: Call, wanted: Wanted, page: _Page) -> Flow[None]:
    query = page.rest()
    head = yield from _ask(call, wanted, query)
    answered = Answered.read(head)
    answered.check(query)
    if page.answered is None:
        page.answered = answered
    elif wanted.uniform:
        check_version(page.answered.version, answered.version)
    flow = _body(call, page, answered)
    yield from inflated(flow, head.headers.get("content-encoding", ""))


def _ask(call: Call, wanted: Wanted, query: CandlesRequest) -> Flow[Head]:
    """Ask until the answer is 200: a job that has to fetch first is followed."""
    while True:
        head = yield from ask(call, Question("GET", query.path(), ARROW_TYPE, call.coding))
        if head.status != _ACCEPTED:
            check_type(head, ARROW_TYPE)
            return head
        yield from wait_for_window(call, head, wait=wanted.wait)


def _body(call: Call, page: _Page, answered: Answered) -> Flow[None]:
    schema = yield from read_schema()
    page.begin(schema, answered)

    def accept(batch: RecordBatch) -> None:
        page.accept(batch, answered)
        call.patience.succeed()

    yield from read_batches(schema, accept)


def end_of(following: str) -> int:
    """Return the end that a `next` path names."""
    try:
        return int(parse_qs(urlsplit(following).query)["end"][0])
    except (KeyError, ValueError) as error:
        raise BadBody(detail=f"next={following} names no end") from error


def time_at(batch: RecordBatch, row: int) -> int:
    """Return an open time, epoch ms, without loading pyarrow's kernels."""
    column = batch.column(0)
    (time,) = _TIME.unpack_from(column.buffers()[1], (column.offset + row) * _TIME.size)
    return time


def check_version(before: Version | None, now: Version | None) -> None:
    """Check that two parts of an answer are of the same state of the series.

    Raises:
        SeriesChanged: They are not.
    """
    if before and now and replace(before, version=0) != replace(now, version=0):
        raise SeriesChanged


def changed(cause: SeriesChanged) -> BrokenBody:
    """Build the error that has an answer asked for once more."""
    error = BrokenBody(detail="the series was repaired while it was read")
    error.__cause__ = cause
    return error


def _json(said: dict[bytes, bytes], name: bytes) -> list[dict[str, Any]]:
    try:
        return json.loads(said.get(name, b"[]"))
    except ValueError as error:
        raise BrokenBody(detail=f"the schema's {name.decode()} can't be read") from error
