"""Faults of the archive: of its files, which stay spoilt, and of single transfers."""

import hashlib
import io
import zipfile
import zlib
from collections.abc import AsyncIterator

import httpx
import pytest
from archive_asking import path_of, rows_of, text_of
from support.sandbox import running_sandbox
from support.sandbox_exchanges import log, opened, order

from mdp_core.domain.clock import Clock
from scripts.sandbox.app import SandboxOptions

DAY_FILE = path_of("2024-05-07")
MINUTES = 1440
TOO_MUCH = 64 << 20


@pytest.fixture
async def client() -> AsyncIterator[httpx.AsyncClient]:
    async with opened() as client:
        yield client


async def spoilt(client: httpx.AsyncClient, fault: str, **more: object) -> list[list[float]]:
    """Order a fault of a day's file; give the file's rows, whose checksum agrees."""
    await order(client, "archive", fault, **more)
    rows = await rows_of(client, DAY_FILE)
    content = (await client.get(DAY_FILE)).content
    checksum = (await client.get(DAY_FILE + ".CHECKSUM")).text
    assert checksum.startswith(hashlib.sha256(content).hexdigest())
    return rows


async def test_wrong_checksum_stays_wrong(client: httpx.AsyncClient) -> None:
    """The zip is right, the digest is not, at every asking; other files are whole."""
    good = (await client.get(DAY_FILE)).content
    await order(client, "archive", "checksum")
    told = [(await client.get(DAY_FILE + ".CHECKSUM")).text for _ in range(2)]
    other = path_of("2024-05-08")
    right = (await client.get(other + ".CHECKSUM")).text

    assert (await client.get(DAY_FILE)).content == good
    assert told[0] == told[1]
    assert told[0][64:] == "  BTCUSDT-1m-2024-05-07.zip"
    assert told[0][:64] != hashlib.sha256(good).hexdigest()
    assert right[:64] == hashlib.sha256((await client.get(other)).content).hexdigest()


async def test_file_made_anew_disagrees_once(client: httpx.AsyncClient) -> None:
    """One checksum is of another edition, the next agrees; zips don't use it up."""
    await order(client, "archive", "remade")
    content = (await client.get(DAY_FILE)).content
    first, second = [(await client.get(DAY_FILE + ".CHECKSUM")).text for _ in range(2)]

    assert second.startswith(hashlib.sha256(content).hexdigest())
    assert first != second
    assert [e["fault"] for e in await log(client)] == [None, "remade", None]


async def test_truncated_zip_can_not_be_opened_though_its_checksum_agrees(
    client: httpx.AsyncClient,
) -> None:
    """Half of the bytes, as if the file had been put there so."""
    good = (await client.get(DAY_FILE)).content
    await order(client, "archive", "truncated")
    half = (await client.get(DAY_FILE)).content
    checksum = (await client.get(DAY_FILE + ".CHECKSUM")).text

    assert half == good[: len(good) // 2]
    assert checksum.startswith(hashlib.sha256(half).hexdigest())
    with pytest.raises(zipfile.BadZipFile):
        text_of(half)


async def test_hole_leaves_out_an_hour(client: httpx.AsyncClient) -> None:
    """Sixty rows in the middle of a day are missing, the others are right."""
    good = await rows_of(client, DAY_FILE)
    rows = await spoilt(client, "hole")

    missing = [at for at, row in enumerate(good) if row not in rows]
    assert missing == list(range(690, 750))
    assert rows == good[:690] + good[750:]


async def test_conflict_is_a_sound_row_that_the_interface_has_not(
    client: httpx.AsyncClient,
) -> None:
    """One row has another close and volume, so that the day's volume is another too."""
    good = await rows_of(client, DAY_FILE)
    rows = await spoilt(client, "conflict")

    (at,) = [at for at, row in enumerate(rows) if row != good[at]]
    _, opens, high, low, close, volume, *_ = rows[at]
    assert (opens, high, low) == tuple(good[at][1:4])
    assert low <= min(opens, close) <= max(opens, close) <= high
    assert volume == good[at][5] * 2 + 1


@pytest.mark.parametrize(
    ("field", "place"), [("open", 1), ("high", 2), ("low", 3), ("close", 4), ("volume", 5)]
)
async def test_conflict_may_be_of_one_field(
    client: httpx.AsyncClient, field: str, place: int
) -> None:
    """Only that number differs, and the row stays sound."""
    good = await rows_of(client, DAY_FILE)
    rows = await spoilt(client, "conflict", field=field)

    (at,) = [at for at, row in enumerate(rows) if row[:6] != good[at][:6]]
    assert [here for here in range(6) if rows[at][here] != good[at][here]] == [place]
    assert rows[at][3] <= min(rows[at][1], rows[at][4]) <= rows[at][2]


async def test_rows_are_spoilt_as_in_answers(client: httpx.AsyncClient) -> None:
    """Doubled equal, doubled different, off the grid, unsound, in disorder, half."""
    good = await rows_of(client, DAY_FILE)
    found: dict[str, list[list[float]]] = {}
    for fault in (
        *("duplicate_rows", "conflicting_rows", "off_grid"),
        *("ohlc_violation", "out_of_order", "short_page"),
    ):
        found[fault] = await spoilt(client, fault)
        await client.delete("/_sandbox/faults")

    assert [len(rows) - MINUTES for rows in found.values()] == [1, 1, 0, 0, 0, -720]
    assert [row for row in found["duplicate_rows"] if row not in good] == []
    assert len([row for row in found["conflicting_rows"] if row not in good]) == 1
    assert [row[0] % 60_000 for row in found["off_grid"] if row not in good] == [7_000]
    assert [row[2] < row[3] for row in found["ohlc_violation"] if row not in good] == [True]
    assert sorted(found["out_of_order"]) == good != found["out_of_order"]
    assert found["short_page"] == good[:720]
    assert await rows_of(client, DAY_FILE) == good


async def test_rows_of_another_day_symbol_or_era(client: httpx.AsyncClient) -> None:
    """The file has the right name and other rows, or the right rows in another form."""
    good = await rows_of(client, DAY_FILE)
    before = await rows_of(client, path_of("2024-05-06"))
    another_day = await spoilt(client, "shifted_window", date="2024-05-07")
    await client.delete("/_sandbox/faults")
    another_symbol = await spoilt(client, "other_symbol", date="2024-05-07")
    await client.delete("/_sandbox/faults")
    another_era = await spoilt(client, "other_era")
    text = text_of((await client.get(DAY_FILE)).content)

    assert another_day == before
    assert [row[0] for row in another_symbol] == [row[0] for row in good]
    assert not any(row in good for row in another_symbol)
    assert another_era == good
    assert len(text.partition(",")[0]) == 16


@pytest.mark.parametrize(
    ("fault", "names"),
    [
        ("two_members", ["BTCUSDT-1m-2024-05-07.csv", "BTCUSDT-1m-2024-05-07-2.csv"]),
        ("wrong_member", ["readme.csv"]),
    ],
)
async def test_zip_has_other_members(
    client: httpx.AsyncClient, fault: str, names: list[str]
) -> None:
    """One too many, or one of another name."""
    await order(client, "archive", fault)
    content = (await client.get(DAY_FILE)).content

    assert zipfile.ZipFile(io.BytesIO(content)).namelist() == names


async def test_bomb_is_small_and_inflates_to_gigabytes(client: httpx.AsyncClient) -> None:
    """It begins as the right file and claims its size; what follows goes on and on."""
    good = (await client.get(DAY_FILE)).content
    await order(client, "archive", "bomb")
    content = (await client.get(DAY_FILE)).content
    (member,) = zipfile.ZipFile(io.BytesIO(content)).infolist()
    inflater = zlib.decompressobj(-15)
    start = content.index(b".csv") + len(".csv")
    begin = inflater.decompress(content[start:], TOO_MUCH)
    inflated = len(begin)
    while inflated < 4 << 30 and (part := inflater.decompress(inflater.unconsumed_tail, TOO_MUCH)):
        inflated += len(part)

    assert len(content) < 16 << 20
    assert member.file_size == len(text_of(good))
    assert begin.startswith(text_of(good).encode())
    assert inflated >= 4 << 30


async def test_faults_hit_as_many_files_as_ordered(client: httpx.AsyncClient) -> None:
    """Each requested file takes one and keeps it, until the faults are cleared."""
    days = [path_of(f"2024-05-0{day}") for day in (1, 2, 3)]
    good = [await rows_of(client, day) for day in days]
    await order(client, "archive", "hole", times=2)
    found = [await rows_of(client, day) for day in days]
    again = [await rows_of(client, day) for day in days]
    await client.delete("/_sandbox/faults")
    healed = [await rows_of(client, day) for day in days]

    assert [len(rows) for rows in found] == [1380, 1380, MINUTES]
    assert again == found
    assert healed == good


async def test_faults_hit_only_the_files_that_they_name(client: httpx.AsyncClient) -> None:
    """By symbol, interval, period or date; REST is never hit."""
    await order(client, "archive", "missing", symbol="ETHUSDT")
    await order(client, "archive", "missing", interval="5m")
    await order(client, "archive", "missing", period="monthly")
    await order(client, "archive", "missing", date="2024-05-09")
    klines = {"symbol": "ETHUSDT", "interval": "5m", "limit": 1}
    asked = [
        (DAY_FILE, 200),
        (path_of("2024-05-07", "ETHUSDT"), 404),
        (path_of("2024-05-07", interval="5m"), 404),
        (path_of("2024-05"), 404),
        (path_of("2024-05-09"), 404),
        (path_of("2024-05"), 200),
    ]

    assert (await client.get("/binance/fapi/v1/klines", params=klines)).status_code == 200
    assert [(path, (await client.get(path)).status_code) for path, _ in asked] == asked


@pytest.mark.parametrize(
    ("fault", "status", "media_type"),
    [
        ("missing", 404, "application/xml"),
        ("forbidden", 403, "application/xml"),
        ("rate_limited", 429, "application/xml"),
        ("server_error", 500, "application/xml"),
        ("maintenance_html", 503, "text/html"),
        ("html", 200, "text/html"),
        ("redirect", 302, "text/html"),
    ],
)
async def test_transfer_fails_once(
    client: httpx.AsyncClient, fault: str, status: int, media_type: str
) -> None:
    """The next zip is refused, the one after is there; with `part`: the checksum."""
    await order(client, "archive", fault)
    checksum = await client.get(DAY_FILE + ".CHECKSUM")
    failed, again = [await client.get(DAY_FILE) for _ in range(2)]
    await order(client, "archive", fault, part="checksum")
    whole = await client.get(DAY_FILE)
    without = await client.get(DAY_FILE + ".CHECKSUM")

    assert (failed.status_code, without.status_code) == (status, status)
    assert failed.headers["content-type"].startswith(media_type)
    assert [item.status_code for item in (checksum, again, whole)] == [200] * 3
    assert [entry["fault"] for entry in await log(client)] == [None, fault, None, None, fault]


async def test_binance_may_be_named_for_its_archive(client: httpx.AsyncClient) -> None:
    """With the kind, or by a fault that only the archive has."""
    await order(client, "binance", "server_error", kind="archive")
    await order(client, "binance", "bomb")
    pending = (await client.get("/_sandbox/faults")).json()

    assert [(fault["exchange"], fault["kind"]) for fault in pending] == [("archive", "archive")] * 2
    assert (await client.get(DAY_FILE)).status_code == 500


@pytest.mark.parametrize(
    "fault",
    [
        {"exchange": "coinbase", "fault": "checksum"},
        {"exchange": "hyperliquid", "fault": "hang", "kind": "archive"},
        {"exchange": "archive", "fault": "clock_ahead"},
        {"exchange": "archive", "fault": "late_candle"},
        {"exchange": "archive", "fault": "hang", "kind": "candles"},
        {"exchange": "archive", "fault": "hole", "part": "checksum"},
        {"exchange": "archive", "fault": "hole", "limit": 5},
        {"exchange": "archive", "fault": "conflict", "field": "trades"},
    ],
    ids=str,
)
async def test_senseless_orders_are_refused(
    client: httpx.AsyncClient, fault: dict[str, object]
) -> None:
    """An archive has only its own faults, and chooses by its own names."""
    answer = await client.post("/_sandbox/faults", json=[fault])

    assert answer.status_code == 422
    assert (await client.get("/_sandbox/faults")).json() == []


# --- over a real connection ---------------------------------------------------------------------


def test_hang_drip_and_cut_off_over_a_connection() -> None:
    """No answer in time; a few bytes at a time; half of them and the end."""
    with running_sandbox(SandboxOptions(clock=Clock())) as sandbox, httpx.Client() as client:
        url = sandbox.url + DAY_FILE
        whole = len(client.get(url).content)
        for fault in ("hang", "drip", "cut_off"):
            sandbox.fault(fault, kind="archive")
        with pytest.raises(httpx.ReadTimeout):
            client.get(url, timeout=0.2)
        with client.stream("GET", url) as dripping:
            drops = dripping.iter_raw()
            got = [len(next(drops)) for _ in range(2)]
            length = int(dripping.headers["content-length"])
        with pytest.raises(httpx.RemoteProtocolError):
            client.get(url)
        healthy = client.get(url)

    assert got == [1, 1]
    assert length == whole
    assert len(healthy.content) == whole
