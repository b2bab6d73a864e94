"""The bounds between what is final, what may change, and what can be asked for. Pure."""

from dataclasses import dataclass
from datetime import datetime


@dataclass(frozen=True, slots=True)
class Reach:
    """What can be asked of the exchange for a series now, and how far to trust the answer.

    There is nothing before `begins`, and nothing before `earliest` can be had any more. Slots
    before `settled` are final, slots from `closed` on are still forming. A slot from `late_from` on
    that is absent may only be late. All on the grid.
    """

    begins: datetime
    earliest: datetime
    settled: datetime
    closed: datetime
    late_from: datetime
