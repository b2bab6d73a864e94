"""The one source of "now": real time, or a clock set elsewhere, perhaps faster.

Old data can be asked of an exchange with a short memory only if all parts agree on the time,
so the demo hands one clock to the sandbox and to every service. Tokens and rate budgets do not use
it: they live in real time.
"""

import math
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Self

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MILLISECOND = timedelta(milliseconds=1)


def to_ms(time: datetime) -> int:
    """Give epoch milliseconds, rounded down."""
    return (time - EPOCH) // _MILLISECOND


def from_ms(ms: int) -> datetime:
    """Give the aware UTC time of epoch milliseconds.

    Raises:
        OverflowError: The time lies outside the years 1 to 9999.
    """
    return EPOCH + ms * _MILLISECOND


@dataclass(frozen=True, slots=True)
class Clock:
    """A clock that showed `shown` at real time `since`, `speed` times as fast.

    Its text form, `shown@since*speed` in epoch milliseconds, is the setting `MDP_CLOCK`.
    """

    shown: datetime = EPOCH
    since: datetime = EPOCH
    speed: float = 1.0

    def __post_init__(self) -> None:
        """Refuse a clock that stands still or runs backwards."""
        if not 0 < self.speed < math.inf:
            message = f"a clock can't run at the speed {self.speed}"
            raise ValueError(message)

    @classmethod
    def starting_at(cls, shown: datetime, speed: float = 1.0) -> Self:
        """Make a clock that shows `shown` (aware, to the millisecond) at this moment."""
        return cls(from_ms(to_ms(shown)), from_ms(to_ms(datetime.now(UTC))), speed)

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read the text form.

        Raises:
            ValueError: The text is not of that form.
        """
        try:
            times, speed = text.split("*")
            shown, since = times.split("@")
            return cls(from_ms(int(shown)), from_ms(int(since)), float(speed))
        except (ValueError, OverflowError) as error:
            message = f"{text!r} is not a clock: expected SHOWN_MS@SINCE_MS*SPEED"
            raise ValueError(message) from error

    def __str__(self) -> str:
        """Give the text form."""
        return f"{to_ms(self.shown)}@{to_ms(self.since)}*{self.speed}"

    def __call__(self) -> datetime:
        """Tell the time now: aware, UTC."""
        return self.at(datetime.now(UTC))

    def at(self, real: datetime) -> datetime:
        """Tell what this clock shows at a real time."""
        return self.shown + (real - self.since) * self.speed

    def real(self, shown: datetime) -> datetime:
        """Tell the real time at which this clock shows, or showed, `shown`."""
        return self.since + (shown - self.shown) / self.speed
