"""Repair a series: make the store equal the exchange again, page by page.

Nothing but this, verify and rechecks changes a stored candle. It is for people: after an exchange
has corrected its history, or where there is doubt about the store.
"""

from collections.abc import AsyncGenerator, Iterable, Sequence
from itertools import islice

from mdp_core.domain.queries import CandleQuery
from mdp_core.service.mending import Mender, RepairMode, RepairReport
from mdp_core.service.stored_pages import ComparedPage, PageComparer, StoredPage

# This many pages are compared before the pause: it is waited out once for all of them.
_BATCH_PAGES = 50


class Repair:
    """Makes what is stored equal the exchange again."""

    def __init__(self, comparer: PageComparer, mender: Mender) -> None:
        self._comparer = comparer
        self._mender = mender

    async def repair(self, query: CandleQuery, mode: RepairMode | None = None) -> RepairReport:
        """Repair what is stored of the window (without bounds: everything that is final).

        Candles that the exchange has forgotten are left alone. Pages that were repaired before an
        error stay so.

        Raises:
            InvalidWindow: `start` lies after `end`.
            HistoryUnavailable: The exchange no longer has any of the window.
            MdpError: The series is unknown, or the exchange or the store can't be had.
        """
        mode, report = mode or RepairMode(), RepairReport()
        stored = await self._comparer.find(query)
        async for batch in compared(self._comparer, stored.pages()):
            for page in batch:
                await self._mender.mend(page, mode, report)
        if not mode.dry_run:
            series = stored.series
            report.keep_start(series, await self._comparer.renew_history_start(series))
        return report


async def compared(
    comparer: PageComparer, pages: Iterable[StoredPage]
) -> AsyncGenerator[Sequence[ComparedPage]]:
    """Yield pages as they compare with the exchange, in batches."""
    remaining = iter(pages)
    while batch := list(islice(remaining, _BATCH_PAGES)):
        yield [await comparer.compare(page) for page in batch]
