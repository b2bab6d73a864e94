"""Tokens that stand in a URL: of one scope, and never logged."""

import logging
from datetime import timedelta

import httpx
import pytest
from support.dialects import Doors, opened_doors
from support.services import token_of

from api.tokens import issue_token
from mdp_core.settings import Settings

_KLINES = "fapi/v1/klines?symbol=BTCUSDT&interval=1m&limit=1"


async def _answers(doors: Doors, token: str) -> list[httpx.Response]:
    base = f"{doors.url}/dialect/{token}"
    return [
        await doors.http.get(f"{base}/binance/{_KLINES}"),
        await doors.http.get(f"{base}/coinbase/time"),
        await doors.http.post(f"{base}/hyperliquid/info", json={"type": "meta"}),
    ]


async def test_bad_tokens_are_401_in_each_dialect(settings: Settings) -> None:
    """A wrong one, an expired one, and those of other scopes, more or less."""
    over = issue_token(settings, "bot", frozenset({"dialect:read"}), timedelta(seconds=-1))
    many = token_of(settings, "dialect:read", "candles:read")
    async with opened_doors(settings) as doors:
        for token in ("nonsense", over, many, token_of(settings, "candles:read")):
            binance, coinbase, hyperliquid = await _answers(doors, token)

            assert [item.status_code for item in (binance, coinbase, hyperliquid)] == [401] * 3
            assert binance.json()["code"] == -2015
            assert set(coinbase.json()) == {"message"}
            assert hyperliquid.headers["content-type"].startswith("text/plain")


async def test_token_of_a_url_is_good_for_nothing_else(settings: Settings) -> None:
    """It opens no route of the service's own."""
    async with opened_doors(settings) as doors:
        headers = {"Authorization": f"Bearer {doors.token}"}
        for path in ("/candles/binance/perp/BTC-USDT/1m?limit=1", "/meta/exchanges", "/backfills"):
            assert (await doors.http.get(doors.url + path, headers=headers)).status_code == 403


async def test_no_token_is_logged(settings: Settings, caplog: pytest.LogCaptureFixture) -> None:
    """Good, bad, at the wrong place: no line has it, of any logger of ours."""
    async with opened_doors(settings) as doors:
        urls = [f"{doors.base('binance')}/{_KLINES}", f"{doors.base('nowhere')}/x"]
        urls += [f"{doors.url}/{doors.token}/x", f"{doors.url}//dialect/{doors.token}", "/dialect/"]
        with caplog.at_level(logging.INFO):
            for url in [*urls[:-1], f"{doors.url}/dialect/{doors.token}"]:
                await doors.http.get(url)
    lines = [
        vars(record) for record in caplog.records if record.name.startswith(("mdp", "api", "uvi"))
    ]

    assert sum("path" in line for line in lines) >= 5
    assert doors.token not in str(lines)
    assert doors.token.split(".")[2] not in str(lines)
