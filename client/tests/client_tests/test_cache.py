"""The disk cache is right or refilled, whatever happens to files or store."""

import random
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from mdp_client import Client, Unauthorized
from mdp_client.cache.blocks import blocks_of, subtract
from mdp_client.testing import Service

from client_tests.both import Both
from client_tests.conftest import Connect
from client_tests.scripted import Asked, Reply
from client_tests.store import MINUTE, START, StoreServer

SERIES = ("binance", "perp", "BTC-USDT", "1m")
FEBRUARY = 1_706_745_600_000
# One store serves all examples: each compares the answer with what the store holds by then.
_FIXTURES = [HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
ORIGIN = FEBRUARY - 1440 * MINUTE
BEFORE, AFTER = FEBRUARY - 700 * MINUTE, FEBRUARY + 800 * MINUTE


def rows(client: Both, start: int, end: int, **options: object) -> list[list[float]]:
    return client.candles(*SERIES, start=start, end=end, **options).to_ccxt()


def expected(store: StoreServer, start: int, end: int) -> list[list[float]]:
    return [list(row) for row in store.expected(start, end)]


@pytest.fixture
def cached(connect: Connect, store: StoreServer, tmp_path: Path) -> Both:
    return connect(store.url, cache=tmp_path)


def files(folder: Path) -> list[Path]:
    return sorted(folder.rglob("*.arrow"))


def test_second_call_asks_for_the_version_alone(
    cached: Both, store: StoreServer, tmp_path: Path
) -> None:
    """A window over two months lies in two files; one HEAD says that they are right."""
    first = rows(cached, BEFORE, AFTER)
    assert store.windows("HEAD") == [(BEFORE, AFTER)]
    again = cached.candles(*SERIES, start=BEFORE, end=AFTER)

    assert first == again.to_ccxt() == expected(store, BEFORE, AFTER)
    assert [request.method for request in store.asked] == ["HEAD"]
    assert [file.name for file in files(tmp_path)] == ["2024-01.arrow", "2024-02.arrow"]
    assert (again.complete, again.symbol) == (True, "BTC-USDT")
    assert again.end == again.settled_until


def test_requests_of_a_call_share_a_connection(cached: Both, store: StoreServer) -> None:
    """The answer to a HEAD has no body to be read before the next request."""
    rows(cached, BEFORE, FEBRUARY)
    rows(cached, BEFORE, AFTER)

    assert [request.method for request in store.asked] == ["HEAD", "GET", "HEAD", "GET"]
    assert store.server.connections == 1


def test_only_what_is_lacking_is_asked_for(cached: Both, store: StoreServer) -> None:
    """Files grow by joining, and nothing outside the window is fetched."""
    rows(cached, BEFORE, FEBRUARY)
    store.windows()
    got = rows(cached, BEFORE - 100 * MINUTE, AFTER)
    asked = store.windows()

    assert got == expected(store, BEFORE - 100 * MINUTE, AFTER)
    assert asked == [(BEFORE - 100 * MINUTE, BEFORE), (FEBRUARY, AFTER)]
    assert rows(cached, BEFORE - 50 * MINUTE, FEBRUARY + 50 * MINUTE) == expected(
        store, BEFORE - 50 * MINUTE, FEBRUARY + 50 * MINUTE
    )
    assert store.windows() == []


_MINUTES = st.integers(0, 2880)


@settings(max_examples=25, deadline=None, suppress_health_check=_FIXTURES)
@given(
    steps=st.lists(
        st.one_of(
            st.tuples(st.just("read"), _MINUTES, _MINUTES),
            st.tuples(st.just("heal"), _MINUTES, _MINUTES),
            st.tuples(st.just("flip"), _MINUTES, _MINUTES),
            st.tuples(st.just("restore"), _MINUTES, _MINUTES),
            st.tuples(st.just("settle"), _MINUTES, _MINUTES),
            st.tuples(st.just("doubt"), _MINUTES, _MINUTES),
        ),
        min_size=3,
        max_size=12,
    )
)
def test_whatever_happens_the_answer_is_the_stores(
    store: StoreServer, tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[str, int, int]]
) -> None:
    """Read at random amid repairs, restores, flipped bytes, a moving edge, absences."""
    folder = tmp_path_factory.mktemp("cache")
    with Client(store.url, cache=folder) as client:
        for number, (action, one, two) in enumerate([*steps, ("read", 0, 2880)]):
            start, end = (ORIGIN + at * MINUTE for at in sorted((one, two)))
            if action == "read":
                got = client.candles(*SERIES, start=start, end=end)
                assert got.to_ccxt() == expected(store, start, end)
            elif action == "flip":
                flip(folder, one, two)
            else:
                CHANGES[action](store, start, end, 10.0 + number)
    store.settled, store.unconfirmed = store.end, []


def heal(store: StoreServer, start: int, end: int, close: float) -> None:
    store.heal(start, close)


def restore(store: StoreServer, start: int, end: int, close: float) -> None:
    store.store += 1
    store.rows[start] = (start, 1.0, 2.0, 0.5, close + 0.5, 3.0)


def settle(store: StoreServer, start: int, end: int, close: float) -> None:
    store.settled = end


def doubt(store: StoreServer, start: int, end: int, close: float) -> None:
    store.unconfirmed = [(start, end)] if start < end else []
    store.epoch += 1
    for time in range(start, end, MINUTE):
        store.rows.pop(time, None)
        store.changes.append((time, store.epoch))


CHANGES = {"heal": heal, "restore": restore, "settle": settle, "doubt": doubt}


def flip(folder: Path, which: int, at: int) -> None:
    """Flip a bit of one of the files, if there is any."""
    if found := files(folder):
        path = found[which % len(found)]
        data = bytearray(path.read_bytes())
        data[at * 7919 % len(data)] ^= 0x10
        path.write_bytes(data)


def test_healed_candle_is_fetched_again(cached: Both, store: StoreServer) -> None:
    """A change inside the window throws its pieces away, one outside leaves them."""
    rows(cached, BEFORE, AFTER)
    store.heal(AFTER + MINUTE, 7.0)
    store.windows()
    assert rows(cached, BEFORE, AFTER) == expected(store, BEFORE, AFTER)
    assert store.windows() == []

    store.heal(FEBRUARY, 8.0)
    assert rows(cached, BEFORE, AFTER) == expected(store, BEFORE, AFTER)
    assert store.windows() == [(BEFORE, AFTER)]


def test_piece_found_valid_later_is_valid_from_then_on(cached: Both, store: StoreServer) -> None:
    """A change elsewhere does not have it fetched when a larger window is asked for."""
    rows(cached, FEBRUARY, AFTER)
    store.heal(BEFORE, 7.0)
    rows(cached, FEBRUARY, AFTER)
    store.windows()

    assert rows(cached, BEFORE, AFTER) == expected(store, BEFORE, AFTER)
    assert store.windows() == [(BEFORE, FEBRUARY)]


def test_what_may_change_is_not_kept(cached: Both, store: StoreServer) -> None:
    """Provisional candles and unconfirmed slots are asked for again."""
    store.settled = AFTER - 5 * MINUTE
    store.unconfirmed = [(FEBRUARY, FEBRUARY + 2 * MINUTE)]
    for time in (FEBRUARY, FEBRUARY + MINUTE):
        del store.rows[time]
    first = cached.candles(*SERIES, start=BEFORE, end=AFTER)
    store.windows()
    again = cached.candles(*SERIES, start=BEFORE, end=AFTER)

    assert store.windows() == [(FEBRUARY, FEBRUARY + 2 * MINUTE), (AFTER - 5 * MINUTE, AFTER)]
    assert first.to_ccxt() == again.to_ccxt() == expected(store, BEFORE, AFTER)
    assert first.unconfirmed == again.unconfirmed != ()
    assert again.settled_until < again.end


def test_another_server_under_the_same_url_is_another_store(
    cached: Both, store: StoreServer
) -> None:
    """Its candles are never taken for those of the first."""
    rows(cached, BEFORE, AFTER)
    store.store = 2
    store.rows[BEFORE] = (BEFORE, 1.0, 2.0, 0.5, 1.75, 9.0)

    assert rows(cached, BEFORE, AFTER) == expected(store, BEFORE, AFTER)


def test_service_without_versions_is_asked_for_everything(
    cached: Both, store: StoreServer, tmp_path: Path
) -> None:
    """Nothing could tell that a candle was repaired since."""
    store.has_versions = False
    rows(cached, BEFORE, AFTER)
    store.heal(BEFORE, 7.0)

    assert rows(cached, BEFORE, AFTER) == expected(store, BEFORE, AFTER)
    assert files(tmp_path) == []


def test_fields_have_files_of_their_own(cached: Both, tmp_path: Path) -> None:
    """Columns are never mixed up."""
    rows(cached, BEFORE, FEBRUARY)
    cached.candles(*SERIES, start=BEFORE, end=FEBRUARY, fields=["close"])

    assert {file.parent.name for file in files(tmp_path)} == {"default", "close"}


def test_windows_of_several_answers_are_kept(cached: Both, store: StoreServer) -> None:
    """Each answer's version is asked for."""
    store.most = 400
    assert rows(cached, BEFORE, AFTER) == expected(store, BEFORE, AFTER)
    store.windows()
    assert rows(cached, BEFORE, AFTER) == expected(store, BEFORE, AFTER)
    assert store.windows() == []
    limited = rows(cached, BEFORE, AFTER, limit=100)
    assert limited == expected(store, BEFORE, BEFORE + 100 * MINUTE)
    assert store.windows() == []


@pytest.mark.parametrize("at", [0.0, 0.01, 0.5, 0.999])
def test_flipped_byte_is_found(cached: Both, store: StoreServer, tmp_path: Path, at: float) -> None:
    """Head, candles and checksum are covered."""
    rows(cached, BEFORE, FEBRUARY)
    (file,) = files(tmp_path)
    data = bytearray(file.read_bytes())
    data[int(at * len(data))] ^= 1
    file.write_bytes(data)
    store.windows()

    assert rows(cached, BEFORE, FEBRUARY) == expected(store, BEFORE, FEBRUARY)
    assert store.windows() == [(BEFORE, FEBRUARY)]
    assert rows(cached, BEFORE, FEBRUARY) == expected(store, BEFORE, FEBRUARY)
    assert store.windows() == []


@pytest.mark.parametrize("length", [0, 3, 8, 1000])
def test_file_that_was_cut_is_found(
    cached: Both, store: StoreServer, tmp_path: Path, length: int
) -> None:
    """As is one that lies where another belongs."""
    rows(cached, BEFORE, AFTER)
    january, february = files(tmp_path)
    january.write_bytes(february.read_bytes())
    february.write_bytes(february.read_bytes()[:length])

    assert rows(cached, BEFORE, AFTER) == expected(store, BEFORE, AFTER)


def test_file_that_was_moved_is_not_believed(
    cached: Both, store: StoreServer, tmp_path: Path
) -> None:
    """It names the store and the series that it is of."""
    rows(cached, BEFORE, FEBRUARY)
    (file,) = files(tmp_path)
    store.store = 2
    store.rows[BEFORE] = (BEFORE, 1.0, 2.0, 0.5, 1.75, 9.0)
    other = file.parents[2].with_name("2") / file.relative_to(file.parents[2])
    other.parent.mkdir(parents=True)
    other.write_bytes(file.read_bytes())

    assert rows(cached, BEFORE, FEBRUARY) == expected(store, BEFORE, FEBRUARY)


def test_folder_that_can_not_be_written_is_no_trouble(
    connect: Connect, store: StoreServer, tmp_path: Path
) -> None:
    """The candles come, and nothing else happens."""
    (tmp_path / "file").write_text("")
    client = connect(store.url, cache=tmp_path / "file")

    assert rows(client, BEFORE, AFTER) == expected(store, BEFORE, AFTER)


_FULL_DISK = """
import resource, signal, sys
from mdp_client import Client
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
url, folder, start, end = sys.argv[1:]
client = Client(url, cache=folder)
for _ in range(2):
    print(len(client.candles("binance", "perp", "BTC-USDT", "1m", start=int(start), end=int(end))))
"""


def test_full_disk_is_no_trouble(store: StoreServer, tmp_path: Path) -> None:
    """A write that fails amid a file leaves nothing behind."""
    window = [str(BEFORE), str(FEBRUARY)]
    command = [sys.executable, "-c", _FULL_DISK, store.url, str(tmp_path), *window]
    done = subprocess.run(command, capture_output=True, text=True, check=True)  # noqa: S603 - our own

    assert done.stdout.split() == ["700", "700"]
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


_READER = """
import sys
from mdp_client import Client
url, folder = sys.argv[1:]
client = Client(url, cache=folder)
while True:
    for shift in range(0, 40, 4):
        start = 1706745600000 - (700 + shift) * 60000
        client.candles("binance", "perp", "BTC-USDT", "1m", start=start, end=1706745600000)
    print("round", flush=True)
"""


def test_two_processes_at_once_that_are_killed_amid(store: StoreServer, tmp_path: Path) -> None:
    """Whenever they die, the files that they leave are right."""
    for seed in range(3):
        command = [sys.executable, "-c", _READER, store.url, str(tmp_path)]
        both = [subprocess.Popen(command, stdout=subprocess.PIPE) for _ in range(2)]  # noqa: S603 - our own
        for one_client in both:
            assert one_client.stdout
            one_client.stdout.readline() if seed == 0 else one_client.stdout.read(1)
            one_client.kill()
            one_client.wait()
            one_client.stdout.close()
        with Client(store.url, cache=tmp_path) as client:
            got = client.candles(*SERIES, start=FEBRUARY - 740 * MINUTE, end=FEBRUARY)
        assert got.to_ccxt() == expected(store, FEBRUARY - 740 * MINUTE, FEBRUARY)
        store.heal(FEBRUARY - (seed + 1) * MINUTE, 20.0 + seed)


def test_threads_share_a_cache(store: StoreServer, tmp_path: Path) -> None:
    """Each writes whole files; none reads a half."""
    with Client(store.url, cache=tmp_path) as client, ThreadPoolExecutor(8) as pool:

        def read(seed: int) -> bool:
            start = BEFORE + random.Random(seed).randrange(600) * MINUTE  # noqa: S311 - no secret
            got = client.candles(*SERIES, start=start, end=AFTER)
            return got.to_ccxt() == expected(store, start, AFTER)

        assert all(pool.map(read, range(40)))


def test_refusals_keep_their_words(cached: Both, store: StoreServer) -> None:
    """The answer to a HEAD has no body, so the error is a GET's."""
    body = b'{"code": "unauthorized", "detail": "the token is revoked"}'
    headers = {"Content-Type": "application/problem+json"}
    store.tamper = lambda _asked, _reply: Reply(401, headers, body)

    with pytest.raises(Unauthorized, match="the token is revoked"):
        rows(cached, BEFORE, AFTER)


def test_repair_between_version_and_candles_is_noticed(cached: Both, store: StoreServer) -> None:
    """The answer is put together anew."""
    rows(cached, BEFORE, FEBRUARY)

    def heal(asked: Asked, reply: Reply) -> Reply:
        if asked.method == "HEAD" and store.epoch == 0:
            store.heal(BEFORE, 5.0)
        return reply

    store.tamper = heal
    assert rows(cached, BEFORE, AFTER) == expected(store, BEFORE, AFTER)


def test_cache_against_a_real_service(connect: Connect, mdp: Service, tmp_path: Path) -> None:
    """With or without versions, the candles are the same, in one request or two."""
    series = ("binance", "perp", "BTC-USDC", "1h")
    plain = connect(mdp.url, token=mdp.token)
    client = connect(mdp.url, token=mdp.token, cache=tmp_path)
    window = {"start": "2023-11", "end": "2024-02"}

    for _ in range(2):
        assert client.candles(*series, **window).to_ccxt() == (
            plain.candles(*series, **window).to_ccxt()
        )
    assert len(client.candles(*series, limit=10)) == 10
    assert len(client.candles(*series, start="2024-01", end="2024-01")) == 0


def test_blocks_are_months_and_years() -> None:
    """A block begins where the last one ends."""
    months = [*blocks_of("3m", START, START + 400 * 1440 * MINUTE)]
    years = [*blocks_of("1w", START, START + 400 * 1440 * MINUTE)]

    assert [folder.name for folder in years] == ["2024", "2025"]
    assert (months[0].name, months[-1].name, len(months)) == ("2024-01", "2025-02", 14)
    assert all(one.end == two.start for one, two in pairwise(months))


@given(
    st.lists(st.tuples(st.integers(0, 60), st.integers(0, 60)).filter(lambda w: w[0] < w[1])),
    st.lists(st.tuples(st.integers(0, 60), st.integers(0, 60)).filter(lambda w: w[0] < w[1])),
)
def test_subtraction_is_that_of_sets(
    windows: list[tuple[int, int]], taken: list[tuple[int, int]]
) -> None:
    """Windows are half-open."""

    def slots(of: list[tuple[int, int]]) -> set[int]:
        return {slot for window in of for slot in range(*window)}

    assert slots(subtract(windows, taken)) == slots(windows) - slots(taken)
