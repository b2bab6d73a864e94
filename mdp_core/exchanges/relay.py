"""Questions handed to an exchange as they came, and its answers."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Question:
    """A public request, without its asker's headers but the body's type."""

    method: str
    target: str
    """Path and query, relative to the exchange's base URL, encoded as they came."""
    body: bytes = b""
    content_type: str = ""
    weight: float = field(default=1, compare=False)
    """What the exchange charges at the most."""
    charged: Callable[[bytes], float] | None = field(default=None, compare=False)
    """Tells from the body of the answer what it did charge."""

    @property
    def headers(self) -> Mapping[str, str]:
        """The headers that go out with it, beside the client's own."""
        return {"Content-Type": self.content_type} if self.content_type else {}


@dataclass(frozen=True, slots=True)
class Relayed:
    """An exchange's answer, whatever it says."""

    status: int
    body: bytes
    headers: Mapping[str, str]


HANDED_BACK = ("Content-Type", "Retry-After")
"""The headers of an exchange's answer that its asker sees."""
