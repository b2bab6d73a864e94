"""A real HTTP server that answers as a test says: cut, silent, garbled or well."""

import socket
import socketserver
import threading
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Self
from urllib.parse import parse_qs, urlsplit


@dataclass(frozen=True, slots=True)
class Asked:
    """A request that came."""

    method: str
    target: str
    headers: Mapping[str, str]
    body: bytes

    @property
    def path(self) -> str:
        return urlsplit(self.target).path

    @property
    def query(self) -> dict[str, str]:
        return {name: values[0] for name, values in parse_qs(urlsplit(self.target).query).items()}


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer.

    Attributes:
        cut: Bytes of the body after which the connection breaks; None for all.
        is_silent: Whether the connection then stays open without another byte.
        has_length: Whether the head tells the length; else the body ends with the connection.
    """

    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict[str, str])
    body: bytes = b""
    cut: int | None = None
    is_silent: bool = False
    has_length: bool = True

    def encoded(self) -> bytes:
        headers = dict(self.headers)
        if self.has_length:
            headers["Content-Length"] = str(len(self.body))
        else:
            headers["Connection"] = "close"
        lines = [f"HTTP/1.1 {self.status} x", *(f"{name}: {it}" for name, it in headers.items())]
        body = self.body if self.cut is None else self.body[: self.cut]
        return "\r\n".join([*lines, "", ""]).encode() + body

    @property
    def ends(self) -> bool:
        return self.cut is not None or not self.has_length


Answer = Callable[[Asked], Reply]


class ScriptedServer:
    """Answers every request as `answer` says, and keeps what was asked."""

    def __init__(self, port: int) -> None:
        self.url = f"http://127.0.0.1:{port}"
        self.asked = list[Asked]()
        self.connections = 0
        self.answer: Answer = lambda _: Reply(404)
        self.is_over = threading.Event()

    def script(self, *replies: Reply) -> None:
        """Give these answers one after another, the last one for ever."""
        self.answer = lambda _: replies[min(len(self.asked), len(replies)) - 1]

    @classmethod
    @contextmanager
    def running(cls) -> Generator[Self]:
        """Run until the context is left."""
        with _Listener(("127.0.0.1", 0), _Handler) as listener:
            server = cls(listener.server_address[1])
            listener.scripted = server
            thread = threading.Thread(target=listener.serve_forever, args=(0.02,))
            thread.start()
            try:
                yield server
            finally:
                server.is_over.set()
                listener.shutdown()
                thread.join()


class _Listener(socketserver.ThreadingTCPServer):
    daemon_threads = True
    allow_reuse_address = True
    scripted: ScriptedServer


class _Handler(socketserver.StreamRequestHandler):
    server: _Listener  # pyright: ignore[reportIncompatibleVariableOverride]

    def handle(self) -> None:
        self.server.scripted.connections += 1
        with suppress(OSError):
            while asked := self._read():
                scripted = self.server.scripted
                scripted.asked.append(asked)
                reply = scripted.answer(asked)
                data = reply.encoded()
                if asked.method == "HEAD":
                    data = data[: data.index(b"\r\n\r\n") + 4]
                self.connection.sendall(data)
                if reply.is_silent:
                    scripted.is_over.wait()
                if reply.ends:
                    self.connection.shutdown(socket.SHUT_RDWR)
                    return

    def _read(self) -> Asked | None:
        first = self.rfile.readline().split()
        if len(first) < 2:
            return None
        headers = dict[str, str]()
        while line := self.rfile.readline().strip():
            name, _, value = line.decode().partition(":")
            headers[name.lower()] = value.strip()
        body = self.rfile.read(int(headers.get("content-length", "0")))
        return Asked(first[0].decode(), first[1].decode(), headers, body)
