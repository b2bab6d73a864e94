"""Count answers from the store, and those that an exchange was asked for."""

from dataclasses import dataclass

from mdp_core.domain.queries import Answer


@dataclass(slots=True)
class AnswerCounts:
    """Counts answers since this process began, and those from the store alone."""

    hits: int = 0
    misses: int = 0

    def note(self, answer: Answer) -> None:
        """Count an answer; one that was fetched in part is a miss."""
        if answer.cache == "hit":
            self.hits += 1
        else:
            self.misses += 1
