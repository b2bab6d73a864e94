"""Which fault a page uses up, and when a withheld row is published."""

from scripts.sandbox.binance import Binance
from scripts.sandbox.control import Fault
from scripts.sandbox.exchange import CandleReply, SandboxCall
from scripts.sandbox.faults import Faults
from scripts.sandbox.replay import Replay

MINUTE = 60_000
NOW = 1_791_374_430_000  # 2026-10-07 12:00:30
FORMING = NOW // MINUTE * MINUTE


def page(now_ms: int) -> CandleReply:
    """Ask for the newest five minutes at a time."""
    params = {"symbol": "BTCUSDT", "interval": "1m", "limit": "5"}
    answer = Binance(Replay(None, {}), NOW).answer(
        SandboxCall("GET", "/fapi/v1/klines", params, "", {}), now_ms
    )
    assert isinstance(answer, CandleReply)
    return answer


def late(slot: int, seconds: float = 150) -> Fault:
    order = {"exchange": "binance", "fault": "late_candle", "slot": slot, "seconds": seconds}
    return Fault.model_validate(order)


def test_forming_slot_is_hit_at_its_close() -> None:
    """While the named candle forms it is shown; the first answer with it closed, hit."""
    faults = Faults()
    faults.order([late(FORMING)])
    hits = [
        faults.take("binance", {}, page(now_ms), now_ms)
        for now_ms in (NOW, FORMING + MINUTE - 1, FORMING + MINUTE, FORMING + MINUTE + 1)
    ]

    assert [hit and hit.slot for hit in hits] == [None, None, FORMING, None]


def test_seconds_count_from_each_row_s_own_omission() -> None:
    """A row that was withheld later is published later."""
    clock = {"now": 0.0}
    faults = Faults(lambda: clock["now"])
    whole = page(NOW)
    first, second = int(whole.columns.time[0]), int(whole.columns.time[2])
    faults.withhold("binance", whole, late(first))
    clock["now"] = 100.0
    faults.withhold("binance", whole, late(second))
    shown: list[list[int]] = []
    for clock["now"] in (149.0, 151.0, 251.0):
        shown.append(faults.published("binance", whole).columns.time.tolist())

    opens: list[int] = whole.columns.time.tolist()
    assert shown == [
        [time for time in opens if time not in {first, second}],
        [time for time in opens if time != second],
        opens,
    ]


def test_newest_row_is_withheld_where_no_slot_is_named() -> None:
    """It stays withheld when newer ones have come."""
    faults = Faults(lambda: 0.0)
    whole = page(NOW)
    faults.withhold("binance", whole, Fault.model_validate(_newest()))
    later = faults.published("binance", page(NOW + MINUTE)).columns.time.tolist()

    assert FORMING not in later
    assert later[-1] == FORMING + MINUTE


def _newest() -> dict[str, object]:
    return {"exchange": "binance", "fault": "late_candle", "seconds": 30}
