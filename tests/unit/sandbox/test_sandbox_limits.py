"""The sandbox's rate limits, on a clock of the test's own."""

from dataclasses import dataclass

from scripts.sandbox.limits import ClockMinuteBudget, Refusal, TokenBucket

HOST = "10.0.0.1"


@dataclass
class Watch:
    """A source of seconds that stands still until it is moved."""

    now: float = 600.0

    def __call__(self) -> float:
        return self.now


def test_budget_refuses_what_exceeds_the_minute_and_starts_anew_at_the_next() -> None:
    """The limit itself is allowed; the next request waits for :00, however late."""
    watch = Watch(now=645.0)
    budget = ClockMinuteBudget(100, watch, bans=True)

    assert budget.charge(HOST, 100) is None
    assert budget.charge(HOST, 1) == Refusal(429, 15)
    assert budget.used(HOST) == 101
    watch.now = 660.0
    assert budget.used(HOST) == 0
    assert budget.charge(HOST, 1) is None


def test_addresses_have_budgets_of_their_own() -> None:
    """Addresses have separate budgets."""
    budget = ClockMinuteBudget(10, Watch(), bans=True)
    budget.charge(HOST, 50)

    assert budget.charge("10.0.0.2", 10) is None


def test_going_on_over_the_limit_is_banned_for_two_minutes_then_four() -> None:
    """Refused requests are counted; too many are answered with 418, longer each time."""
    watch = Watch()
    budget = ClockMinuteBudget(10, watch, bans=True)
    first = [budget.charge(HOST, 11) for _ in range(12)]

    assert first == [Refusal(429, 60)] * 10 + [Refusal(418, 120)] * 2
    watch.now += 119.5
    assert budget.charge(HOST, 1) == Refusal(418, 1)
    watch.now += 0.5
    again = [budget.charge(HOST, 11) for _ in range(12)]
    assert again[-1] == Refusal(418, 240)


def test_budget_without_bans_only_refuses() -> None:
    """An exchange that knows no ban answers 429 however often one asks."""
    budget = ClockMinuteBudget(10, Watch(), bans=False)

    assert {budget.charge(HOST, 11) for _ in range(50)} == {Refusal(429, 60)}


def test_bucket_holds_its_burst_and_refills_lazily() -> None:
    """Fifteen at once, then ten a second; a long rest fills it, not more."""
    watch = Watch()
    bucket = TokenBucket(15, 10, watch)
    burst = [bucket.charge(HOST) for _ in range(16)]

    assert burst == [None] * 15 + [Refusal(429, 1)]
    watch.now += 0.25
    assert [bucket.charge(HOST) for _ in range(3)] == [None, None, Refusal(429, 1)]
    watch.now += 1_000
    assert [bucket.charge(HOST) for _ in range(16)] == burst
