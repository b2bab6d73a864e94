"""Windows that are asked for before an exchange's clock was ever read."""

from support.standing import NOON_MS, open_times, standing

from mdp_core.settings import Settings

HOUR_MS = 3_600_000


async def test_window_behind_an_old_one_is_not_cut_a_day_early(settings: Settings) -> None:
    """The first question of a process ends two days ago, the next one an hour ago."""
    start, path = NOON_MS - 60 * HOUR_MS, "/candles/coinbase/spot/ETH-USD/1h"
    async with standing(settings) as stands:
        old = await stands.get(path, start=start, end=start + 24 * HOUR_MS)
        wide = await stands.get(path, start=start, end=start + 59 * HOUR_MS)

    assert len(open_times(old)) == 24
    assert len(open_times(wide)) == 59
