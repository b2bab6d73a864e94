"""Wait for a condition that nothing signals."""

import asyncio
import inspect
import time
from collections.abc import Callable

# Below pytest's own timeout, so that the failure names the condition.
_PATIENCE_SECONDS = 100.0
_POLL_SECONDS = 0.01


async def eventually(holds: Callable[[], bool], *, seconds: float = _PATIENCE_SECONDS) -> None:
    """Wait until a condition holds; fail with its source if it never does."""
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, _never(holds)
        await asyncio.sleep(_POLL_SECONDS)


def wait_until(holds: Callable[[], bool], *, or_tell: Callable[[], str] | None = None) -> None:
    """Wait as `eventually`, outside an event loop; a failure ends with `or_tell`."""
    deadline = time.monotonic() + _PATIENCE_SECONDS
    while not holds():
        assert time.monotonic() < deadline, _never(holds) + (or_tell() if or_tell else "")
        time.sleep(_POLL_SECONDS)


def _never(holds: Callable[[], bool]) -> str:
    return f"never came true: {inspect.getsource(holds).strip()}\n"
