"""Counting of requests, and refusals, per client address.

Budgets live in real time, whatever clock the sandbox shows: that is what a client is protected
from. Each class is given a source of real seconds so that a test need not wait for a minute.
"""

import math
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass

Seconds = Callable[[], float]

BANNED = 418
EXCEEDED = 429

_MINUTE = 60
_PATIENCE = 10
_FIRST_BAN_SECONDS = 120
_LONGEST_BAN_SECONDS = 3 * 24 * 3600


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a request is not answered.

    The status, and for how many seconds to stay away.
    """

    status: int
    retry_after: int


@dataclass(slots=True)
class _Account:
    minute: int = 0
    used: int = 0
    refused: int = 0
    bans: int = 0
    banned_until: float = 0.0


class ClockMinuteBudget:
    """Weight per UTC clock minute; it starts anew at :00 and does not slide.

    With `bans`, a client that goes on after ten refusals in a minute is banned: two minutes at
    first, twice as long each time, three days at most.
    Source: developers.binance.com, usds-margined-futures/general-info, and measurements.
    """

    def __init__(self, limit: int, seconds: Seconds, *, bans: bool) -> None:
        """Make a budget of `limit` weight a minute for every address."""
        self.limit = limit
        self._seconds = seconds
        self._bans = bans
        self._accounts: defaultdict[str, _Account] = defaultdict(_Account)

    def used(self, host: str) -> int:
        """Tell the weight that the address has used in this minute."""
        return self._account(host).used

    def charge(self, host: str, weight: int) -> Refusal | None:
        """Book the weight, which refused requests cost too, and tell whether to refuse."""
        account = self._account(host)
        account.used += weight
        now = self._seconds()
        if now < account.banned_until:
            return Refusal(BANNED, math.ceil(account.banned_until - now))
        if account.used <= self.limit:
            return None
        account.refused += 1
        if self._bans and account.refused > _PATIENCE:
            return self._ban(account, now)
        return Refusal(EXCEEDED, _MINUTE - int(now) % _MINUTE)

    def _account(self, host: str) -> _Account:
        account = self._accounts[host]
        minute = int(self._seconds()) // _MINUTE
        if account.minute != minute:
            account.minute, account.used, account.refused = minute, 0, 0
        return account

    @staticmethod
    def _ban(account: _Account, now: float) -> Refusal:
        lasts = min(_FIRST_BAN_SECONDS * 2**account.bans, _LONGEST_BAN_SECONDS)
        account.bans += 1
        account.banned_until = now + lasts
        return Refusal(BANNED, lasts)


class TokenBucket:
    """Requests from a bucket that refills lazily: so many at once, so many a second.

    Source: docs.cdp.coinbase.com, exchange/rest-api/rate-limits.
    """

    def __init__(self, capacity: float, per_second: float, seconds: Seconds) -> None:
        """Make a full bucket for every address."""
        self._capacity = capacity
        self._per_second = per_second
        self._seconds = seconds
        self._buckets: dict[str, tuple[float, float]] = {}

    def charge(self, host: str) -> Refusal | None:
        """Take a token, or refuse when there is none."""
        now = self._seconds()
        tokens, since = self._buckets.get(host, (self._capacity, now))
        tokens = min(self._capacity, tokens + (now - since) * self._per_second)
        if tokens < 1:
            self._buckets[host] = (tokens, now)
            return Refusal(EXCEEDED, 1)
        self._buckets[host] = (tokens - 1, now)
        return None
