"""The synchronous loop: carries out actions over the standard library.

`http.client` reads straight into the memory that a batch will lie in, which no other client does.
"""

import http.client
import time
from collections import deque
from collections.abc import Generator
from typing import Any, TypeVar

from mdp_client.arrow import RecordBatch
from mdp_client.config import Config
from mdp_client.core.actions import Action, Do, Emit, Flow, Head, Receive, Send, Show, Wait
from mdp_client.errors import MdpError
from mdp_client.transport.connecting import Connector
from mdp_client.transport.progress import Progress, ProgressDisplay
from mdp_client.transport.words import failure_of, silence_of

T = TypeVar("T")

_STALE = (ConnectionResetError, BrokenPipeError, http.client.RemoteDisconnected)


class SyncTransport:
    """Connections to one service; idle ones are kept, any thread may use it."""

    def __init__(self, config: Config) -> None:
        self._idle = deque[http.client.HTTPConnection]()
        self._config = config
        self._connector = Connector(config)
        self._headers = config.headers()

    def close(self) -> None:
        """Close the idle connections."""
        while self._idle:
            self._idle.pop().close()

    def __del__(self) -> None:
        self.close()  # a client that is let go leaves no open socket to be warned of

    def run(self, flow: Flow[T], progress: Progress) -> T:
        """Carry out a flow that emits nothing."""
        steps = self.stream(flow, progress)
        try:
            while True:
                next(steps)
        except StopIteration as end:
            return end.value

    def stream(self, flow: Flow[T], progress: Progress) -> Generator[RecordBatch, None, T]:
        """Carry out a flow, and yield what it emits when the caller asks for it."""
        exchange = _SyncExchange(self, ProgressDisplay(progress))
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
                    result = exchange.carry_out(action)
                except MdpError as error:
                    failure = error
        except StopIteration as end:
            return end.value
        except KeyboardInterrupt:
            exchange.display.interrupt()
            raise
        finally:
            flow.close()
            exchange.close()

    def open(self, request: Send) -> tuple[http.client.HTTPConnection, http.client.HTTPResponse]:
        """Send a request and read the head of its answer.

        Raises:
            ConnectionFailed: It could not be sent, or no answer came.
        """
        try:
            return self._open(request)
        except TimeoutError as error:
            raise silence_of(self._config, request.silence_seconds) from error
        except (OSError, http.client.HTTPException) as error:
            raise failure_of(self._config, error) from error

    def _open(self, request: Send) -> tuple[http.client.HTTPConnection, http.client.HTTPResponse]:
        while self._idle:
            connection = self._idle.pop()
            try:
                return connection, self._sent(connection, request)
            except _STALE:  # closed by the service while it was idle
                connection.close()
        connection = self._connector.connect(request.silence_seconds)
        return connection, self._sent(connection, request)

    def _sent(
        self, connection: http.client.HTTPConnection, request: Send
    ) -> http.client.HTTPResponse:
        try:
            if connection.sock:
                connection.sock.settimeout(request.silence_seconds)
            headers = {**self._connector.headers, **self._headers, **request.headers}
            target = self._connector.target(request.target)
            connection.request(request.method, target, request.body, headers)
            return connection.getresponse()
        except BaseException:
            connection.close()
            raise

    def receive(self, response: http.client.HTTPResponse, room: memoryview) -> int:
        """Read the next bytes of a body.

        Raises:
            ConnectionFailed: It broke, or was silent for too long.
        """
        try:
            return response.readinto(room)
        except TimeoutError as error:
            raise silence_of(self._config, self._config.timeout) from error
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise failure_of(self._config, error) from error

    def keep(self, connection: http.client.HTTPConnection) -> None:
        """Keep a connection whose answer was read to its end."""
        if connection.sock:
            self._idle.append(connection)


class _SyncExchange:
    """One call's answer on its way, and its display."""

    def __init__(self, transport: SyncTransport, display: ProgressDisplay) -> None:
        self.display = display
        self._transport = transport
        self._connection: http.client.HTTPConnection | None = None
        self._response: http.client.HTTPResponse | None = None

    def carry_out(self, action: Action) -> Any:
        if isinstance(action, Receive):
            return self._receive(action.room)
        if isinstance(action, Send):
            return self._send(action)
        if isinstance(action, Do):
            return action.work()
        if isinstance(action, Wait):
            self.close()
            time.sleep(action.seconds)
        elif isinstance(action, Show):
            self.display.show(action.jobs)
        return None

    def close(self) -> None:
        """Give up what is not read to its end."""
        self.display.close()
        if self._connection:
            self._connection.close()
        self._connection = self._response = None

    def _send(self, request: Send) -> Head:
        self._leave()
        self._connection, self._response = self._transport.open(request)
        headers: dict[str, str] = {}
        for name, value in self._response.getheaders():
            known = headers.get(name.lower())
            headers[name.lower()] = f"{known}, {value}" if known else value
        return Head(self._response.status, headers)

    def _receive(self, room: memoryview) -> int:
        if self._response is None:
            return 0
        count = self._transport.receive(self._response, room)
        if not count:
            self._leave()
        return count

    def _leave(self) -> None:
        """Keep the connection if its answer is read to the end, else close it."""
        connection, response = self._connection, self._response
        self._connection = self._response = None
        if connection and response:
            if response.length == 0:
                response.read()  # the answer to a HEAD, which has no body
            if response.isclosed():
                self._transport.keep(connection)
            else:
                connection.close()
