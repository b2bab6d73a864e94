"""The synchronous client."""

from collections.abc import Callable, Generator, Sequence
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
from mdp_client.jobs import Job, Jobs
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
from mdp_client.transport.progress import Progress
from mdp_client.transport.sync import SyncTransport

T = TypeVar("T")


class Client:
    """Candles of a service, as a frame or an exception.

    Any thread may use it; as a context manager it closes its connections.

    Args:
        url: The service's; default `MDP_URL`.
        token: Default `MDP_TOKEN`.
        cache: Keeps settled candles on disk: True for `$XDG_CACHE_HOME/mdp`, or a folder.
        timeout: Seconds for which a connection may be silent.
        patience: Seconds for all tries of one call, counted since the last success.

    Example:
        >>> client = Client()
        >>> btc = client.candles("binance", "perp", "BTC-USDT", "1h", start="2024", end="2024-02")
        >>> len(btc), btc.complete
        (744, True)
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
        self._transport = SyncTransport(self._config)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"Client({self._config.url!r})"

    def close(self) -> None:
        """Close the connections that are kept; the client can still be used."""
        self._transport.close()

    def candles(
        self,
        exchange: str,
        market_type: str,
        symbol: str,
        interval: str,
        **options: Unpack[CandleOptions],
    ) -> Candles:
        """Return every closed candle of a window, ascending.

        Args:
            exchange: As `exchanges()` names it.
            market_type: `perp` or `spot`.
            symbol: As `symbols()` names it.
            interval: As `intervals()` names it.
            **options: `start`, inclusive, and `end`, exclusive (default now): `"2021"`,
                `"2021-05"`, ISO-8601, `datetime`, `date`, `pandas.Timestamp` or epoch ms, UTC
                without a zone; without `start` the newest candles before `end`. `limit`: rows at
                most (default: all with `start`, 500 without). `fields`: columns after `time`.
                `settled=True` leaves out what may still change. `partial=True` returns what there
                is, and `missing` says why the rest is not there. `wait=False` raises `JobStarted`
                where a job has to fetch first. `progress`: `"auto"` shows a bar on a terminal.

        Raises:
            MdpError: They can't be had whole; the class tells why.

        Example:
            >>> btc = client.candles("binance", "perp", "BTC-USDT", "1h", start="2024", limit=2)
            >>> btc.to_ccxt()[0][0]
            1704067200000
        """
        series = (exchange, market_type, symbol, interval)
        wanted = wanted_candles(series, options, uniform=True)
        flow = candles_of(self._cache)
        progress = options.get("progress", "auto")
        return Candles(*self.run(lambda call: flow(call, wanted), progress))

    def stream(
        self,
        exchange: str,
        market_type: str,
        symbol: str,
        interval: str,
        **options: Unpack[CandleOptions],
    ) -> Generator[RecordBatch]:
        """Yield the candles of a window in batches, ascending, in bounded memory.

        The arguments are those of `candles`; nothing is kept on disk.

        Raises:
            MdpError: The rest can't be had; the batches that were yielded are right.

        Example:
            >>> year = client.stream("binance", "perp", "BTC-USDT", "1h", start="2024", end="2025")
            >>> sum(batch.num_rows for batch in year)
            8784
        """
        series = (exchange, market_type, symbol, interval)
        wanted = wanted_candles(series, options, uniform=False)
        flow = receive(self._call(), wanted)
        return self._emitted(flow, options.get("progress", "auto"))

    def latest(
        self, exchange: str, market_type: str, symbol: str, interval: str, *, forming: bool = False
    ) -> Latest:
        """Return the newest closed candle, or with `forming` the one not closed yet."""
        series = (exchange, market_type, symbol, interval)
        return self.run(lambda call: read_latest(call, series, forming=forming))

    def coverage(
        self,
        exchange: str,
        market_type: str,
        symbol: str,
        interval: str,
        **options: Unpack[CoverageOptions],
    ) -> Coverage:
        """Return the windows of a series with their states: stored, or why not.

        Args:
            exchange: As of `candles`.
            market_type: As of `candles`.
            symbol: As of `candles`.
            interval: As of `candles`.
            **options: `start` and `end` (default: history start and now); `detail=True` needs
                both, and splits what is covered into slots with and without candles.
        """
        check_options(options, CoverageOptions)
        series = (exchange, market_type, symbol, interval)
        given = {**window_of(options), "detail": options.get("detail")}
        return self.run(lambda call: read_coverage(call, series, given))

    def inventory(self, **filters: Unpack[InventoryOptions]) -> list[StoredSeries]:
        """Return which series the store holds; `exchange`, `symbol`, … may be globs."""
        check_options(filters, InventoryOptions)
        return self.run(lambda call: read_inventory(call, dict(filters)))

    def exchanges(self) -> list[Exchange]:
        """Return the exchanges of the service."""
        return self.run(read_exchanges)

    def symbols(self, **filters: Unpack[SymbolOptions]) -> list[Symbol]:
        """Return symbols, by `exchange`, `market_type`, `base`, `quote`, `active`, `q`."""
        check_options(filters, SymbolOptions)
        return self.run(lambda call: read_symbols(call, dict(filters)))

    def intervals(self, **filters: Unpack[MarketOptions]) -> list[Interval]:
        """Return the intervals of each market; `exchange` and `market_type` choose."""
        check_options(filters, MarketOptions)
        return self.run(lambda call: read_intervals(call, dict(filters)))

    def backfill(
        self,
        exchange: str,
        market_type: str | None,
        symbols: str | Sequence[str],
        intervals: str | Sequence[str],
        **window: Unpack[WindowOptions],
    ) -> Jobs:
        """Have windows of many series filled, and return the jobs that do it.

        Args:
            exchange: As of `candles`.
            market_type: As of `candles`; None for all of the exchange's.
            symbols: Names, or globs over active symbols.
            intervals: Names.
            **window: `start` (default: where each history begins) and `end` (default now).

        Example:
            >>> jobs = client.backfill(
            ...     "binance", "perp", ["ETH-USDT"], ["1h"], start="2024-05", end="2024-06"
            ... )
            >>> [job.state for job in jobs.wait()]
            ['done']
        """
        check_options(window, WindowOptions)
        selection = selection_of(exchange, market_type, symbols, intervals) | window_of(window)
        return Jobs(self, *self.run(lambda call: open_jobs(call, selection)))

    def jobs(self, state: str | None = None) -> Jobs:
        """Return all jobs, the newest first; `state` is `open` or `ended`."""
        return Jobs(self, self.run(lambda call: list_jobs(call, state)))

    def job(self, id: int) -> Job:  # noqa: A002 - what the service calls it
        """Return a job by its number."""
        return Job(self, self.run(lambda call: read_job(call, f"/backfills/{id}")))

    def run(self, flow: Callable[[Call], Flow[T]], progress: Progress = False) -> T:
        """Carry out a flow of the core as one call."""
        return self._transport.run(flow(self._call()), progress)

    def _emitted(self, flow: Flow[object], progress: Progress) -> Generator[RecordBatch]:
        yield from self._transport.stream(flow, progress)

    def _call(self) -> Call:
        return self._config.call(self._started)

    def _started(self, known: JobStatus) -> JobStarted:
        return JobStarted(Job(self, known))
