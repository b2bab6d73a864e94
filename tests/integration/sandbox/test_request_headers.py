"""The headers of requests in the log: proof of what reached the exchange."""

from support.sandbox_exchanges import EXCHANGES, ask, log, opened


async def test_headers_are_logged_as_an_object_with_lower_case_names() -> None:
    """A header that a client sent is there with its value, any other is not."""
    async with opened() as client:
        await client.get("/binance/fapi/v1/time", headers={"X-MBX-APIKEY": "k1"})
        for exchange in EXCHANGES:
            await ask(client, exchange)
        with_key, *without = [entry["headers"] for entry in await log(client)]

    assert with_key["x-mbx-apikey"] == "k1"
    assert with_key["user-agent"].startswith("python-httpx/")
    assert len(without) == len(EXCHANGES)
    for headers in without:
        assert "user-agent" in headers
        assert not headers.keys() & {"x-mbx-apikey", "authorization"}
