"""Addresses and contents of the sandbox's archive, for tests."""

import csv
import io
import zipfile

import httpx

FOLDER = "/archive/data/futures/um"


def path_of(date: str, symbol: str = "BTCUSDT", interval: str = "1m") -> str:
    """Give the address of the file of a day or a month."""
    period = "monthly" if len(date) == 7 else "daily"
    native = "1mo" if interval == "1M" else interval
    return f"{FOLDER}/{period}/klines/{symbol}/{native}/{symbol}-{native}-{date}.zip"


def text_of(content: bytes) -> str:
    with zipfile.ZipFile(io.BytesIO(content)) as file:
        (name,) = file.namelist()
        return file.read(name).decode()


async def rows_of(client: httpx.AsyncClient, path: str) -> list[list[float]]:
    """Give the numbers of a file, its times in milliseconds."""
    response = await client.get(path)
    assert response.status_code == 200, response.text
    lines = list(csv.reader(io.StringIO(text_of(response.content))))
    rows = [[float(field) for field in line] for line in lines if line[0].isdigit()]
    scale = 1000 if rows[0][0] > 1e14 else 1
    return [[row[0] // scale, *row[1:6], row[6] // scale, *row[7:]] for row in rows]
