"""Watermarks: bounds of what is final, may change, and can be fetched. Pure."""

from dataclasses import dataclass
from datetime import datetime


@dataclass(frozen=True, slots=True)
class Watermarks:
    """The bounds of a series at one moment; all on its grid.

    Nothing was traded before `history_start`, and the exchange no longer has what lies before
    `retention_start`. Slots before `settled_until` are final, slots from `closed_until` on are
    still forming. A slot from `grace_start` on that is absent may only be late.
    """

    history_start: datetime
    retention_start: datetime
    settled_until: datetime
    closed_until: datetime
    grace_start: datetime
