"""Vectorised parsing of payload columns; a wrong shape raises `BadPayload`."""

from collections.abc import Sequence
from typing import Any, cast

import numpy as np

from mdp_core.domain.candles import Float64s
from mdp_core.domain.intervals import Int64s

_DECIMAL_CHARACTERS = b"0123456789.,eE+-"


def integers(values: Sequence[object]) -> Int64s:
    """Make a column of JSON integers.

    Raises:
        TypeError: One of them is something else: a cast would change it silently.
    """
    if set(map(type, values)) - {int}:
        raise TypeError
    return np.array(values, np.int64)


def decimals(values: Sequence[object]) -> Float64s:
    """Make a column of decimals, written as strings or as JSON numbers.

    Raises:
        TypeError, ValueError: One of them is something else, or a number only to Python (`1_0`).
    """
    try:
        texts = ",".join(cast("Sequence[str]", values))  # is quicker than asking each for its type
    except TypeError:
        return _mixed_decimals(values)
    if texts.encode().translate(None, _DECIMAL_CHARACTERS):
        raise ValueError
    return np.fromiter(map(float, cast("Sequence[str]", values)), np.float64, len(values))


def _mixed_decimals(values: Sequence[object]) -> Float64s:
    kinds = set(map(type, values))
    if kinds <= {int, float}:
        return np.array(values, np.float64)
    if kinds - {str, int, float}:
        raise TypeError
    return decimals(list(map(str, values)))


def arrays(payload: object) -> list[list[Any]]:
    """Take a payload for a list of arrays.

    Raises:
        TypeError: It is something else.
    """
    return cast("list[list[Any]]", _list_of(list, payload))


def objects(payload: object) -> list[dict[str, Any]]:
    """Take a payload for a list of objects.

    Raises:
        TypeError: It is something else.
    """
    return cast("list[dict[str, Any]]", _list_of(dict, payload))


def _list_of(kind: type, payload: object) -> list[object]:
    if not isinstance(payload, list) or set(map(type, cast("list[object]", payload))) - {kind}:
        raise TypeError
    return cast("list[object]", payload)
