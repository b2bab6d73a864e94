"""TradingView's UDF, asked as its adapter asks."""

from typing import Any

from support.dialects import Doors, opened_doors
from support.standing import NOON_MS

from mdp_core.settings import Settings

NOON, MINUTE, DAY = NOON_MS // 1000, 60, 86_400


async def udf(doors: Doors, call: str, **params: object) -> Any:  # noqa: ANN401 - JSON
    """Ask for a call; return the body, whatever the status."""
    texts = {name: str(value) for name, value in params.items()}
    return (await doors.http.get(f"{doors.url}/udf/{doors.token}/{call}", params=texts)).json()


def bars(
    symbol: str, first: int, end: int, countback: int = 0, **more: object
) -> dict[str, object]:
    """Return the parameters of a question for bars."""
    wanted = {"symbol": symbol, "resolution": "1", "from": first, "to": end, "countback": countback}
    return {**wanted, **more}


async def test_symbols_are_found_in_upper_case_and_described(settings: Settings) -> None:
    """`kPEPE` is searched for as `KPEPE`; ticks become scale and step."""
    async with opened_doors(settings) as doors:
        config = await udf(doors, "config")
        hits = await udf(doors, "search", query="KPEPE", type="", exchange="", limit=5)
        info = await udf(doors, "symbols", symbol=hits[0]["ticker"].upper())
        binance = await udf(doors, "symbols", symbol="BINANCE:BTC-USDT")
        unknown = await udf(doors, "symbols", symbol="BINANCE:NO-SUCH")

        assert config["supports_search"] is True
        assert config["exchanges"][0] == {"value": "", "name": "All", "desc": ""}
        assert [hit["symbol"] for hit in hits] == ["kPEPE-USDC"]
        assert info["name"] == "kPEPE-USDC"
        assert info["has_weekly_and_monthly"] is False
        assert (binance["pricescale"], binance["minmov"]) == (10, 1)
        assert unknown == {"s": "error", "errmsg": "unknown_symbol"}
        assert await udf(doors, "time") == NOON + 30


async def test_bars_equal_candles_and_the_forming_one_is_last(settings: Settings) -> None:
    """`to` is exclusive; `countback` outranks `from`; the newest is still forming."""
    async with opened_doors(settings) as doors:
        first, end = NOON - 60 * MINUTE, NOON - 10 * MINUTE
        some = await udf(doors, "history", **bars("BINANCE:BTC-USDT", first, end, 10))
        more = await udf(doors, "history", **bars("BINANCE:BTC-USDT", first, end, 80))
        now = await udf(doors, "history", **bars("BINANCE:BTC-USDT", NOON, NOON + DAY, 2))
        window = {"start": (end - 80 * MINUTE) * 1000, "end": end * 1000}
        listed = await doors.standing.get("/candles/binance/perp/BTC-USDT/1m", **window)
        rows = listed.json()["candles"]

        assert some["t"] == list(range(first, end, MINUTE))
        assert [more["t"][0], more["t"][-1], len(more["t"])] == [
            end - 80 * MINUTE,
            end - MINUTE,
            80,
        ]
        columns = zip(*(more[key] for key in "ohlcv"), strict=True)
        assert [list(row) for row in columns] == [row[1:] for row in rows]
        assert now["t"] == [NOON - MINUTE, NOON]


async def test_end_of_history_is_told_only_where_nothing_is_older(settings: Settings) -> None:
    """A hole is bridged, before listing there is nothing."""
    hole = 1_718_157_600  # XRPUSDT: nothing opens for two hours
    async with opened_doors(settings) as doors:
        inside = bars("BINANCE:XRP-USDT", hole + 600, hole + 1200, 5)
        bridged = await udf(doors, "history", **inside)
        before = await udf(
            doors, "history", **bars("BINANCE:BTC-USDT", 1_400_000_000, 1_400_100_000)
        )

        assert bridged["t"] == list(range(hole - 5 * MINUTE, hole, MINUTE))
        assert before == {"s": "no_data"}


async def test_errors_are_bodies_of_udf(settings: Settings) -> None:
    """Also without a token, and where a window is too large to wait for."""
    async with opened_doors(settings) as doors:
        refused = await doors.http.get(f"{doors.url}/udf/nonsense/config")
        wrong = await udf(doors, "history", **bars("BINANCE:BTC-USDT", 0, NOON, resolution="7"))
        far = await udf(doors, "history", **bars("BINANCE:BTC-USDT", NOON - 90 * DAY, NOON))

        assert (refused.status_code, refused.json()["s"]) == (401, "error")
        assert wrong["s"] == far["s"] == "error"
        assert "resolution" in wrong["errmsg"]
        assert "syncer" in far["errmsg"]  # none is running here, who would load it
