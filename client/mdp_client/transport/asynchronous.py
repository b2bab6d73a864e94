"""The asynchronous loop: carries out the same actions over httpx."""

import asyncio
import ssl
from collections.abc import AsyncGenerator, AsyncIterator
from typing import Any, TypeVar

import httpx

from mdp_client.arrow import RecordBatch
from mdp_client.config import Config
from mdp_client.core.actions import Action, Do, Emit, Flow, Head, Receive, Send, Show, Wait
from mdp_client.errors import MdpError
from mdp_client.transport.progress import Progress, ProgressDisplay
from mdp_client.transport.wide import WideTransport
from mdp_client.transport.words import failure_of, silence_of

T = TypeVar("T")


class AsyncTransport:
    """Connections to one service, in one event loop."""

    def __init__(self, config: Config) -> None:
        self._config = config
        security = config.security() or ssl.create_default_context()
        self._client = httpx.AsyncClient(
            transport=WideTransport(security) if config.is_local else None,
            verify=security,
            headers={**config.headers()},
            trust_env=not config.is_local,
            timeout=config.timeout,
        )

    async def close(self) -> None:
        """Close the connections."""
        await self._client.aclose()

    async def run(self, flow: Flow[T], progress: Progress) -> T:
        """Carry out a flow that emits nothing."""
        outcome = list[T]()
        async for _ in self.stream(flow, progress, outcome):
            pass
        return outcome[0]

    async def stream(
        self, flow: Flow[T], progress: Progress, outcome: list[T]
    ) -> AsyncGenerator[RecordBatch]:
        """Carry out a flow, and yield what it emits when the caller asks for it.

        An asynchronous generator can't return anything: `outcome` takes what the flow returns.
        """
        exchange = _AsyncExchange(self, ProgressDisplay(progress))
        result: Any = None
        failure: MdpError | None = None
        try:
            while True:
                action = flow.throw(failure) if failure else flow.send(result)
                result = failure = None
                if isinstance(action, Emit):
                    yield action.batch
                    continue
                try:
                    result = await exchange.carry_out(action)
                except MdpError as error:
                    failure = error
        except StopIteration as end:
            outcome.append(end.value)
        except asyncio.CancelledError:  # Ctrl-C comes to a coroutine like this
            exchange.display.interrupt()
            raise
        finally:
            flow.close()
            await exchange.close()

    async def open(self, request: Send) -> httpx.Response:
        """Send a request and read the head of its answer.

        Raises:
            ConnectionFailed: It could not be sent, or no answer came.
        """
        sent = self._client.build_request(
            request.method,
            self._config.origin + request.target,
            content=request.body,
            headers={**request.headers},
            timeout=httpx.Timeout(request.silence_seconds, pool=None),
        )
        try:
            # The answer to a HEAD has no body, and its connection is kept once that was read.
            return await self._client.send(sent, stream=request.method != "HEAD")
        except httpx.TimeoutException as error:
            raise silence_of(self._config, request.silence_seconds) from error
        except httpx.TransportError as error:
            raise failure_of(self._config, error) from error

    async def chunks(self, response: httpx.Response, seconds: float) -> AsyncIterator[memoryview]:
        """Yield a body as it comes.

        Raises:
            ConnectionFailed: It broke, or was silent for too long.
        """
        try:
            async for chunk in response.aiter_raw():
                yield memoryview(chunk)
        except httpx.TimeoutException as error:
            raise silence_of(self._config, seconds) from error
        except httpx.TransportError as error:
            raise failure_of(self._config, error) from error


class _AsyncExchange:
    """One call's answer on its way, and its display."""

    def __init__(self, transport: AsyncTransport, display: ProgressDisplay) -> None:
        self.display = display
        self._transport = transport
        self._response: httpx.Response | None = None
        self._chunks: AsyncIterator[memoryview] | None = None
        self._left = memoryview(b"")

    async def carry_out(self, action: Action) -> Any:
        if isinstance(action, Receive):
            return await self._receive(action.room)
        if isinstance(action, Send):
            return await self._send(action)
        if isinstance(action, Do):
            return await asyncio.to_thread(action.work)
        if isinstance(action, Wait):
            await self._leave()
            await asyncio.sleep(action.seconds)
        elif isinstance(action, Show):
            self.display.show(action.jobs)
        return None

    async def close(self) -> None:
        """Give up what is not read to its end."""
        self.display.close()
        await self._leave()

    async def _send(self, request: Send) -> Head:
        await self._leave()
        response = await self._transport.open(request)
        self._response = response
        if request.method != "HEAD":
            self._chunks = self._transport.chunks(response, request.silence_seconds)
        return Head(response.status_code, dict(response.headers))

    async def _receive(self, room: memoryview) -> int:
        """Copy what has come into the room; 0 at the end of the body."""
        if not self._left and self._chunks:
            self._left = await anext(self._chunks, memoryview(b""))
        count = min(len(self._left), len(room))
        room[:count] = self._left[:count]
        self._left = self._left[count:]
        return count

    async def _leave(self) -> None:
        response, self._response, self._chunks = self._response, None, None
        self._left = memoryview(b"")
        if response:
            await response.aclose()
