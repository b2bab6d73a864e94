"""Compare settled candles in stored pages with what the exchange answers now.

A difference is only told; the exchange's word is taken where the caller says so.
"""

import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from mdp_core.domain.comparison import Comparison
from mdp_core.domain.queries import CandleQuery
from mdp_core.domain.series import Series
from mdp_core.series.selection import SeriesName
from mdp_core.service.mending import KeptPage, Mender, RepairMode, RepairReport
from mdp_core.service.repair import compared
from mdp_core.service.stored_pages import ComparedPage, PageComparer, StoredPage, StoredSeries
from mdp_core.storage.candles.corrections import Finder

# A report names so many differences of a series; it counts all of them.
_NAMED = 1_000
_TAKE = RepairMode(found_by=Finder.VERIFY)


@dataclass(slots=True)
class SeriesCheck:
    """A series' candles, compared with the exchange's; names the first differences."""

    series: Series
    compared: int = 0
    equal: int = 0
    differing: int = 0
    missing: int = 0
    extra: int = 0
    differences: list[tuple[int, str]] = field(default_factory=list[tuple[int, str]])
    not_compared: list[KeptPage] = field(default_factory=list[KeptPage])
    repaired: RepairReport = field(default_factory=RepairReport)

    @property
    def unequal(self) -> int:
        """Number of candles that are not what the exchange says."""
        return self.differing + self.missing + self.extra

    def count(self, found: Comparison) -> None:
        """Add the comparison of a page."""
        self.compared += found.compared
        self.equal += found.equal
        self.differing += len(found.differing)
        self.missing += len(found.missing)
        self.extra += len(found.extra)
        for kind in ("differing", "missing", "extra"):
            times = getattr(found, kind)[: _NAMED - len(self.differences)]
            self.differences += [(int(time), kind) for time in times]


class Verify:
    """Compares stored series with their exchanges."""

    def __init__(self, comparer: PageComparer, mender: Mender) -> None:
        self._comparer = comparer
        self._mender = mender

    async def require_remembered(self, name: SeriesName, end: datetime | None) -> None:
        """Check that an exchange still has candles of a series before `end`.

        Raises:
            HistoryUnavailable: It has forgotten them all.
        """
        await self._comparer.require_remembered(name.exchange, name.market_type, name.interval, end)

    async def find(self, query: CandleQuery) -> StoredSeries:
        """Return what is stored of a window, as `PageComparer.find` does."""
        return await self._comparer.find(query)

    async def check(
        self, series: Series, pages: Iterable[StoredPage], *, repair: bool = False
    ) -> SeriesCheck:
        """Compare pages of a series; `repair` takes what two answers of the exchange say.

        With `repair` the start of the history is asked for anew, too.

        Raises:
            MdpError: The exchange or the store can't be had; what was repaired before stays so.
        """
        check = SeriesCheck(series)
        async for batch in compared(self._comparer, pages):
            for page in batch:
                await self._count(page, check, repair=repair)
        if repair:
            reason = await self._comparer.renew_history_start(series)
            check.repaired.keep_start(series, reason)
        return check

    async def _count(self, page: ComparedPage, check: SeriesCheck, *, repair: bool) -> None:
        if page.bad_slots:
            reason = f"{len(page.bad_slots)} answered row(s) can't be right"
            check.not_compared.append(KeptPage(page.page.window, reason))
        if page.doubt:
            check.not_compared.append(KeptPage(page.page.window, page.doubt))
            return
        check.count(page.comparison)
        if repair:
            await self._mender.mend(page, _TAKE, check.repaired)


def sample(
    stored: Sequence[StoredSeries], count: int
) -> list[tuple[StoredSeries, list[StoredPage]]]:
    """Choose pages at random among all pages of these series."""
    ranges = [(held, indexes) for held in stored for indexes in held.page_ranges()]
    total = sum(len(indexes) for _, indexes in ranges)
    chosen = sorted(random.sample(range(total), min(count, total)))
    pages: dict[int, list[StoredPage]] = {}
    begin = 0
    for of_series, indexes in ranges:
        stop = begin + len(indexes)
        inside = [indexes[number - begin] for number in chosen if begin <= number < stop]
        pages.setdefault(of_series.series.id, []).extend(map(of_series.page, inside))
        begin = stop
    return [(held, pages[held.series.id]) for held in stored if pages.get(held.series.id)]
