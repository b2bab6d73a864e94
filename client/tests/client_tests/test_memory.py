"""Streams of any length in bounded memory, of a process of its own."""

import subprocess
import sys
from collections.abc import Generator

import pytest

from client_tests import long_server

_MB = 1 << 20
_COUNT = 5_000_000
_PROGRAM = {
    "sync": """
for batch in Client(URL).stream(*SERIES, **WINDOW):
    take(batch)
""",
    "async": """
async def main():
    async with AsyncClient(URL) as client:
        async for batch in client.stream(*SERIES, **WINDOW):
            take(batch)
asyncio.run(main())
""",
}
_BEGIN = """
import asyncio, sys
import psutil
from mdp_client import AsyncClient, Client
URL, start, end = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
SERIES = ("binance", "perp", "BTC-USDT", "1m")
WINDOW = {"start": start, "end": end}
process = psutil.Process()
before = process.memory_info().rss
rows = most = 0
def take(batch):
    global rows, most
    rows += batch.num_rows
    most = max(most, process.memory_info().rss)
"""
_END = """
print(rows, most - before)
"""


@pytest.fixture
def long_url() -> Generator[str]:
    command = [sys.executable, long_server.__file__]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:  # noqa: S603 - our own
        assert server.stdout
        yield f"http://127.0.0.1:{server.stdout.readline().strip()}"
        server.kill()


@pytest.mark.timeout(300)
def test_five_million_candles_take_little_more_memory_than_none(kind: str, long_url: str) -> None:
    """Over five answers, at most 60 MB more than before the stream."""
    window = [str(long_server.START), str(long_server.START + _COUNT * long_server.MINUTE)]
    program = _BEGIN + _PROGRAM[kind] + _END
    command = [sys.executable, "-c", program, long_url, *window]
    done = subprocess.run(command, capture_output=True, text=True, check=True)  # noqa: S603 - our own

    rows, grown = map(int, done.stdout.split())
    assert rows == _COUNT
    assert grown < 60 * _MB, f"{grown / _MB:.1f} MB"
