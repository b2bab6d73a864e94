"""The sandbox as one web application: exchanges, archive and controls.

A request is logged when it comes, delayed by the latency, answered and charged, and only then may
a fault hit it: a fault concerns a request that would have been answered with candles, or with the
exchange's time or its symbols. A hanging request ends when its client leaves; a server that is to
stop at once in spite of it needs uvicorn's `timeout_graceful_shutdown`.
"""

import asyncio
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import cast

import orjson
from pydantic import TypeAdapter, ValidationError
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from mdp_core.domain.clock import Clock, to_ms
from scripts.sandbox import binance, coinbase, hyperliquid
from scripts.sandbox.archive import Archive, error, failed
from scripts.sandbox.control import Fault, Log, LogEntry, SandboxSettings
from scripts.sandbox.exchange import CandleReply, Reply, SandboxCall, SandboxExchange
from scripts.sandbox.faults import Faults, complaint
from scripts.sandbox.replay import Replay
from scripts.sandbox.spoiling import failure, misdirect, spoil
from scripts.sandbox.transfers import transfer

_HANG_SECONDS = 60.0
_FAULTS = TypeAdapter(list[Fault])
_OFFERED = {"binance": binance.GRIDS, "hyperliquid": hyperliquid.GRIDS, "coinbase": coinbase.GRIDS}
_CLIENT_LEFT = Reply(499, b"")


@dataclass(frozen=True, slots=True)
class SandboxOptions:
    """Start options of the sandbox; latency and limits can be changed while it runs.

    Attributes:
        clock: The exchanges' time; budgets, latency and the log keep real time.
        data: Folder of candles to replay.
        latency_ms: Delay of every exchange request.
        limits: Whether exceeding a rate limit has consequences.
    """

    clock: Clock = field(default_factory=Clock)
    data: Path | None = None
    latency_ms: float = 0
    limits: bool = True


def create_sandbox(options: SandboxOptions) -> Starlette:
    """Build the application; the files of `options.data` are read here."""
    replay = Replay(options.data, _OFFERED)
    now_ms = to_ms(options.clock())
    futures = binance.Binance(replay, now_ms)
    exchanges = (futures, hyperliquid.Hyperliquid(replay), coinbase.Coinbase(replay))
    named = {exchange.name: exchange for exchange in exchanges}
    sandbox = Sandbox(options, named, futures.archive)
    any_method = ["GET", "POST", "PUT", "PATCH", "DELETE"]
    return Starlette(
        routes=[
            Route("/_sandbox/requests", sandbox.control_requests, methods=["GET", "DELETE"]),
            Route("/_sandbox/faults", sandbox.control_faults, methods=["GET", "POST", "DELETE"]),
            Route("/_sandbox/settings", sandbox.control_settings, methods=["GET", "POST"]),
            Route("/archive/{path:path}", sandbox.serve_archive),
            Route("/{exchange}/{path:path}", sandbox.serve, methods=any_method),
        ]
    )


class Sandbox:
    """The state of one running sandbox, and the handlers of its routes."""

    def __init__(
        self, options: SandboxOptions, exchanges: Mapping[str, SandboxExchange], archive: Archive
    ) -> None:
        """Serve these exchanges under their names, and the archive."""
        self._clock = options.clock
        self._latency_ms = options.latency_ms
        self._limits = options.limits
        self._exchanges = exchanges
        self._archive = archive
        self._log = Log()
        self._faults = Faults()

    async def serve(self, request: Request) -> Response:
        """Answer one request to an exchange."""
        exchange = self._exchanges.get(request.path_params["exchange"])
        if exchange is None:
            return _json({"error": f"no such exchange; there are {sorted(self._exchanges)}"}, 404)
        call, entry = await self._received(request, exchange.name)
        answer = await self._answer(exchange, call, entry, request)
        return _logged(answer, entry, exchange.headers(call.host))

    async def serve_archive(self, request: Request) -> Response:
        """Answer one request to the archive."""
        call, entry = await self._received(request, "archive")
        found = self._archive.find(call.path, to_ms(self._clock()))
        if found is None:
            return _logged(error("missing"), entry)
        file, is_checksum = found
        fault = self._faults.take_file(file, checksum=is_checksum)
        entry.fault = fault.fault if fault else None
        if fault and fault.fault == "hang":
            return _logged(await _hang(request, fault), entry)
        if fault and (failure := failed(fault)):
            return _logged(failure, entry)
        make = self._archive.checksum if is_checksum else self._archive.content
        body = await asyncio.to_thread(make, file, fault)
        entry.status = 200
        return transfer(body, fault)

    async def _received(self, request: Request, exchange: str) -> tuple[SandboxCall, LogEntry]:
        call = await _call(request)
        entry = self._log.add(exchange, call)
        if self._latency_ms:
            await asyncio.sleep(self._latency_ms / 1000)
        return call, entry

    async def _answer(
        self, exchange: SandboxExchange, call: SandboxCall, entry: LogEntry, request: Request
    ) -> Reply:
        now_ms = to_ms(self._clock())
        answer = exchange.answer(call, now_ms)
        refusal = exchange.charge(call, answer) if self._limits else None
        if refusal:
            return exchange.refuse(refusal, now_ms)
        if isinstance(answer, Reply):
            return answer
        fault = self._faults.take(exchange.name, call.params, answer, now_ms)
        entry.fault = fault.fault if fault else None
        if fault and fault.fault == "hang":
            return await _hang(request, fault)
        if fault and (failed := failure(fault, exchange, to_ms(self._clock()))):
            return failed
        if isinstance(answer, CandleReply):
            answer = self._published(exchange, answer, fault, entry)
        return Reply(200, spoil(fault, answer))

    def _published(
        self, exchange: SandboxExchange, page: CandleReply, fault: Fault | None, entry: LogEntry
    ) -> CandleReply:
        if fault and fault.fault == "late_candle":
            self._faults.withhold(exchange.name, page, fault)
        page = misdirect(fault, page, to_ms(self._clock())) if fault else page
        published = self._faults.published(exchange.name, page)
        if published is not page:
            entry.fault = entry.fault or "late_candle"
        return published

    async def control_requests(self, request: Request) -> Response:
        """Give the log, or clear it."""
        if request.method == "DELETE":
            self._log.clear()
        return _json(self._log.rows())

    async def control_faults(self, request: Request) -> Response:
        """Order faults, or clear them; the answer is what is pending."""
        if request.method == "DELETE":
            self._faults.clear()
        elif request.method == "POST":
            try:
                faults = _FAULTS.validate_json(await request.body())
                self._check(faults)
            except ValueError as error:
                return _unacceptable(error)
            self._faults.order(faults)
        return _json([fault.model_dump() for fault in self._faults.pending()])

    async def control_settings(self, request: Request) -> Response:
        """Change settings; the answer is latency and limits."""
        if request.method == "POST":
            try:
                self._change(SandboxSettings.model_validate_json(await request.body()))
            except ValidationError as error:
                return _unacceptable(error)
        limits = "on" if self._limits else "off"
        return _json({"latency_ms": self._latency_ms, "limits": limits})

    def _change(self, settings: SandboxSettings) -> None:
        if settings.latency_ms is not None:
            self._latency_ms = settings.latency_ms
        if settings.limits is not None:
            self._limits = settings.limits == "on"
        if settings.unknown_status is not None:
            for exchange in self._exchanges.values():
                exchange.shows_unknown_status = settings.unknown_status == "on"

    def _check(self, faults: list[Fault]) -> None:
        for fault in faults:
            wrong = complaint(fault, self._exchanges.get(fault.exchange))
            if wrong:
                raise ValueError(wrong)


async def _call(request: Request) -> SandboxCall:
    params: Mapping[str, object] = dict(request.query_params)
    if request.method != "GET":
        with suppress(orjson.JSONDecodeError):
            body: object = orjson.loads(await request.body())
            params = cast("dict[str, object]", body) if isinstance(body, dict) else {}
    host = request.client.host if request.client else ""
    path = "/" + request.path_params["path"]
    return SandboxCall(request.method, path, params, host, _headers(tuple(request.headers.raw)))


@lru_cache(maxsize=256)  # a client sends the same ones again and again: the log holds them once
def _headers(raw: tuple[tuple[bytes, bytes], ...]) -> Mapping[str, str]:
    return {name.decode("latin-1"): value.decode("latin-1") for name, value in raw}


def _logged(answer: Reply, entry: LogEntry, headers: Mapping[str, str] | None = None) -> Response:
    """Note the status in the log, unless the client has left, and make the response."""
    if answer is not _CLIENT_LEFT:
        entry.status = answer.status
    told = {**answer.headers, **(headers or {})}
    return Response(answer.body, answer.status, told, answer.media_type)


async def _hang(request: Request, fault: Fault) -> Reply:
    """Answer nothing until the client leaves.

    Give up like a gateway after the fault's seconds.
    """
    with suppress(TimeoutError, asyncio.CancelledError):  # cancelled: the server stops
        async with asyncio.timeout(_HANG_SECONDS if fault.seconds is None else fault.seconds):
            while (await request.receive())["type"] != "http.disconnect":
                pass
            return _CLIENT_LEFT
    return Reply(504, b"<html><body>504 Gateway Time-out</body></html>", "text/html")


def _json(content: object, status: int = 200) -> Response:
    return Response(orjson.dumps(content), status, media_type="application/json")


def _unacceptable(error: ValueError) -> Response:
    return _json({"error": str(error)}, 422)
