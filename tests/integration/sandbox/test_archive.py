"""The sandbox's archive: the candles of its Binance as published files."""

import gzip
import hashlib
import io
import zipfile
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import pytest
from archive_asking import FOLDER, path_of, rows_of, text_of
from support.sandbox_exchanges import log, opened

from mdp_core.domain.clock import to_ms
from mdp_core.domain.intervals import Interval

RECORDED = Path(__file__).parents[4] / "shared" / "recorded" / "archive"
HEADER = (
    "open_time,open,high,low,close,volume,close_time,quote_volume,count,"
    "taker_buy_volume,taker_buy_quote_volume,ignore"
)
BY_MONTH_ONLY = ("3d", "1w", "1M")

needs_recorded = pytest.mark.skipif(not RECORDED.is_dir(), reason="the recorded files aren't here")


async def klines(
    client: httpx.AsyncClient, symbol: str, interval: str, start: datetime, end: datetime
) -> list[list[float]]:
    """Give the numbers that the REST interface has for a window."""
    rows: list[list[float]] = []
    start_ms, end_ms = to_ms(start), to_ms(end)
    while start_ms < end_ms:
        query = {"symbol": symbol, "interval": interval, "limit": 1500}
        bounds = {"startTime": start_ms, "endTime": end_ms - 1}
        page = (await client.get("/binance/fapi/v1/klines", params={**query, **bounds})).json()
        if not page:
            break
        rows += [[float(field) for field in row] for row in page]
        start_ms = page[-1][0] + 1
    return rows


@pytest.mark.parametrize("interval", list(Interval))
@pytest.mark.parametrize("month", ["2020-02", "2026-07"])
async def test_month_holds_the_rows_of_the_interface(interval: str, month: str) -> None:
    """All twelve columns are equal numbers, at each interval, in old and new form."""
    start = datetime.fromisoformat(f"{month}-01T00:00Z")
    end = (start + timedelta(days=31)).replace(day=1)
    async with opened() as client:
        file = await rows_of(client, path_of(month, interval=interval))
        assert file == await klines(client, "BTCUSDT", interval, start, end)
    assert len(file) >= 1


@pytest.mark.parametrize("interval", [entry for entry in Interval if entry not in BY_MONTH_ONLY])
async def test_day_holds_the_rows_of_the_interface(interval: str) -> None:
    """So do the files of single days, also where the exchange was down for two hours."""
    start = datetime(2024, 6, 12, tzinfo=UTC)
    async with opened() as client:
        file = await rows_of(client, path_of("2024-06-12", "XRPUSDT", interval))
        there = await klines(client, "XRPUSDT", interval, start, start + timedelta(days=1))
    assert file == there
    assert len(file) == {"1m": 1440 - 120}.get(interval, len(there))


@pytest.mark.parametrize("date", ["2020-02", "2024-05-31"])
async def test_checksum_names_the_file_and_agrees(date: str) -> None:
    """Hexadecimal digits, two spaces, the name; at months a newline after it."""
    async with opened() as client:
        content = (await client.get(path_of(date))).content
        checksum = (await client.get(path_of(date) + ".CHECKSUM")).text

    digits, name = checksum.split("  ")
    assert digits == hashlib.sha256(content).hexdigest()
    assert name == f"BTCUSDT-1m-{date}.zip" + ("\n" if len(date) == 7 else "")


@pytest.mark.parametrize(
    ("date", "headers", "digits"),
    [
        ("2021-12-31", 0, 13),
        ("2022-01", 1, 13),
        ("2024-12", 1, 13),
        ("2025-01", 1, 16),
    ],
)
async def test_header_and_unit_are_those_of_the_file_s_era(
    date: str, headers: int, digits: int
) -> None:
    """A header since 2022, microseconds since 2025; closes a unit before the next."""
    async with opened() as client:
        text = text_of((await client.get(path_of(date))).content)

    first, second = text.splitlines()[headers : headers + 2]
    assert text.startswith((HEADER + "\n") * headers + first)
    assert text.endswith(",0\n")
    assert len(first.split(",")[0]) == digits
    assert int(second.split(",")[0]) == int(first.split(",")[6]) + 1


@needs_recorded
def test_header_is_the_recorded_one() -> None:
    """The names of the columns are those of a real file."""
    recorded = (RECORDED / "um-AVAXUSDT-1m-2026-07.first200.csv").read_text()

    assert recorded.splitlines()[0] == HEADER


@needs_recorded
async def test_zip_is_like_a_recorded_one() -> None:
    """One deflated member by the file's name; no newline after a day's checksum."""
    (recorded,) = RECORDED.glob("spot-*.zip")
    assert not (recorded.with_name(recorded.name + ".CHECKSUM")).read_text().endswith("\n")
    async with opened() as client:
        ours = (await client.get(path_of("2024-05-31"))).content
    for content, name in (
        (recorded.read_bytes(), "BTCUSDT-1m-2020-01-01.csv"),
        (ours, "BTCUSDT-1m-2024-05-31.csv"),
    ):
        with zipfile.ZipFile(io.BytesIO(content)) as file:
            (member,) = file.infolist()
        assert (member.filename, member.compress_type) == (name, zipfile.ZIP_DEFLATED)


@pytest.mark.parametrize(
    ("date", "published"),
    [
        ("2026-10-05", "2026-10-06T08:35"),
        ("2023-12", "2024-01-01T12:06"),
        ("2024-01", "2024-02-05T12:06"),
    ],
)
async def test_files_are_there_from_their_publication_on(date: str, published: str) -> None:
    """A day's the next morning, a month's on the first Monday after it."""
    at = datetime.fromisoformat(f"{published}Z")
    statuses: list[int] = []
    for now in (at - timedelta(minutes=1), at + timedelta(minutes=1)):
        async with opened(now) as client:
            asked = [await client.get(path_of(date) + end) for end in ("", ".CHECKSUM")]
        statuses += [answer.status_code for answer in asked]

    assert statuses == [404, 404, 200, 200]


@pytest.mark.parametrize(
    "path",
    [
        path_of("2024-05", "NOPEUSDT"),
        path_of("2019-08"),
        path_of("2024-05-01", interval="1w"),
        path_of("2024-05", interval="7m"),
        path_of("2024-5"),
        path_of("2024-13"),
        path_of("2024-05").replace("monthly", "daily"),
        path_of("2024-05").replace("/um/", "/cm/"),
        path_of("2026-03", "OMGUSDT"),
        f"{FOLDER}/",
    ],
)
async def test_other_files_are_not_there(path: str) -> None:
    """No such symbol, interval, day, market; none before listing or after delisting."""
    async with opened() as client:
        answer = await client.get(path)

    assert answer.status_code == 404
    assert "NoSuchKey" in answer.text


async def test_first_month_begins_with_the_first_candle() -> None:
    """A file holds what there is, be it half a month; a symbol's name may be Chinese."""
    async with opened() as client:
        bitcoin = await rows_of(client, path_of("2019-09"))
        chinese = await rows_of(client, path_of("2025-11", "币安人生USDT", "1h"))

    assert bitcoin[0][0] == 1_567_965_300_000
    assert len(chinese) == 30 * 24


async def test_requests_are_logged_and_cost_no_weight() -> None:
    """The archive has its own; the budget of the REST interface does not change."""
    async with opened(limits=True) as client:
        answer = await client.get(path_of("2024-05", interval="1d"))
        await client.get(path_of("2019-08"))
        ping = await client.get("/binance/fapi/v1/ping")
        there, missing, _ = await log(client)

    assert "x-mbx-used-weight-1m" not in answer.headers
    assert ping.headers["x-mbx-used-weight-1m"] == "1"
    assert (there["exchange"], there["method"], there["status"]) == ("archive", "GET", 200)
    assert there["path"] == path_of("2024-05", interval="1d").removeprefix("/archive")
    assert (there["params"], there["fault"], missing["status"]) == ({}, None, 404)


async def test_replayed_candles_are_in_the_archive_too(tmp_path: Path) -> None:
    """A replayed series has files where its rows are, and nowhere else."""
    start = to_ms(datetime(2024, 5, 7, tzinfo=UTC))
    rows = "".join(f"{start + i * 60_000},5,6,4,5.5,{i}.25\n" for i in range(600))
    text = f"time_ms,open,high,low,close,volume\n{rows}"
    (tmp_path / "binance__perp__BTCUSDT__1m.csv.gz").write_bytes(gzip.compress(text.encode()))
    async with opened(data=tmp_path) as client:
        file = await rows_of(client, path_of("2024-05-07"))
        other = await client.get(path_of("2024-05-08"))

    assert [row[:6] for row in file] == [
        [start + i * 60_000, 5, 6, 4, 5.5, i + 0.25] for i in range(600)
    ]
    assert other.status_code == 404
