"""A clock that stands still until a test moves it."""

from datetime import datetime, timedelta

from mdp_core.domain.clock import Clock


def standing_clock(shown: datetime) -> Clock:
    """Return a clock that shows the same time for as long as any test takes."""
    return Clock.starting_at(shown, speed=1e-6)


def advance(clock: Clock, seconds: float) -> None:
    """Move the clock of services and sandbox together: both see the new time at once."""
    object.__setattr__(clock, "shown", clock.shown + timedelta(seconds=seconds))
