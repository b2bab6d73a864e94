"""Settled candles on disk: what is there is read, the rest is asked for and kept.

One HEAD over the whole window tells its version. A piece is used while the store is the same and
the window's version is not above the series' epoch when the piece was fetched or last found valid.
A service that sends no `X-Version` can't tell whether a candle was repaired since: then nothing is
taken from disk, and nothing is kept.
"""

# pyarrow comes without types.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownParameterType=false, reportUnknownArgumentType=false

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import TypeAlias

from mdp_client.arrow import RecordBatch, Schema
from mdp_client.cache.blocks import Bounds, subtract
from mdp_client.cache.files import Piece
from mdp_client.cache.folder import CacheFolder, StoredPiece
from mdp_client.cache.slicing import between
from mdp_client.core.actions import Do, Flow, Wait
from mdp_client.core.asking import Call, Question, ask
from mdp_client.core.query import Answered, CandlesRequest, Version
from mdp_client.core.receiving import (
    ARROW_TYPE,
    SeriesChanged,
    Summary,
    Wanted,
    changed,
    check_version,
    collect,
    end_of,
)
from mdp_client.errors import MdpError
from mdp_client.times import to_ms

Received: TypeAlias = tuple[list[RecordBatch], Summary]

_ACCEPTED = 202
# Of more gaps than this their hull is asked for: requests cost more than candles.
_MOST_GAPS = 4


def candles_of(cache: CacheFolder | None) -> Callable[[Call, Wanted], Flow[Received]]:
    """Return the flow that receives all candles of a query, with or without a cache."""
    if cache is None:
        return collect
    return lambda call, wanted: _cached(cache, call, wanted)


def _cached(cache: CacheFolder, call: Call, wanted: Wanted) -> Flow[Received]:
    while True:
        try:
            return (yield from _pages(cache, call, wanted))
        except SeriesChanged as error:
            yield Wait(call.patience.pause_after(changed(error)))


def _pages(cache: CacheFolder, call: Call, wanted: Wanted) -> Flow[Received]:
    """Receive the query's answers one after another, as far as `next` leads."""
    query, batches, summary = wanted.query, list[RecordBatch](), None
    while True:
        part, following = replace(wanted, query=query), None
        answered = yield from _look(call, query)
        if answered and answered.version and answered.start < answered.end:
            found, fetched_summary = yield from _page(cache, call, part, answered)
            following = answered.next
        else:
            found, fetched_summary = yield from _uncached(cache, call, part)
        if summary:
            check_version(summary.version, fetched_summary.version)
        batches += found
        summary = summary.joined(fetched_summary) if summary else fetched_summary
        if following is None or not wanted.query.is_followed:
            return batches, summary
        query = query.window(fetched_summary.end, end_of(following))


def _look(call: Call, query: CandlesRequest) -> Flow[Answered | None]:
    """Ask for the window's version; None where only a GET can tell what is the matter.

    The answer to a HEAD has no body, and so neither a problem's words nor a job's number.
    """
    if query.partial:
        return None
    try:
        head = yield from ask(call, Question("HEAD", query.path(), ARROW_TYPE, call.coding))
    except MdpError:
        return None
    if head.status == _ACCEPTED:
        return None
    answered = Answered.read(head)
    answered.check(query)
    return answered


def _uncached(cache: CacheFolder, call: Call, wanted: Wanted) -> Flow[Received]:
    """Receive an answer from the service alone, and keep of it what may be kept."""
    received = yield from collect(call, wanted)
    version = received[1].version
    if version and not wanted.query.partial:
        folder = cache.series(wanted.query, version)
        yield Do(lambda: folder.keep(received[1].schema, [*_final([received], version)]))
    return received


def _page(cache: CacheFolder, call: Call, wanted: Wanted, answered: Answered) -> Flow[Received]:
    """Put one answer together from files and from the service, and keep what is new."""
    version, window = answered.version, (answered.start, answered.end)
    assert version  # noqa: S101 - for the type checker
    folder = cache.series(wanted.query, version)
    stored: list[StoredPiece] = yield Do(lambda: folder.usable(window, version))
    gaps = _few(subtract([window], [piece.bounds for _, piece in stored]))
    fetched = yield from _fetched(call, wanted, version, gaps)
    schema = fetched[0][1].schema if fetched else stored[0][0]
    used = [part for _, piece in stored for part in _outside(piece, gaps)]
    new = [*_renewed(used, version), *_final(fetched, version)]
    yield Do(lambda: folder.keep(schema, new))
    return _together(answered, schema, used, fetched)


def _fetched(
    call: Call, wanted: Wanted, version: Version, gaps: Sequence[Bounds]
) -> Flow[list[Received]]:
    fetched = list[Received]()
    for gap in gaps:
        query = wanted.query.window(*gap)
        received = yield from collect(call, replace(wanted, query=query))
        check_version(version, received[1].version)
        fetched.append(received)
    return fetched


def _together(
    answered: Answered, schema: Schema, used: Sequence[Piece], fetched: Sequence[Received]
) -> Received:
    parts = [(piece.start, piece.batches) for piece in used]
    parts += [(fetched_summary.start, tuple(batches)) for batches, fetched_summary in fetched]
    parts.sort(key=lambda part: part[0])
    unconfirmed = tuple(
        window for _, fetched_summary in fetched for window in fetched_summary.unconfirmed
    )
    summary = Summary.of(schema, answered, unconfirmed=unconfirmed)
    return [batch for _, batches in parts for batch in batches], summary


def _few(gaps: list[Bounds]) -> list[Bounds]:
    return gaps if len(gaps) <= _MOST_GAPS else [(gaps[0][0], gaps[-1][1])]


def _outside(piece: Piece, gaps: Sequence[Bounds]) -> Iterator[Piece]:
    """Yield what of a piece is not fetched again."""
    for part in subtract([piece.bounds], gaps):
        yield piece if part == piece.bounds else piece.cut(*part)


def _renewed(pieces: Sequence[Piece], version: Version) -> Iterator[Piece]:
    """Yield the pieces that were found valid at a later epoch than their own."""
    for piece in pieces:
        if piece.epoch < version.epoch:
            yield replace(piece, epoch=version.epoch)


def _final(fetched: Sequence[Received], version: Version) -> Iterator[Piece]:
    """Yield what can't change any more: settled, and confirmed where no candle is."""
    for batches, fetched_summary in fetched:
        open_windows = [
            (to_ms(window.start), to_ms(window.end)) for window in fetched_summary.unconfirmed
        ]
        settled = fetched_summary.start, min(fetched_summary.settled_until, fetched_summary.end)
        if settled[0] < settled[1]:
            for bounds in subtract([settled], open_windows):
                yield Piece(*bounds, version.epoch, tuple(between(batches, *bounds)))
