"""The order in which open jobs are worked on, and the wait for each. Pure."""

from collections import defaultdict
from collections.abc import Hashable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Entry:
    """An open job of an exchange: whose it is, and the weight that is missing for it."""

    job: Hashable
    subject: str
    weight: float


def ahead_of_each(entries: Sequence[Entry]) -> dict[Hashable, float]:
    """Return the weight that is fetched before each job is done, besides its own.

    Subjects take turns, so of each other one at most as much goes ahead as the subject itself has
    fetched by then; of its own jobs the smaller ones go ahead, and of equal ones the earlier.
    """
    own: dict[str, list[Entry]] = defaultdict(list)
    for entry in entries:
        own[entry.subject].append(entry)
    totals = {subject: sum(job.weight for job in jobs) for subject, jobs in own.items()}
    ahead: dict[Hashable, float] = {}
    for subject, jobs in own.items():
        others = [total for other, total in totals.items() if other != subject]
        before = 0.0
        for entry in sorted(jobs, key=lambda job: job.weight):
            fetched = before + entry.weight
            ahead[entry.job] = before + sum(min(total, fetched) for total in others)
            before = fetched
    return ahead
