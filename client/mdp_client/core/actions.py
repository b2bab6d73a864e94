"""The words of core and loops: the core yields actions, a loop carries them out.

A flow is a generator. It yields an action and is sent the action's result, or has the action's
error thrown into it; it returns what the call gives. It touches no socket, no clock and no
terminal, so that one flow serves the synchronous and the asynchronous client.
"""

from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias, TypeVar

from mdp_client.arrow import RecordBatch
from mdp_client.records import JobStatus

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Send:
    """A request to be sent; results in its `Head`.

    Attributes:
        target: Path and query, encoded.
        silence_seconds: How long no byte may come, of head and body.
        body: JSON, if there is any.
    """

    method: str
    target: str
    silence_seconds: float
    headers: Mapping[str, str] = field(default_factory=dict[str, str])
    body: bytes | None = None


@dataclass(frozen=True, slots=True)
class Head:
    """An answer's status and headers, whose names are in lower case."""

    status: int
    headers: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Receive:
    """Room for the next bytes of the body; results in their count, 0 at its end."""

    room: memoryview


@dataclass(frozen=True, slots=True)
class Wait:
    """A pause; results in nothing."""

    seconds: float


@dataclass(frozen=True, slots=True)
class Show:
    """Jobs that are followed, for the progress display; results in nothing."""

    jobs: tuple[JobStatus, ...]


@dataclass(frozen=True, slots=True)
class Emit:
    """Candles for the caller; results in nothing."""

    batch: RecordBatch


@dataclass(frozen=True, slots=True)
class Do:
    """Work on files, which must not hold up an event loop; results in what it returns."""

    work: Callable[[], Any]


Action: TypeAlias = Send | Receive | Wait | Show | Emit | Do
Flow: TypeAlias = Generator[Action, Any, T]
