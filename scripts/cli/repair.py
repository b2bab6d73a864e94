"""The command `mdp repair`."""

import asyncio
from typing import Annotated

import typer

from mdp_core.domain.queries import CandleQuery
from mdp_core.service.mending import RepairMode, RepairReport
from mdp_core.settings import LogSettings, Settings
from mdp_core.wiring import open_services
from scripts.cli.check import Service, require
from scripts.cli.options import Time, clear_errors, hush, usage_errors

app = typer.Typer()


@app.command()
def repair(  # noqa: PLR0913, PLR0917 - each is an argument or an option
    exchange: str,
    market_type: str,
    symbol: str,
    interval: str,
    start: Time = None,
    end: Time = None,
    *,
    dry_run: Annotated[bool, typer.Option(help="Only tell what would change.")] = False,
    force: Annotated[
        bool, typer.Option(help="Believe answers that take many candles away.")
    ] = False,
) -> None:
    """Ask the exchange again for what is stored, and replace what differs.

    A candle is changed only where two answers agree, at least 5 s apart. A page that would lose
    more than a twentieth of its candles, and at least 10, is kept, as is one whose answer is empty:
    then the exit code is 1.
    """
    require(Service.SYNCER)
    with clear_errors(), usage_errors():
        query = CandleQuery(exchange, market_type, symbol, interval, start=start, end=end)
        hush(LogSettings())
        report = asyncio.run(_repair(query, RepairMode(dry_run, force)))
    typer.echo(counts_of(report, dry_run=dry_run))
    if report.kept:
        typer.echo(f"mdp: {kept_by(report)}", err=True)
        raise typer.Exit(1)


async def _repair(query: CandleQuery, mode: RepairMode) -> RepairReport:
    settings = Settings()  # pyright: ignore[reportCallIssue]
    async with open_services(settings, name="mdp-repair") as services:
        return await services.repair.repair(query, mode)


def counts_of(report: RepairReport, *, dry_run: bool) -> str:
    """Return the line that tells what changed."""
    counts = f"{report.replaced} candles replaced, {report.added} added, {report.deleted} deleted"
    return f"dry run, nothing was changed: {counts}" if dry_run else counts


def kept_by(report: RepairReport) -> str:
    """Return the line that tells what was kept and why, and how to have it changed."""
    first, more = report.kept[0], len(report.kept) - 1
    others = f" (and {more} more page(s))" if more else ""
    return (
        f"kept what is stored of {first.window}{others}: {first.reason}: ask again later, "
        "or believe the exchange with --force"
    )
