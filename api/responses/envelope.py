"""An answer's metadata in bodies, headers and schemas; times in ms."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import orjson

from api.errors import kind_of
from mdp_core.domain.clock import to_ms
from mdp_core.domain.queries import Answer
from mdp_core.domain.windows import Window


@dataclass(frozen=True, slots=True)
class AnswerMetadata:
    """The metadata of an answer: window, columns, completeness and `next`.

    `following` is the path of the rest, if there is more.
    """

    answer: Answer
    columns: Sequence[str]
    following: str | None

    def window(self) -> dict[str, str | int | list[dict[str, int]]]:
        """Return the series, the window, and its unconfirmed parts."""
        answer, symbol = self.answer, self.answer.series.symbol
        return {
            "exchange": symbol.exchange,
            "market_type": symbol.market_type,
            "symbol": symbol.name,
            "interval": answer.series.interval.value,
            "start": to_ms(answer.window.start),
            "end": to_ms(answer.window.end),
            "settled_until": to_ms(answer.settled_until),
            "unconfirmed": describe_windows(answer.unconfirmed),
        }

    def completeness(self) -> dict[str, Any]:
        """Return whether the answer is complete, and the path of the rest."""
        fields: dict[str, Any] = {"complete": not self.answer.missing, "next": self.following}
        if self.answer.missing:
            fields["missing"] = [
                {
                    "start": to_ms(missing.window.start),
                    "end": to_ms(missing.window.end),
                    "reason": kind_of(missing.error).code,
                }
                for missing in self.answer.missing
            ]
        return fields

    def headers(self) -> dict[str, str]:
        """Return the metadata as headers, for formats without a JSON body."""
        answer = self.answer
        headers = {
            "X-Window-Start": str(to_ms(answer.window.start)),
            "X-Window-End": str(to_ms(answer.window.end)),
            "X-Settled-Until": str(to_ms(answer.settled_until)),
            "X-Complete": "false" if answer.missing else "true",
            "X-Unconfirmed": str(answer.unconfirmed_slots),
        }
        if self.following:
            headers["Link"] = f'<{self.following}>; rel="next"'
        return headers

    def metadata(self) -> dict[str, str]:
        """Return the metadata for a schema: texts as they are, the rest as JSON."""
        fields = {**self.window(), **self.completeness()}
        return {
            name: value if isinstance(value, str) else orjson.dumps(value).decode()
            for name, value in fields.items()
        }


def describe_windows(windows: Iterable[Window]) -> list[dict[str, int]]:
    """Return windows as they stand in bodies."""
    return [{"start": to_ms(window.start), "end": to_ms(window.end)} for window in windows]
