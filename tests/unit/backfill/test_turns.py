"""The wait for a job's turn."""

from mdp_core.backfill.turns import Entry, ahead_of_each


def test_small_jobs_of_one_subject_go_first() -> None:
    """Equal ones in the order in which they were opened."""
    entries = [Entry(1, "a", 100), Entry(2, "a", 5), Entry(3, "a", 5)]

    assert ahead_of_each(entries) == {2: 0, 3: 5, 1: 10}


def test_other_subjects_take_no_more_than_their_turns() -> None:
    """A small job waits for as much of each other subject, not for all that it queued."""
    entries = [*(Entry(n, "greedy", 1000) for n in range(10)), Entry("small", "b", 8)]
    ahead = ahead_of_each([*entries, Entry("mean", "c", 20)])

    assert ahead["small"] == 8 + 8
    assert ahead["mean"] == 20 + 8
    assert ahead[0] == 28
