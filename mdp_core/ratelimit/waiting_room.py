"""The bound on the requests that wait for an exchange, whatever they wait for."""

from collections import Counter
from collections.abc import Generator
from contextlib import contextmanager

from mdp_core.errors import Overloaded, QuotaExceeded
from mdp_core.ratelimit.context import RequestContext

_RETRY_SECONDS = 1.0


class WaitingRoom:
    """Counts the requests of a process that wait for one exchange.

    Args:
        most: How many may wait at once.
        most_of_subject: How many of them may be one subject's.
    """

    def __init__(self, most: int, most_of_subject: int) -> None:
        self._most = most
        self._most_of_subject = most_of_subject
        self._by_subject: Counter[str] = Counter()
        self.waiting = 0
        """How many wait now."""

    @contextmanager
    def place(self, context: RequestContext) -> Generator[None]:
        """Take a place while the context is open.

        A request that has a place needs no other, and work that no client waits for by itself,
        like the task that fills a page, needs none.

        Raises:
            Overloaded: There is no place.
            QuotaExceeded: The caller's subject has all that one may have.
        """
        caller = context.caller
        if caller is None or caller.is_waiting or context.permit:
            yield
            return
        if self.waiting >= self._most:
            raise Overloaded
        if caller.subject and self._by_subject[caller.subject] >= self._most_of_subject:
            raise _too_many(caller.subject, self._most_of_subject)
        self.waiting += 1
        self._by_subject[caller.subject] += 1
        caller.is_waiting = True
        try:
            yield
        finally:
            caller.is_waiting = False
            self.waiting -= 1
            self._by_subject[caller.subject] -= 1
            self._by_subject += Counter()  # drops the subjects without a place


def _too_many(subject: str, most: int) -> QuotaExceeded:
    what = f"{most} requests of {subject} wait for the exchange already"
    return QuotaExceeded(what, "wait for their answers", _RETRY_SECONDS)
