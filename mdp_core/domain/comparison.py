"""The comparison of stored candles with those that an exchange answers. Pure."""

from dataclasses import dataclass, replace

import numpy as np

from mdp_core.domain.candles import COLUMNS, OPTIONAL_COLUMNS, Bools, Candles
from mdp_core.domain.intervals import Int64s


@dataclass(frozen=True, slots=True)
class Comparison:
    """Open times (epoch ms, ascending) where stored and answered candles differ.

    Attributes:
        equal: Number of candles that are the same.
        differing: Both have a candle, with other values.
        missing: Only the answer has a candle.
        extra: Only the store has a candle.
        fillable: Equal candles whose stored nulls the answer fills; part of `equal`.
    """

    equal: int
    differing: Int64s
    missing: Int64s
    extra: Int64s
    fillable: Int64s

    @property
    def compared(self) -> int:
        """Number of candles that one of both has."""
        return self.equal + len(self.differing) + len(self.missing) + len(self.extra)

    @property
    def unequal(self) -> Int64s:
        """Times at which the store says something else than the answer."""
        return np.sort(np.concatenate([self.differing, self.missing, self.extra]))

    @property
    def changeable(self) -> Int64s:
        """Times at which taking the answer would change the store."""
        return np.sort(np.concatenate([self.unequal, self.fillable]))

    @property
    def is_equal(self) -> bool:
        """True if store and answer agree."""
        return not len(self.unequal)


def compare(stored: Candles, answered: Candles) -> Comparison:
    """Compare candles of one window, both ascending and unique.

    A null says nothing: it is equal to any number, and where the store has it, it can be filled.
    """
    common, here, there = np.intersect1d(
        stored.time, answered.time, assume_unique=True, return_indices=True
    )
    mine, theirs = stored[here], answered[there]
    same, fillable = _equal(mine, theirs), _fillable(mine, theirs)
    return Comparison(
        int(same.sum()),
        common[~same],
        np.setdiff1d(answered.time, stored.time, assume_unique=True),
        np.setdiff1d(stored.time, answered.time, assume_unique=True),
        common[same & fillable],
    )


def complete(answered: Candles, stored: Candles) -> Candles:
    """Return the answered candles; nulls are filled from stored ones of the same time."""
    _, there, here = np.intersect1d(
        answered.time, stored.time, assume_unique=True, return_indices=True
    )
    filled = {name: getattr(answered, name).copy() for name in OPTIONAL_COLUMNS}
    for name, column in filled.items():
        nulls = np.isnan(column[there])
        column[there[nulls]] = getattr(stored, name)[here[nulls]]
    return replace(answered, **filled)


def _equal(mine: Candles, theirs: Candles) -> Bools:
    same = np.ones(len(mine), np.bool_)
    for name in COLUMNS[1:]:
        left, right = getattr(mine, name), getattr(theirs, name)
        same &= (left == right) | np.isnan(left) | np.isnan(right)
    return same


def _fillable(mine: Candles, theirs: Candles) -> Bools:
    fillable = np.zeros(len(mine), np.bool_)
    for name in OPTIONAL_COLUMNS:
        fillable |= np.isnan(getattr(mine, name)) & ~np.isnan(getattr(theirs, name))
    return fillable
