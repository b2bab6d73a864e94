"""The command `mdp verify`."""

import asyncio
import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Any

import typer

from mdp_core.domain.clock import to_ms
from mdp_core.domain.patterns import split_names
from mdp_core.domain.queries import CandleQuery
from mdp_core.errors import InvalidWindow
from mdp_core.series.selection import Selection, Selector, SeriesName
from mdp_core.service.mending import KeptPage
from mdp_core.service.stored_pages import StoredSeries
from mdp_core.service.verify import SeriesCheck, sample
from mdp_core.settings import LogSettings, Settings
from mdp_core.storage.catalog.inventory import HoldingFilter, read_holdings
from mdp_core.wiring import Services, open_services
from scripts.cli.check import CheckedService, require
from scripts.cli.options import Time, clear_errors, command_app, hush, usage_errors

app = command_app()

_COUNTS = ("compared", "equal", "differing", "missing", "extra")


@dataclass(frozen=True, slots=True)
class _Order:
    """The arguments of the command."""

    selection: Selection
    start: datetime | None
    end: datetime | None
    pages: int | None
    is_repair: bool


@app.command()
def verify(  # noqa: PLR0913, PLR0917 - each is an argument or an option
    exchange: str,
    market: Annotated[str, typer.Argument(help="perp or spot")],
    symbols: Annotated[str, typer.Argument(help="Comma-separated; globs, * for all active.")],
    intervals: Annotated[str, typer.Argument(help="Comma-separated, e.g. 1m,1h")],
    start: Time = None,
    end: Time = None,
    *,
    pages: Annotated[
        int | None, typer.Option("--sample", min=1, help="Compare so many pages, at random.")
    ] = None,
    repair: Annotated[
        bool, typer.Option("--repair", help="Take what the exchange says twice.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="For machines: one JSON object.")] = False,
) -> None:
    """Compare stored candles with what the exchange answers now.

    Without a window all that is stored. The exit code is 0 if both are equal, or --repair has made
    them so, else 1.
    """
    for what, names in (("symbols", symbols), ("intervals", intervals)):
        if not split_names(names):
            message = f"no {what}: name some, separated by commas"
            raise typer.BadParameter(message)
    if pages and (start or end):
        message = "--sample chooses among all that is stored: leave out --start and --end"
        raise typer.BadParameter(message)
    selection = Selection(exchange, market, split_names(symbols), split_names(intervals))
    order = _Order(selection, start, end, pages, repair)
    require(CheckedService.SYNCER)
    with clear_errors(), usage_errors():
        hush(LogSettings())
        checks = asyncio.run(_verify(order))
    for line in [_json(checks, order)] if as_json else _lines(checks, order):
        typer.echo(line)
    if not all(_is_right(check, order) for check in checks):
        raise typer.Exit(1)


async def _verify(order: _Order) -> list[SeriesCheck]:
    if order.start and order.end and order.start > order.end:
        raise InvalidWindow(order.start, order.end)
    settings = Settings()  # pyright: ignore[reportCallIssue]
    async with open_services(settings, name="mdp-verify") as services:
        stored = await _stored(services, order)
        chosen = (
            [(held, held.pages()) for held in stored]
            if order.pages is None
            else sample(stored, order.pages)
        )
        return [
            await services.verify.check(held.series, pages, repair=order.is_repair)
            for held, pages in chosen
        ]


async def _stored(services: Services, order: _Order) -> list[StoredSeries]:
    """Return the selected series of which anything is stored."""
    names = await Selector(services.resolver).names(order.selection)
    for name in names:
        await services.verify.require_remembered(name, order.end)
    wanted = HoldingFilter(order.selection.exchange, order.selection.market_type)
    holdings = await read_holdings(services.database, wanted)
    held = {
        SeriesName(holding.exchange, holding.market_type, holding.symbol, holding.interval)
        for holding in holdings
    }
    queries = [
        CandleQuery(*_words(name), start=order.start, end=order.end)
        for name in names
        if name in held
    ]
    return [await services.verify.find(query) for query in queries]


def _words(name: SeriesName) -> tuple[str, str, str, str]:
    return name.exchange, name.market_type, name.symbol, name.interval


def _is_right(check: SeriesCheck, order: _Order) -> bool:
    if check.not_compared or check.repaired.kept:
        return False
    return order.is_repair or not check.unequal


def _lines(checks: Sequence[SeriesCheck], order: _Order) -> list[str]:
    lines = [f"{check.series}: {_counted(_sums([check]))}" for check in checks if check.unequal]
    for check in checks:
        kept = [*check.not_compared, *check.repaired.kept]
        lines += [f"{check.series} {series.window}: {series.reason}" for series in kept]
    if order.is_repair:
        lines.append(_repaired_text(checks))
    return [*lines, _counted(_sums(checks))]


def _counted(sums: dict[str, int]) -> str:
    return ", ".join(f"{name} {count}" for name, count in sums.items())


def _sums(checks: Sequence[SeriesCheck]) -> dict[str, int]:
    return {name: sum(getattr(check, name) for check in checks) for name in _COUNTS}


def _repaired(checks: Sequence[SeriesCheck]) -> dict[str, int]:
    names = ("replaced", "added", "deleted")
    return {name: sum(getattr(check.repaired, name) for check in checks) for name in names}


def _repaired_text(checks: Sequence[SeriesCheck]) -> str:
    done = _repaired(checks)
    return f"{done['replaced']} candles replaced, {done['added']} added, {done['deleted']} deleted"


def _json(checks: Sequence[SeriesCheck], order: _Order) -> str:
    described: dict[str, Any] = {**_sums(checks), "series": [_described(check) for check in checks]}
    if order.is_repair:
        described["repaired"] = _repaired(checks)
    return json.dumps(described)


def _described(check: SeriesCheck) -> dict[str, Any]:
    series = check.series
    return {
        "exchange": series.exchange,
        "market_type": series.symbol.market_type,
        "symbol": series.symbol.name,
        "interval": series.interval.value,
        **_sums([check]),
        "differences": [{"time": time, "kind": kind} for time, kind in check.differences],
        "not_compared": [_kept(window) for window in check.not_compared],
        "kept": [_kept(entry) for entry in check.repaired.kept],
    }


def _kept(page: KeptPage) -> dict[str, Any]:
    bounds = {"start": to_ms(page.window.start), "end": to_ms(page.window.end)}
    return {**bounds, "reason": page.reason}
