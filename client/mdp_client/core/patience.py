"""The patience of a call: how long it goes on trying."""

import random
from collections.abc import Callable

from mdp_client.errors import BrokenBody, ConnectionFailed, MdpError

_LONGEST_RETRY_AFTER_SECONDS = 300.0
_FIRST_PAUSE_SECONDS, _LONGEST_PAUSE_SECONDS = 0.25, 15.0
_SHORTEST_SILENCE_SECONDS = 0.5
_RETRIED_STATUSES = (429, 503)


class Patience:
    """The time that one call may still take without a success, and its pauses.

    Args:
        seconds: The total, counted since the last success.
        silence_seconds: How long a connection may be silent.
        clock: Monotonic seconds.
    """

    def __init__(self, seconds: float, silence_seconds: float, clock: Callable[[], float]) -> None:
        self._seconds = seconds
        self._silence_seconds = silence_seconds
        self._clock = clock
        self.succeed()

    def succeed(self) -> None:
        """Begin to count anew: something came that is of use."""
        self._deadline = self._clock() + self._seconds
        self._pause = _FIRST_PAUSE_SECONDS

    def another(self) -> "Patience":
        """Return a patience as long as this one, counted from now."""
        return Patience(self._seconds, self._silence_seconds, self._clock)

    @property
    def left_seconds(self) -> float:
        """Return the seconds that are left; not negative."""
        return max(0.0, self._deadline - self._clock())

    @property
    def silence_seconds(self) -> float:
        """Return how long the next request's connection may be silent."""
        return min(self._silence_seconds, max(self.left_seconds, _SHORTEST_SILENCE_SECONDS))

    def pause_after(self, error: MdpError) -> float:
        """Return the seconds to wait before another try.

        Raises:
            MdpError: `error` itself, where no other try is due: it would fail again, or the
                patience ends before the service can be asked again.
        """
        if not _is_retried(error):
            raise error
        left = self.left_seconds
        if not left or (error.retry_after or 0.0) > min(left, _LONGEST_RETRY_AFTER_SECONDS):
            raise error
        if error.retry_after:
            return error.retry_after
        # Jitter keeps clients apart that a restart of the service has brought together.
        pause = self._pause * random.uniform(0.7, 1.3)  # noqa: S311 - no secret
        self._pause = min(2 * self._pause, _LONGEST_PAUSE_SECONDS)
        return min(pause, left)


def _is_retried(error: MdpError) -> bool:
    if isinstance(error, (ConnectionFailed, BrokenBody)):
        return True
    return error.status in _RETRIED_STATUSES
