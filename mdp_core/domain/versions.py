"""Versions: which changes of stored facts an answer has seen. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass

from mdp_core.domain.windows import Window


@dataclass(frozen=True, slots=True)
class Change:
    """Slots of a series whose stored facts changed, and its epoch since."""

    slots: Window
    epoch: int


@dataclass(frozen=True, slots=True)
class Versions:
    """The versions of the windows of a series, as one snapshot of the store has them.

    Attributes:
        store: Number of the copy of the data: after a restore epochs count anew.
        epoch: Highest epoch of the series.
        changes: Those that touch the window of the snapshot, in any order.
    """

    store: int
    epoch: int
    changes: Sequence[Change] = ()

    def of(self, window: Window) -> int:
        """Return a window's version: the epoch of the last change that touches it, or 0.

        As long as the version is the same, so are the settled candles of the window.
        """
        touching = (
            change.epoch
            for change in self.changes
            if change.slots.start < window.end and window.start < change.slots.end
        )
        return max(touching, default=0)
