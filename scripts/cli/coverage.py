"""`mdp coverage`: what the store has, series by series."""

import asyncio
import json
import sys
from collections.abc import Sequence
from typing import Annotated

import typer

from mdp_core.domain.clock import to_ms
from mdp_core.domain.patterns import split_names
from mdp_core.errors import UnknownExchange, UnknownMarketType, UnsupportedInterval
from mdp_core.settings import DatabaseSettings
from mdp_core.storage.catalog.inventory import Holding, HoldingFilter, read_holdings
from mdp_core.storage.database.database import open_database
from scripts.cli.options import clear_errors, command_app

_STATEMENT_SECONDS = 30.0

app = command_app()


@app.command()
def coverage(
    exchange: Annotated[str | None, typer.Argument()] = None,
    market: Annotated[str | None, typer.Argument()] = None,
    symbols: Annotated[str, typer.Argument(help="Comma-separated, globs.")] = "",
    intervals: Annotated[str, typer.Argument(help="Comma-separated.")] = "",
    *,
    as_json: Annotated[
        bool, typer.Option("--json", help="For machines: a JSON object per line.")
    ] = False,
) -> None:
    """Tell what is stored of each series, read from coverage and not from candles."""
    wanted = HoldingFilter(exchange, market, split_names(symbols), split_names(intervals))
    with clear_errors():
        settings = DatabaseSettings()  # pyright: ignore[reportCallIssue]
        holdings = asyncio.run(_holdings(settings, wanted))
        if not holdings:
            _require_known(wanted)
    lines = map(_json, holdings) if as_json else _table(holdings)
    sys.stdout.write("".join(f"{line}\n" for line in lines))


async def _holdings(settings: DatabaseSettings, wanted: HoldingFilter) -> list[Holding]:
    async with open_database(
        settings.database_url,
        name="mdp-coverage",
        size=1,
        statement_timeout_seconds=_STATEMENT_SECONDS,
        must_write=False,
    ) as database:
        return await read_holdings(database, wanted)


def _require_known(wanted: HoldingFilter) -> None:
    """Tell a slip of the pen from something of which nothing is stored."""
    from mdp_core.domain.intervals import Interval  # noqa: PLC0415 - it takes long to load
    from mdp_core.wiring import installed_adapters  # noqa: PLC0415 - so does this

    adapters = installed_adapters()
    exchanges = sorted({name for name, _ in adapters})
    if wanted.exchange is not None and wanted.exchange not in exchanges:
        raise UnknownExchange(wanted.exchange, exchanges)
    kinds = sorted({kind for name, kind in adapters if wanted.exchange in (None, name)})
    if wanted.market_type is not None and wanted.market_type not in kinds:
        raise UnknownMarketType(wanted.exchange or "any exchange", wanted.market_type, kinds)
    for interval in wanted.intervals:
        if interval not in (known := [entry.value for entry in Interval]):
            raise UnsupportedInterval(wanted.exchange or "any exchange", interval, known)


def _table(holdings: Sequence[Holding]) -> list[str]:
    title = (
        f"{'exchange':<12} {'market':<6} {'symbol':<20} {'interval':<8} "
        f"{'from (UTC)':<16} {'to':<16} {'slots':>14} {'parts':>6}"
    )
    lines = [
        f"{held.exchange:<12} {held.market_type:<6} {held.symbol:<20} {held.interval:<8} "
        f"{held.start:%Y-%m-%d %H:%M} {held.end:%Y-%m-%d %H:%M} {held.slots:>14,} {held.parts:>6,}"
        for held in holdings
    ]
    slots = sum(held.slots for held in holdings)
    return [title, *lines, f"{len(holdings):,} series, {slots:,} slots"]


def _json(held: Holding) -> str:
    return json.dumps(
        {
            "exchange": held.exchange,
            "market_type": held.market_type,
            "symbol": held.symbol,
            "interval": held.interval,
            "start": to_ms(held.start),
            "end": to_ms(held.end),
            "slots": held.slots,
            "parts": held.parts,
        }
    )
