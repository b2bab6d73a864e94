"""Parameters that a query has twice."""

import httpx
import pytest

_PATH = "/candles/binance/perp/BTC-USDT/1h"


@pytest.mark.parametrize(
    ("query", "status"),
    [
        ("start=2024-05-01&start=2024-05-02&limit=2", 422),
        ("start=2024-05-01&st%61rt=2024-05-02&limit=2", 422),
        ("start=2024-05-01&limit=2&limit=2", 422),
        ("start=2024-05-01&limit=2&", 200),
    ],
)
async def test_parameter_given_twice_is_refused(
    client: httpx.AsyncClient, query: str, status: int
) -> None:
    """Which of the two is meant can't be told."""
    answer = await client.get(f"{_PATH}?{query}")

    assert answer.status_code == status
    if status != 200:
        assert answer.json()["code"] == "invalid_parameter"
        assert "more than once" in answer.json()["detail"]
