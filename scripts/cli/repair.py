"""The command `mdp repair`."""

import asyncio
from typing import Annotated

import typer

from mdp_core.domain.queries import CandleQuery
from mdp_core.service.mending import RepairMode, RepairReport
from mdp_core.settings import LogSettings, Settings
from mdp_core.wiring import open_services
from scripts.cli.check import CheckedService, require
from scripts.cli.options import Time, clear_errors, command_app, hush, usage_errors

app = command_app()


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
        bool, typer.Option(help="Let a page lose more than a twentieth of its candles.")
    ] = False,
) -> None:
    """Ask the exchange again for what is stored, and replace what differs.

    A candle is changed only where two answers agree, at least 5 s apart. A page that would lose
    more than a twentieth of its candles, and at least 10, is kept without --force. A page whose
    answer proves nothing is kept in any case: one that holds rows that were not asked for, or is
    empty while the exchange does not give the candles that it surely has. The exit code is 1 where
    something was kept.
    """
    require(CheckedService.SYNCER)
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
    first = next((page for page in report.kept if page.yields_to_force), report.kept[0])
    more = len(report.kept) - 1
    others = f" (and {more} more page(s))" if more else ""
    force = (
        "or believe the exchange with --force"
        if first.yields_to_force
        else "--force does not change this"
    )
    return (
        f"kept what is stored of {first.window}{others}: {first.reason}: ask again later, {force}"
    )
