"""A cheap client: bytes in, nothing parsed but the head of an answer."""

import asyncio
import http.client
import time
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import urlsplit

import numpy as np

_BUFFER_BYTES = 1 << 20
_TIMEOUT_SECONDS = 300


@dataclass(frozen=True, slots=True)
class Target:
    """A server, and the headers that it wants."""

    url: str
    headers: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Load:
    """The figures of many clients: requests a second, and seconds of each request."""

    rate: float
    seconds: list[float]


def download(target: Target, path: str) -> int:
    """Read an answer to its end, keeping nothing; give its length."""
    connection, response = _open(target, path)
    buffer, length = bytearray(_BUFFER_BYTES), 0
    while count := response.readinto(buffer):
        length += count
    connection.close()
    return length


def fetch(target: Target, path: str) -> memoryview:
    """Read an answer into memory: into one piece where it tells its length."""
    connection, response = _open(target, path)
    if response.length is None:
        return memoryview(response.read())
    body, filled = np.empty(response.length, np.uint8).data, 0
    while count := response.readinto(body[filled:]):
        filled += count
    connection.close()
    return body[:filled]


def _open(target: Target, path: str) -> tuple[http.client.HTTPConnection, http.client.HTTPResponse]:
    address = urlsplit(target.url)
    connection = http.client.HTTPConnection(
        str(address.hostname), address.port, timeout=_TIMEOUT_SECONDS
    )
    connection.request("GET", path, headers=dict(target.headers))
    response = connection.getresponse()
    if response.status != http.HTTPStatus.OK:
        message = f"{path}: HTTP {response.status} {response.read(1000)!r}"
        raise RuntimeError(message)
    return connection, response


async def load(target: Target, path: str, *, clients: int, requests: int) -> Load:
    """Run several clients for the same target, each on a connection of its own."""
    seconds = list[float]()
    begun = time.perf_counter()
    await asyncio.gather(
        *(_ask(target, path, requests // clients, seconds) for _ in range(clients))
    )
    return Load(len(seconds) / (time.perf_counter() - begun), seconds)


async def _ask(target: Target, path: str, requests: int, seconds: list[float]) -> None:
    address = urlsplit(target.url)
    reader, writer = await asyncio.open_connection(address.hostname, address.port, limit=1 << 18)
    lines = [f"GET {path} HTTP/1.1", f"Host: {address.netloc}"]
    lines += [f"{name}: {value}" for name, value in target.headers.items()]
    request = "\r\n".join([*lines, "", ""]).encode()
    for _ in range(requests):
        begun = time.perf_counter()
        writer.write(request)
        head = await reader.readuntil(b"\r\n\r\n")
        if not head.startswith(b"HTTP/1.1 200"):
            raise RuntimeError(head.decode())
        length = head.lower().partition(b"content-length:")[2].partition(b"\r")[0]
        await reader.readexactly(int(length))
        seconds.append(time.perf_counter() - begun)
    writer.close()
    await writer.wait_closed()
