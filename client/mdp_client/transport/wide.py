"""httpx on this machine reads 256 KiB: httpcore's 64 cost a third more."""

import ssl
from collections.abc import Iterable
from typing import Any, cast

import httpcore
import httpx

_READ_BYTES = 1 << 18


class WideTransport(httpx.AsyncHTTPTransport):
    """A transport without proxies whose connections read more at a time."""

    def __init__(self, security: ssl.SSLContext) -> None:
        super().__init__(verify=security)
        self._pool = httpcore.AsyncConnectionPool(
            ssl_context=security, keepalive_expiry=5.0, network_backend=_Backend()
        )


class _Backend(httpcore.AsyncNetworkBackend):
    def __init__(self) -> None:
        # A checker knows this class only where anyio is installed; httpx brings it.
        self._backend = cast("httpcore.AsyncNetworkBackend", httpcore.AnyIOBackend())

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,  # noqa: ASYNC109 - httpcore's signature
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        return _Stream(
            await self._backend.connect_tcp(host, port, timeout, local_address, socket_options)
        )

    async def sleep(self, seconds: float) -> None:
        await self._backend.sleep(seconds)


class _Stream(httpcore.AsyncNetworkStream):
    def __init__(self, stream: httpcore.AsyncNetworkStream) -> None:
        self._stream = stream

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:  # noqa: ASYNC109 - httpcore's
        return await self._stream.read(max(max_bytes, _READ_BYTES), timeout)

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:  # noqa: ASYNC109 - httpcore's
        await self._stream.write(buffer, timeout)

    async def aclose(self) -> None:
        await self._stream.aclose()

    async def start_tls(
        self,
        ssl_context: ssl.SSLContext,
        server_hostname: str | None = None,
        timeout: float | None = None,  # noqa: ASYNC109 - httpcore's signature
    ) -> httpcore.AsyncNetworkStream:
        return _Stream(await self._stream.start_tls(ssl_context, server_hostname, timeout))

    def get_extra_info(self, info: str) -> Any:
        return self._stream.get_extra_info(info)
