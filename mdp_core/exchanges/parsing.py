"""Vectorised parsing of payloads: one bad part costs no more than itself.

A payload that is no list of rows at all raises `TypeError`, which an adapter makes a `BadPayload`.
In rows, what can't be read is marked so that the judging of the answer finds it (`validation`): a
number that is missing is NaN, what is no number is infinite, and a row without a readable time lies
before all others, in no window.
"""

import logging
from collections.abc import Callable, Mapping, Sequence
from math import inf, nan
from operator import itemgetter
from typing import Any, cast

import numpy as np

from mdp_core.domain.candles import Float64s
from mdp_core.domain.intervals import Int64s
from mdp_core.domain.series import Symbol

_log = logging.getLogger(__name__)

UNREADABLE_TIME = -(2**63)
"""The time (epoch ms) of a row whose own can't be read: a stray wherever it stands."""

_DECIMAL_CHARACTERS = b"0123456789.,eE+-"
_SHOWN_NAME_CHARACTERS = 40


def columns(
    payload: object, kind: type[list[Any]] | type[dict[str, Any]], keys: Sequence[int | str]
) -> list[Sequence[object]]:
    """Read some fields of a payload's rows as columns; None where a row has none.

    Args:
        payload: What the exchange answered.
        kind: What each row should be.
        keys: Positions or keys of the fields, at least two.

    Raises:
        TypeError: It is no list.
    """
    rows = _list(payload)
    if not rows:
        return [()] * len(keys)
    try:
        if set(map(type, rows)) == {kind}:
            return list(zip(*map(itemgetter(*keys), cast("list[Any]", rows)), strict=True))
    except LookupError:  # a row is too short
        pass
    return [[_field(row, kind, key) for row in rows] for key in keys]


def times(values: Sequence[object], *, unit_ms: int = 1) -> Int64s:
    """Make a column of times in epoch ms from JSON integers in units of `unit_ms`.

    Raises:
        TypeError: None of them is a number.
    """
    try:
        return np.array([integer(value) * unit_ms for value in values], np.int64)
    except (TypeError, OverflowError):
        if not {int, float} & set(map(type, values)):
            raise TypeError from None
        return np.array([_readable_time(value, unit_ms) for value in values], np.int64)


def decimals(values: Sequence[object]) -> Float64s:
    """Make a column of decimals, written as strings or as JSON numbers."""
    try:
        texts = ",".join(cast("Sequence[str]", values))  # is quicker than asking each for its type
        if not texts.encode().translate(None, _DECIMAL_CHARACTERS):
            return np.fromiter(map(float, cast("Sequence[str]", values)), np.float64, len(values))
    except (TypeError, ValueError):
        pass
    return np.array([_number(value) for value in values], np.float64)


def counts(values: Sequence[object]) -> Float64s:
    """Make a column of counts from JSON integers."""
    if set(map(type, values)) <= {int}:
        return np.array(values, np.float64)
    return np.array([_count(value) for value in values], np.float64)


def integer(value: object) -> int:
    """Take a value for a JSON integer.

    Raises:
        TypeError: It is something else: a cast would change it silently.
    """
    if type(value) is not int:
        raise TypeError
    return value


def decimal(value: object) -> float:
    """Take a value for a finite decimal.

    Raises:
        ValueError: It is something else.
    """
    number = _number(value)
    if abs(number) < inf:
        return number
    raise ValueError


class SymbolList(list[Symbol]):
    """Symbols that an exchange lists.

    Attributes:
        malformed: Names of entries that could not be read: of these nothing new is known.
    """

    def __init__(self, symbols: Sequence[Symbol], malformed: Sequence[str] = ()) -> None:
        super().__init__(symbols)
        self.malformed = frozenset(malformed)


def read_symbols(
    exchange: str,
    payload: object,
    read: Callable[[Mapping[str, Any]], Symbol | None],
    key: str,
) -> SymbolList:
    """Read a list of symbols; a malformed entry is left out, and logged by name.

    Args:
        exchange: Whose list.
        payload: What should be the list.
        read: Makes a symbol of an entry, or None of one that is none of this market.
        key: Under which an entry has its name.

    Raises:
        TypeError: It is no list, or nothing of it can be read.
    """
    symbols: list[Symbol] = []
    malformed: list[str] = []
    for entry in _list(payload):
        try:
            if symbol := read(cast("Mapping[str, Any]", entry)):
                symbols.append(symbol)
        except (LookupError, TypeError, ValueError, AttributeError, OverflowError):
            malformed.append(_name_of(entry, key))
    if malformed and not symbols:
        raise TypeError
    if malformed:
        extra = {"exchange": exchange, "symbols": malformed}
        _log.warning("malformed entries of the list of symbols left out", extra=extra)
    return SymbolList(symbols, malformed)


def text(value: object) -> str:
    """Take a value for a text with something in it.

    Raises:
        TypeError: It is something else.
    """
    if not isinstance(value, str) or not value:
        raise TypeError
    return value


def _list(payload: object) -> list[object]:
    if not isinstance(payload, list):
        raise TypeError
    return cast("list[object]", payload)


def _field(row: object, kind: type, key: Any) -> object:  # noqa: ANN401 - a position or a name
    if type(row) is not kind:
        return None
    try:
        return cast("Any", row)[key]
    except LookupError:
        return None


def _readable_time(value: object, unit_ms: int) -> int:
    time = value * unit_ms if type(value) is int else UNREADABLE_TIME
    return time if abs(time) < -UNREADABLE_TIME else UNREADABLE_TIME


def _number(value: object) -> float:
    if value is None or value == "":
        return nan
    is_decimal = isinstance(value, str) and not value.encode().translate(None, _DECIMAL_CHARACTERS)
    if not is_decimal and type(value) not in {int, float}:
        return inf
    try:
        return float(cast("str | float", value))
    except (ValueError, OverflowError):
        return inf


def _count(value: object) -> float:
    if value is None or value == "":
        return nan
    return _number(value) if type(value) is int else inf


def _name_of(entry: object, key: str) -> str:
    name = cast("dict[str, object]", entry).get(key) if isinstance(entry, dict) else None
    return str(cast("object", entry) if name is None else name)[:_SHOWN_NAME_CHARACTERS]
