"""The summary of the series that failed in a run."""

from collections.abc import Sequence


def describe(errors: Sequence[BaseException]) -> str | None:
    """Say how many failed, and one of the reasons; None: none did."""
    return f"{len(errors)} failed, one with: {errors[0]}" if errors else None
