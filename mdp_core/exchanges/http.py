"""Send the adapters' requests: budget, deadline, attempts, translated errors.

Every httpx and JSON error is turned here into a subclass of `ExchangeError`; above this module
no module knows that there is HTTP.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Mapping
from contextlib import aclosing
from copy import copy
from typing import Self, TypeVar

import httpx
import orjson
import stamina
from stamina.instrumentation import RetryDetails, set_on_retry_hooks

from mdp_core.errors import (
    BadPayload,
    ExchangeError,
    ExchangeRejected,
    ExchangeUnavailable,
    RateLimited,
)
from mdp_core.exchanges.contact import Contact
from mdp_core.exchanges.network import describe_failure
from mdp_core.exchanges.refusals import SHOWN_CHARACTERS, refusal_in, retry_after_seconds
from mdp_core.exchanges.relay import HANDED_BACK, Question, Relayed
from mdp_core.ratelimit.context import DEFAULT_CONTEXT, RequestContext
from mdp_core.ratelimit.scheduler import RequestScheduler
from mdp_core.ratelimit.waiting_room import WaitingRoom

Parsed = TypeVar("Parsed")

_log = logging.getLogger(__name__)

_ATTEMPTS = 4
_FIRST_WAIT_SECONDS = 0.25
_ANY_NUMBER = 2**31
_WAITING_PART = 0.95
# The longest answers are lists of symbols, of some megabytes.
_LONGEST_BODY_BYTES = 32 << 20

# How long all processes wait after a refusal that names no time. Binance: 429 means stop, and
# going on leads to 418, a ban of two minutes or more; 403 comes from a firewall that abuse
# triggers.
# https://developers.binance.com, usds-margined-futures/general-info, "Limits"
_BLOCKS_SECONDS = {429: 60.0, 418: 120.0, 403: 120.0}
# A 403 for what another program asked says nothing about this service.
_RELAYED_BLOCKS = frozenset({429, 418})
_REQUEST_TIMEOUT = 408  # the exchange's own: it may be asked again


def tell_of_retries() -> None:
    """Have a line for every attempt that is repeated; stamina's own names no exchange."""
    set_on_retry_hooks([_log_retry])


class ExchangeHttp:
    """HTTP to one exchange, within its budget.

    Args:
        exchange: Its name, for errors.
        client: Base URL and headers set; its time-out bounds one attempt.
        scheduler: Lets requests through within the exchange's shared budget.
        deadline_seconds: For one request with its waiting and its attempts.
        room: Where requests wait for the exchange.
    """

    def __init__(
        self,
        exchange: str,
        client: httpx.AsyncClient,
        scheduler: RequestScheduler,
        *,
        deadline_seconds: float,
        room: WaitingRoom | None = None,
    ) -> None:
        self.room = room or WaitingRoom(_ANY_NUMBER, _ANY_NUMBER)
        self._exchange = exchange
        self._client = client
        self._scheduler = scheduler
        self._deadline_seconds = deadline_seconds
        self._context = DEFAULT_CONTEXT
        self.contact = Contact()
        """The outcome of the last request, of all that is bound to any context."""

    def bound(self, context: RequestContext) -> Self:
        """Return this helper for requests on behalf of `context`."""
        bound = copy(self)
        bound._context = context  # noqa: SLF001 - of its own copy
        return bound

    async def get_json(
        self,
        path: str,
        params: Mapping[str, str | int],
        parse: Callable[[object], Parsed],
        *,
        weight: float,
    ) -> Parsed:
        """Send a GET request that costs `weight` and parse the JSON that it brings.

        Args:
            path: Relative to the exchange's base URL.
            params: The query.
            parse: Raises `BadPayload` for an answer of the wrong shape, which is asked for again.
            weight: What the exchange charges.

        Raises:
            ExchangeUnavailable: Unreachable, out of order, or silent until the deadline.
            RateLimited: No token can be had before the deadline, or the exchange refused.
            ExchangeRejected: Any other refusal; the same request will be refused again.
            BadPayload: The body can't be read, however often it was asked for.
        """
        request = self._client.build_request("GET", path, params=dict(params))
        return await self._send_in_time(request, parse, weight)

    async def post_json(
        self,
        path: str,
        body: object,
        parse: Callable[[object], Parsed],
        *,
        weight: float,
        charged: Callable[[Parsed], float] | None = None,
    ) -> Parsed:
        """Send `body` as JSON by POST; otherwise as `get_json`.

        Args:
            path: As in `get_json`.
            body: What to send.
            parse: As in `get_json`.
            weight: What the exchange charges at the most.
            charged: Tells from the answer what it did charge; what is over is given back.
        """
        request = self._client.build_request("POST", path, json=body)
        return await self._send_in_time(request, parse, weight, charged)

    async def relay(self, question: Question) -> Relayed:
        """Send a question once and return what comes back, whatever it is.

        Raises:
            ExchangeUnavailable: It can't be reached.
            RateLimited: No tokens can be had within the context's time.
            BadPayload: The answer is longer than any list of symbols.
        """
        await self._scheduler.pay(question.weight, self._context, until=self._context.until)
        request = self._client.build_request(
            question.method,
            question.target,
            content=question.body or None,
            headers=question.headers,
        )
        response, body = await self._exchanged(request)
        if response.status_code in _RELAYED_BLOCKS:
            await self._block(response)
        elif question.charged:
            await self._scheduler.settle(question.weight - question.charged(body))
        told = response.headers
        handed = {name: told[name] for name in HANDED_BACK if name in told}
        return Relayed(response.status_code, body, handed)

    async def _send_in_time(
        self,
        request: httpx.Request,
        parse: Callable[[object], Parsed],
        weight: float,
        charged: Callable[[Parsed], float] | None = None,
    ) -> Parsed:
        try:
            with self._context.upstream.waiting():
                async with asyncio.timeout(self._deadline_seconds):
                    return await self._send(request, parse, weight, charged)
        except TimeoutError as error:
            raise ExchangeUnavailable(self._exchange, "did not answer in time") from error

    async def _send(
        self,
        request: httpx.Request,
        parse: Callable[[object], Parsed],
        weight: float,
        charged: Callable[[Parsed], float] | None,
    ) -> Parsed:
        # The wait for tokens ends a little sooner than everything, so that it is told as such.
        until = asyncio.get_running_loop().time() + self._deadline_seconds * _WAITING_PART
        async for attempt in stamina.retry_context(
            on=_wait_before_retry,
            attempts=_ATTEMPTS,
            timeout=None,
            wait_initial=_FIRST_WAIT_SECONDS,
        ):
            await self._scheduler.pay(weight, self._context, until=until)
            with attempt:
                parsed = await self._attempt_parsed(request, parse)
                await self._scheduler.settle(weight - charged(parsed) if charged else 0)
                return parsed
        raise AssertionError  # the retry context returns or raises

    async def _attempt_parsed(
        self, request: httpx.Request, parse: Callable[[object], Parsed]
    ) -> Parsed:
        try:
            parsed = parse(await self._attempt(request))
        except ExchangeError as error:
            error.path = request.url.path  # for the log: the retry hook knows the error only
            self.contact.failed(error)
            raise
        self.contact.succeeded()
        return parsed

    async def _attempt(self, request: httpx.Request) -> object:
        response, body = await self._exchanged(request)
        if not response.is_success:
            raise await self._refusal(response, body)
        try:
            payload = orjson.loads(body)
        except orjson.JSONDecodeError as error:
            raise BadPayload(self._exchange, "answered what is not JSON") from error
        if words := refusal_in(payload):
            what = f"refused the request, with HTTP {response.status_code}: {words}"
            raise ExchangeRejected(self._exchange, what)
        return payload

    async def _exchanged(self, request: httpx.Request) -> tuple[httpx.Response, bytes]:
        """Send a request, count it, and note what its answer says of the limit."""
        self._context.upstream.requests += 1
        sent_at = time.time()
        try:
            response, body = await self._received(request)
        except httpx.HTTPError as error:
            what = describe_failure(request, error)
            raise ExchangeUnavailable(self._exchange, what) from error
        self._scheduler.observe_limit(response.headers, sent_at)
        return response, body

    async def _received(self, request: httpx.Request) -> tuple[httpx.Response, bytes]:
        """Send a request and read the body of its answer, up to a size that no answer has."""
        response = await self._client.send(request, stream=True)
        body = bytearray()
        async with aclosing(response):
            async for part in response.aiter_bytes():
                body += part
                if len(body) > _LONGEST_BODY_BYTES:
                    what = f"answered more than {_LONGEST_BODY_BYTES >> 20} MiB"
                    raise BadPayload(self._exchange, what)
        return response, bytes(body)

    async def _refusal(self, response: httpx.Response, body: bytes) -> ExchangeError:
        status = response.status_code
        if status in _BLOCKS_SECONDS:
            return RateLimited(self._exchange, await self._block(response))
        if response.is_server_error or status == _REQUEST_TIMEOUT:
            return ExchangeUnavailable(self._exchange, f"answered HTTP {status}")
        if response.has_redirect_location:
            what = f"moved: HTTP {status} sends to {response.headers['Location']}"
            return ExchangeRejected(self._exchange, what[:SHOWN_CHARACTERS])
        words = body.decode(errors="replace")[:SHOWN_CHARACTERS]
        return ExchangeRejected(self._exchange, f"refused the request: HTTP {status} {words}")

    async def _block(self, response: httpx.Response) -> float:
        """Have all processes wait as long as a refusal says; return the seconds."""
        status = response.status_code
        seconds = retry_after_seconds(response) or _BLOCKS_SECONDS[status]
        await self._scheduler.block(seconds, f"HTTP {status}")
        return seconds


def _log_retry(details: RetryDetails) -> None:
    error = details.caused_by
    extra = {
        "exchange": error.exchange if isinstance(error, ExchangeError) else "",
        "path": error.path if isinstance(error, ExchangeError) else "",
        "attempt": details.retry_num + 1,
        "wait_seconds": round(details.wait_for, 3),
        "reason": str(error),
    }
    _log.warning("asking the exchange again", extra=extra)


def _wait_before_retry(error: Exception) -> bool | float:
    if isinstance(error, RateLimited):
        return 0.0  # the budget waits, as for all processes behind this egress
    return isinstance(error, ExchangeUnavailable | BadPayload)
