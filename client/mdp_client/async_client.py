"""The asynchronous client: the same names as `Client`, awaited."""

from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from pathlib import Path
from types import TracebackType
from typing import Self, TypeVar, Unpack

from mdp_client.answer import Candles
from mdp_client.arrow import RecordBatch
from mdp_client.cache.caching import candles_of
from mdp_client.cache.folder import CacheFolder
from mdp_client.config import Config
from mdp_client.core.actions import Flow
from mdp_client.core.asking import Call
from mdp_client.core.following import list_jobs, open_jobs, read_job
from mdp_client.core.reading import (
    read_coverage,
    read_exchanges,
    read_intervals,
    read_inventory,
    read_latest,
    read_symbols,
)
from mdp_client.core.receiving import receive
from mdp_client.errors import JobStarted
from mdp_client.jobs import AsyncJob, AsyncJobs
from mdp_client.options import (
    CandleOptions,
    CoverageOptions,
    InventoryOptions,
    MarketOptions,
    SymbolOptions,
    WindowOptions,
    check_options,
    selection_of,
    wanted_candles,
    window_of,
)
from mdp_client.records import (
    Coverage,
    Exchange,
    Interval,
    JobStatus,
    Latest,
    StoredSeries,
    Symbol,
)
from mdp_client.transport.asynchronous import AsyncTransport
from mdp_client.transport.progress import Progress

T = TypeVar("T")


class AsyncClient:
    """Candles of a service, as a frame or an exception, in one event loop.

    As an asynchronous context manager it closes its connections. The arguments are those of
    `Client`.

    Example:
        >>> async def january() -> int:
        ...     async with AsyncClient() as client:
        ...         return len(
        ...             await client.candles(
        ...                 "binance", "perp", "BTC-USDT", "1h", start="2024", end="2024-02"
        ...             )
        ...         )
        >>> asyncio.run(january())
        744
    """

    def __init__(
        self,
        url: str | None = None,
        *,
        token: str | None = None,
        cache: bool | str | Path = False,
        timeout: float = 90.0,
        patience: float = 300.0,
    ) -> None:
        self._config = Config.of(url, token, timeout, patience)
        self._cache = CacheFolder.at(cache, self._config.url)
        self._transport = AsyncTransport(self._config)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()

    def __repr__(self) -> str:
        return f"AsyncClient({self._config.url!r})"

    async def close(self) -> None:
        """Close the connections; the client can't be used afterwards."""
        await self._transport.close()

    async def candles(
        self,
        exchange: str,
        market_type: str,
        symbol: str,
        interval: str,
        **options: Unpack[CandleOptions],
    ) -> Candles:
        """Return every closed candle of a window, ascending.

        The arguments are those of `Client.candles`.
        """
        series = (exchange, market_type, symbol, interval)
        wanted = wanted_candles(series, options, uniform=True)
        flow = candles_of(self._cache)
        progress = options.get("progress", "auto")
        return Candles(*await self.run(lambda call: flow(call, wanted), progress))

    def stream(
        self,
        exchange: str,
        market_type: str,
        symbol: str,
        interval: str,
        **options: Unpack[CandleOptions],
    ) -> AsyncGenerator[RecordBatch]:
        """Yield the candles of a window in batches, ascending, in bounded memory.

        The arguments are those of `Client.stream`.
        """
        series = (exchange, market_type, symbol, interval)
        wanted = wanted_candles(series, options, uniform=False)
        flow = receive(self._call(), wanted)
        return self._emitted(flow, options.get("progress", "auto"))

    async def latest(
        self, exchange: str, market_type: str, symbol: str, interval: str, *, forming: bool = False
    ) -> Latest:
        """Return the newest closed candle, or with `forming` the one not closed yet."""
        series = (exchange, market_type, symbol, interval)
        return await self.run(lambda call: read_latest(call, series, forming=forming))

    async def coverage(
        self,
        exchange: str,
        market_type: str,
        symbol: str,
        interval: str,
        **options: Unpack[CoverageOptions],
    ) -> Coverage:
        """Return the windows of a series with their states: stored, or why not.

        The arguments are those of `Client.coverage`.
        """
        check_options(options, CoverageOptions)
        series = (exchange, market_type, symbol, interval)
        given = {**window_of(options), "detail": options.get("detail")}
        return await self.run(lambda call: read_coverage(call, series, given))

    async def inventory(self, **filters: Unpack[InventoryOptions]) -> list[StoredSeries]:
        """Return which series the store holds; `exchange`, `symbol`, … may be globs."""
        check_options(filters, InventoryOptions)
        return await self.run(lambda call: read_inventory(call, dict(filters)))

    async def exchanges(self) -> list[Exchange]:
        """Return the exchanges of the service."""
        return await self.run(read_exchanges)

    async def symbols(self, **filters: Unpack[SymbolOptions]) -> list[Symbol]:
        """Return symbols, by `exchange`, `market_type`, `base`, `quote`, `active`, `q`."""
        check_options(filters, SymbolOptions)
        return await self.run(lambda call: read_symbols(call, dict(filters)))

    async def intervals(self, **filters: Unpack[MarketOptions]) -> list[Interval]:
        """Return the intervals of each market; `exchange` and `market_type` choose."""
        check_options(filters, MarketOptions)
        return await self.run(lambda call: read_intervals(call, dict(filters)))

    async def backfill(
        self,
        exchange: str,
        market_type: str | None,
        symbols: str | Sequence[str],
        intervals: str | Sequence[str],
        **window: Unpack[WindowOptions],
    ) -> AsyncJobs:
        """Have windows of many series filled, and return the jobs that do it.

        The arguments are those of `Client.backfill`.
        """
        check_options(window, WindowOptions)
        selection = selection_of(exchange, market_type, symbols, intervals) | window_of(window)
        return AsyncJobs(self, *await self.run(lambda call: open_jobs(call, selection)))

    async def jobs(self, state: str | None = None) -> AsyncJobs:
        """Return all jobs, the newest first; `state` is `open` or `ended`."""
        return AsyncJobs(self, await self.run(lambda call: list_jobs(call, state)))

    async def job(self, id: int) -> AsyncJob:  # noqa: A002 - what the service calls it
        """Return a job by its number."""
        return AsyncJob(self, await self.run(lambda call: read_job(call, f"/backfills/{id}")))

    async def run(self, flow: Callable[[Call], Flow[T]], progress: Progress = False) -> T:
        """Carry out a flow of the core as one call."""
        return await self._transport.run(flow(self._call()), progress)

    async def _emitted(self, flow: Flow[object], progress: Progress) -> AsyncGenerator[RecordBatch]:
        async with aclosing(self._transport.stream(flow, progress, [])) as batches:
            async for batch in batches:
                yield batch

    def _call(self) -> Call:
        return self._config.call(self._started)

    def _started(self, known: JobStatus) -> JobStarted:
        return JobStarted(AsyncJob(self, known))
