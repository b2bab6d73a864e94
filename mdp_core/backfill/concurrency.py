"""Do things for many series: a few at a time, and patiently with rate limits."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from typing import TypeVar

from mdp_core.errors import RateLimited

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")

_SHORTEST_WAIT_SECONDS, _LONGEST_WAIT_SECONDS = 1.0, 30.0


async def gather_limited(
    do: Callable[[_Item], Awaitable[_Result]], items: Iterable[_Item], at_once: int
) -> list[_Result]:
    """Do it for each item, some at once; return the results in their order."""
    free = asyncio.Semaphore(at_once)

    async def do_one(item: _Item) -> _Result:
        async with free:
            return await do(item)

    return list(await asyncio.gather(*map(do_one, items)))


async def wait_out_rate_limit(
    do: Callable[[], Awaitable[_Result]], until: float | None = None
) -> _Result:
    """Run an action again until the exchange's rate limit lets it through.

    Args:
        do: Asks an exchange.
        until: The event loop's time after which it is not begun again; None: for ever.

    Raises:
        RateLimited: It had to wait longer.
    """
    while True:
        try:
            return await do()
        except RateLimited as error:
            seconds = max(error.retry_after_seconds, _SHORTEST_WAIT_SECONDS)
            seconds = min(seconds, _LONGEST_WAIT_SECONDS)
            if until is not None and asyncio.get_running_loop().time() + seconds > until:
                raise
            await asyncio.sleep(seconds)
