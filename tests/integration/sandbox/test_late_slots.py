"""A named candle that the exchange publishes late, on every exchange."""

import pytest
from support.sandbox_exchanges import (
    COUNT,
    EXCHANGES,
    MINUTE,
    START_MS,
    SYMBOLS,
    ask,
    log,
    numbers,
    opened,
    order,
)

each_exchange = pytest.mark.parametrize("exchange", EXCHANGES)
SLOT = START_MS + 4 * MINUTE


@each_exchange
async def test_named_slot_is_withheld_and_its_neighbours_are_not(exchange: str) -> None:
    """It is absent from all answers until faults are cleared; then all rows are there."""
    async with opened() as client:
        good = numbers(exchange, await ask(client, exchange))
        await order(client, exchange, "late_candle", slot=SLOT, seconds=7200)
        without = [numbers(exchange, await ask(client, exchange)) for _ in range(2)]
        await client.delete("/_sandbox/faults")
        after = numbers(exchange, await ask(client, exchange))
        faults = [entry["fault"] for entry in await log(client)]

    assert len(good) >= COUNT - 1
    assert without == [[row for row in good if row[0] != SLOT]] * 2
    assert len(without[0]) == len(good) - 1
    assert after == good
    assert faults == [None, "late_candle", "late_candle", None]


@each_exchange
async def test_answers_without_the_slot_do_not_use_the_fault_up(exchange: str) -> None:
    """Only a request of the named series whose answer would hold the slot is hit."""
    other = {"binance": "ETHUSDT", "hyperliquid": "ETH", "coinbase": "ETH-EUR"}[exchange]
    async with opened() as client:
        named = {"symbol": SYMBOLS[exchange], "interval": "1m"}
        await order(client, exchange, "late_candle", slot=SLOT, seconds=7200, **named)
        elsewhere = await ask(client, exchange, start_ms=START_MS - 60 * MINUTE)
        of_another = await ask(client, exchange, other)
        pending = (await client.get("/_sandbox/faults")).json()
        hit = numbers(exchange, await ask(client, exchange))

    assert elsewhere.status_code == of_another.status_code == 200
    assert len(pending) == 1
    assert SLOT not in [row[0] for row in hit]
