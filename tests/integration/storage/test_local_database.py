"""The local database on servers of both kinds: opens, keeps data, ends."""

import contextlib
import functools
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Generator, Sequence
from pathlib import Path
from typing import LiteralString
from urllib.parse import urlsplit

import psycopg
import pytest
from support.places import PROJECT

from db.local.account import run_as, server_account, server_environment
from db.local.apt import SOURCES_VARIABLE, for_suite, is_debian, parse_deb822, parse_one_line
from db.local.cluster import homes, wait_until
from db.local.programs import cached_folder
from db.local.server import (
    Kind,
    LocalDatabase,
    LocalDatabaseError,
    open_local_database,
    remove_local_database,
)

pytestmark = pytest.mark.every_kind_of_database

_FAST = {"fsync": "off", "synchronous_commit": "off", "shared_buffers": "16MB"}
_HOMES_ELSEWHERE = Path("/var/lib/mdp")
_OWNER = """
import sys, time
from pathlib import Path
from db.local.server import open_local_database
with open_local_database(Path(sys.argv[1]), kind=sys.argv[2], settings={"fsync": "off"}) as opened:
    print(opened.url, opened.pid, flush=True)
    time.sleep(600)
"""

_HAS_APT = shutil.which("apt-get") is not None
_NO_APT = "TimescaleDB comes from Debian's packages, and this machine has no apt"

as_root_only = pytest.mark.skipif(os.geteuid() != 0, reason="is about running as root")


@pytest.fixture(scope="session", params=["timescaledb", "plain"])
def kind(request: pytest.FixtureRequest) -> Kind:
    if request.param == "timescaledb" and not _HAS_APT:
        pytest.skip(_NO_APT)
    return request.param


@pytest.mark.parametrize("name", ["postgres-16-plain", "owner.lock", "postgres.log"])
def test_link_that_leaves_the_data_folder_is_refused(tmp_path: Path, name: str) -> None:
    """Else root would write to, and hand over, whatever the link leads to."""
    there, folder = tmp_path / "elsewhere", tmp_path / "data"
    folder.mkdir()
    there.write_text("not ours")
    (folder / name).symlink_to(there)
    with (
        pytest.raises(LocalDatabaseError, match=rf"{name} leads out of the data folder"),
        open_local_database(folder, kind="plain"),
    ):
        pytest.fail("it was opened")

    assert there.read_text() == "not ours"
    assert there.stat().st_uid == os.geteuid()


@pytest.fixture(scope="session")
def data_dirs() -> Generator[Callable[[Kind], Path]]:
    """Initialised data folders by kind; making one takes longer than most tests here."""
    with _public_folder() as folder:

        @functools.cache
        def data_dir_of(kind: Kind) -> Path:
            with open_local_database(folder / kind, kind=kind, settings=_FAST):
                return folder / kind

        yield data_dir_of
        for used in folder.iterdir():
            remove_local_database(used)


@pytest.fixture
def data_dir(data_dirs: Callable[[Kind], Path], request: pytest.FixtureRequest) -> Path:
    """A data folder with an empty, stopped database; plain unless a kind is asked for."""
    asks = "kind" in request.fixturenames
    folder = data_dirs(request.getfixturevalue("kind") if asks else "plain")
    kind: Kind = "timescaledb" if folder.name == "timescaledb" else "plain"
    with open_local_database(folder, kind=kind, settings=_FAST) as opened:
        _execute(opened.url, "DROP TABLE IF EXISTS kept")
    return folder


@pytest.fixture
def new_dir() -> Generator[Path]:
    """A data folder that does not exist yet."""
    with _public_folder() as folder:
        yield folder / "data"
        remove_local_database(folder / "data")


def test_new_database_answers(new_dir: Path, kind: Kind) -> None:
    """Any client of this machine gets an answer at the URL, from the requested kind."""
    with open_local_database(new_dir, kind=kind, settings=_FAST) as opened:
        psql = [opened.bin_dir / "psql", opened.url, "-Atc", "SELECT current_database()"]
        assert opened.kind == kind
        assert _value(opened.url, "SELECT 1") == 1
        assert run_as(None, psql).stdout == "mdp\n"


def test_extension_exists_on_its_kind_only(data_dir: Path, kind: Kind) -> None:
    """The role may create the extension timescaledb, where the server has it."""
    with (
        open_local_database(data_dir, kind=kind, settings=_FAST) as opened,
        psycopg.connect(opened.url) as connection,
    ):
        if kind == "plain":
            with pytest.raises(psycopg.errors.FeatureNotSupported):
                connection.execute("CREATE EXTENSION timescaledb")
        else:
            connection.execute("CREATE EXTENSION timescaledb")
            connection.execute("CREATE TABLE t (time timestamptz NOT NULL)")
            connection.execute("SELECT create_hypertable('t', by_range('time'))")
        connection.rollback()


def test_data_survive_reopening(data_dir: Path, kind: Kind) -> None:
    """Committed rows are there after closing and opening, more than once."""
    for opening in range(3):
        with open_local_database(data_dir, kind=kind, settings=_FAST) as opened:
            _execute(opened.url, "CREATE TABLE IF NOT EXISTS kept (n int)")
            _execute(opened.url, "INSERT INTO kept VALUES (%s)", [opening])
            assert _value(opened.url, "SELECT count(*) FROM kept") == opening + 1


def test_leaving_the_context_leaves_no_server(data_dir: Path, kind: Kind) -> None:
    """The process and its port are gone at once, also with a client connected."""
    with open_local_database(data_dir, kind=kind, settings=_FAST) as opened:
        client = psycopg.connect(opened.url)
    client.close()

    assert not _is_running(opened.pid)
    assert not _listens("127.0.0.1", opened)


def test_killed_owner_takes_its_server_along(data_dir: Path, kind: Kind) -> None:
    """A server does not outlive an owner that had no chance to stop it; its data do."""
    with _owner(data_dir, kind) as (owner, url, pid):
        _execute(url, "CREATE TABLE kept AS SELECT 1 AS n")
        owner.kill()
        owner.wait()
        assert _comes_true(lambda: not _is_running(pid))

    with open_local_database(data_dir, kind=kind, settings=_FAST) as opened:
        assert _value(opened.url, "SELECT n FROM kept") == 1


def test_owner_killed_while_starting_leaves_no_server(new_dir: Path) -> None:
    """Whenever the owner is killed, the next opening finds files it can work with."""
    for seconds in (0.4, 0.8, 1.2):
        owner = _start_owner(new_dir, "plain")
        time.sleep(seconds)  # at various steps of the start
        owner.kill()
        owner.communicate()

    with open_local_database(new_dir, kind="plain", settings=_FAST) as opened:
        assert _value(opened.url, "SELECT 1") == 1


def test_server_outlives_the_thread_that_opened_it(data_dir: Path) -> None:
    """A database opened in a worker thread stays open when that thread ends."""
    context = open_local_database(data_dir, kind="plain", settings=_FAST)
    result: list[LocalDatabase] = []
    opener = threading.Thread(target=lambda: result.append(context.__enter__()))
    opener.start()
    opener.join()
    try:
        assert _value(result[0].url, "SELECT 1") == 1
    finally:
        context.__exit__(None, None, None)


def test_crashed_server_recovers(data_dir: Path, kind: Kind) -> None:
    """After the server itself was killed the next opening recovers what was committed."""
    with open_local_database(data_dir, kind=kind, settings={"fsync": "off"}) as opened:
        _execute(opened.url, "CREATE TABLE kept AS SELECT 1 AS n")
        os.kill(opened.pid, signal.SIGKILL)

    with open_local_database(data_dir, kind=kind, settings=_FAST) as opened:
        assert _value(opened.url, "SELECT n FROM kept") == 1


def test_pid_file_naming_another_program_is_no_obstacle(data_dir: Path, kind: Kind) -> None:
    """A number left by a crash, by now another program's, neither blocks nor harms."""
    with open_local_database(data_dir, kind=kind, settings=_FAST) as opened:
        pid_file = homes(data_dir)[0] / "data" / "postmaster.pid"
        content = pid_file.read_text(encoding="utf-8")
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as bystander:
        pid_file.write_text(content.replace(str(opened.pid), str(bystander.pid), 1), "utf-8")

        with open_local_database(data_dir, kind=kind, settings=_FAST) as opened:
            assert _value(opened.url, "SELECT 1") == 1
        assert bystander.poll() is None
        bystander.kill()


def test_abandoned_server_is_stopped_before_starting_anew(data_dir: Path, kind: Kind) -> None:
    """A server of these files that has no owner any more is stopped, not fought with."""
    with open_local_database(data_dir, kind=kind, settings=_FAST) as opened:
        pass
    data = homes(data_dir)[0].resolve() / "data"
    account = server_account(homes(data_dir))
    abandoned = subprocess.Popen(  # noqa: S603 - the server under test
        [opened.bin_dir / "postgres", "-D", data, "-c", "unix_socket_directories="],
        env=server_environment(),
        stderr=subprocess.DEVNULL,
        user=account.uid if account else None,
        group=account.gid if account else None,
    )
    assert _comes_true((data / "postmaster.pid").exists)

    with open_local_database(data_dir, kind=kind, settings=_FAST) as opened:
        assert abandoned.wait(10) is not None
        assert _value(opened.url, "SELECT 1") == 1


def test_second_owner_is_refused(data_dir: Path) -> None:
    """One data folder has one owner; the refusal names it and leaves it alone."""
    with _owner(data_dir, "plain") as (owner, url, _):
        refusal = f"in use by process {owner.pid}"
        with pytest.raises(LocalDatabaseError, match=refusal):
            open_local_database(data_dir, kind="plain").__enter__()
        with pytest.raises(LocalDatabaseError, match=refusal):
            remove_local_database(data_dir)
        assert _value(url, "SELECT 1") == 1


def test_server_listens_on_loopback_only(data_dir: Path) -> None:
    """No other address of this machine answers, and the password is needed."""
    with open_local_database(data_dir, kind="plain", settings=_FAST) as opened:
        assert _listens("127.0.0.1", opened)
        assert not _listens("127.0.0.2", opened)
        with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
            psycopg.connect(opened.url, password="guess").close()  # noqa: S106 - a wrong one
        assert (homes(data_dir)[0] / "password").stat().st_mode & 0o777 == 0o600


@pytest.mark.skipif(not _HAS_APT, reason=_NO_APT)
def test_kinds_keep_their_files_apart(data_dir: Path) -> None:
    """Switching the kind opens other files, and switching back finds the first ones."""
    with open_local_database(data_dir, kind="plain", settings=_FAST) as opened:
        _execute(opened.url, "CREATE TABLE kept AS SELECT 1 AS n")
    with open_local_database(data_dir, kind="timescaledb", settings=_FAST) as opened:
        assert _value(opened.url, "SELECT to_regclass('kept')") is None
    with open_local_database(data_dir, kind="plain", settings=_FAST) as opened:
        assert _value(opened.url, "SELECT n FROM kept") == 1


def test_setting_that_the_server_refuses_is_reported(data_dir: Path) -> None:
    """A server that does not start says why in the error; the folder stays usable."""
    with pytest.raises(LocalDatabaseError, match="no_such_setting"):
        open_local_database(data_dir, kind="plain", settings={"no_such_setting": "1"}).__enter__()

    with open_local_database(data_dir, kind="plain", settings=_FAST) as opened:
        assert _value(opened.url, "SELECT 1") == 1


def test_environment_decides_the_kind(data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """MDP_LOCAL_DATABASE holds where no argument does; nonsense in it is refused."""
    monkeypatch.setenv("MDP_LOCAL_DATABASE", "plain")
    with open_local_database(data_dir, settings=_FAST) as opened:
        assert opened.kind == "plain"

    monkeypatch.setenv("MDP_LOCAL_DATABASE", "oracle")
    with pytest.raises(LocalDatabaseError, match="oracle"):
        open_local_database(data_dir).__enter__()


def test_without_debian_the_plain_server_is_taken(
    data_dir: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """An open choice falls back and says why; TimescaleDB by name is an error."""
    cache = data_dir.parent / "cache"
    monkeypatch.delenv("MDP_LOCAL_DATABASE", raising=False)
    monkeypatch.setenv(SOURCES_VARIABLE, str(cache / "missing.sources"))

    with open_local_database(data_dir, cache_dir=cache, settings=_FAST) as opened:
        assert opened.kind == "plain"
    assert "missing.sources" in capsys.readouterr().err
    with pytest.raises(LocalDatabaseError, match=r"missing\.sources"):
        open_local_database(data_dir, kind="timescaledb", cache_dir=cache).__enter__()


@as_root_only
def test_server_of_root_runs_unprivileged(data_dir: Path, kind: Kind) -> None:
    """No process of the server is root's, even where root opened it."""
    with open_local_database(data_dir, kind=kind, settings=_FAST) as opened:
        assert Path(f"/proc/{opened.pid}").stat().st_uid != 0


@as_root_only
def test_private_folder_of_root_keeps_its_mode(tmp_path: Path) -> None:
    """Files out of the server account's reach are elsewhere; removing removes them."""
    private = tmp_path / "private"
    private.mkdir(mode=0o700)
    for _ in range(2):
        with open_local_database(private / "data", kind="plain", settings=_FAST) as opened:
            assert _value(opened.url, "SELECT 1") == 1
    (home,) = homes(private / "data")
    elsewhere = home.resolve()

    remove_local_database(private / "data")

    assert private.stat().st_mode & 0o777 == 0o700
    assert elsewhere.is_relative_to(_HOMES_ELSEWHERE)
    assert not elsewhere.parent.exists()


@as_root_only
def test_home_of_a_deleted_temporary_folder_is_swept(tmp_path: Path) -> None:
    """Files elsewhere go with their temporary folder, at a later opening."""
    tmp_path.chmod(0o700)
    with open_local_database(tmp_path / "first", kind="plain", settings=_FAST):
        first = homes(tmp_path / "first")[0].resolve()
    shutil.rmtree(tmp_path / "first")

    with open_local_database(tmp_path / "second", kind="plain", settings=_FAST):
        pass
    remove_local_database(tmp_path / "second")

    assert not first.parent.exists()


def test_interrupted_download_leaves_no_broken_cache(tmp_path: Path) -> None:
    """The remains of an interrupted run are deleted, never taken for a server."""

    def interrupted(folder: Path, _final: Path) -> None:
        (folder / "half").touch()
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        cached_folder(tmp_path, "server", None, interrupted)
    made = cached_folder(tmp_path, "server", None, lambda folder, _: (folder / "whole").touch())

    assert [path.name for path in made.iterdir()] == ["whole"]
    assert [path.name for path in tmp_path.glob("server*")] == ["server"]


def test_server_is_made_once_for_two_at_once(tmp_path: Path) -> None:
    """The second of two that find the cache empty waits for the first one's server."""
    makers: list[str] = []

    def make(folder: Path, _final: Path) -> None:
        makers.append(folder.name)
        time.sleep(0.2)

    threads = [
        threading.Thread(target=cached_folder, args=(tmp_path, "server", None, make))
        for _ in range(2)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert len(makers) == 1


_DEB822 = """\
# a comment
Types: deb deb-src
URIs: http://mirror.invalid/debian
Suites: stable stable-updates
Components: main contrib
Signed-By:
 -----BEGIN PGP PUBLIC KEY BLOCK-----
 .
 abc

Types: deb
URIs: https://tools.invalid/apt
Suites: nodistro
Components: main
"""


def test_debian_mirror_is_found_in_both_formats() -> None:
    """Only Debian's main archive is taken, with its keys, for the wanted suite."""
    stanzas = [
        *parse_deb822(_DEB822),
        *parse_one_line(
            "# deb http://off.invalid/debian stable main\n"
            "deb [arch=amd64 signed-by=/keys/a.gpg] http://b.invalid/debian stable main # why\n"
            "deb http://c.invalid/debian stable-security main\n"
            "deb-src http://d.invalid/debian stable main\n"
        ),
    ]

    found = [for_suite(stanza) for stanza in stanzas if is_debian(stanza)]

    assert found == [
        f"Types: deb\nUris: http://{host}/debian\nSuites: trixie\nComponents: main\n{key}"
        for host, key in (
            ("mirror.invalid", "Signed-By: \n -----BEGIN PGP PUBLIC KEY BLOCK-----\n .\n abc\n"),
            ("b.invalid", "Signed-By: /keys/a.gpg\n"),
        )
    ]


@contextlib.contextmanager
def _public_folder() -> Generator[Path]:
    """Give a temporary folder open to all accounts, unlike pytest's own as root."""
    with tempfile.TemporaryDirectory(prefix="mdp-test-") as name:
        folder = Path(name)
        folder.chmod(0o755)
        yield folder


def _value(url: str, query: LiteralString) -> object:
    with psycopg.connect(url) as connection:
        row = connection.execute(query).fetchone()
    assert row is not None
    return row[0]


def _execute(url: str, statement: LiteralString, arguments: Sequence[object] = ()) -> None:
    with psycopg.connect(url) as connection:
        connection.execute(statement, arguments)


def _start_owner(data_dir: Path, kind: Kind) -> subprocess.Popen[str]:
    return subprocess.Popen(  # noqa: S603 - the program above
        [sys.executable, "-c", _OWNER, data_dir, kind],
        cwd=PROJECT,
        stdout=subprocess.PIPE,
        text=True,
    )


@contextlib.contextmanager
def _owner(data_dir: Path, kind: Kind) -> Generator[tuple[subprocess.Popen[str], str, int]]:
    """Run another process that owns the database; give it, its URL and server pid."""
    with _start_owner(data_dir, kind) as owner:
        assert owner.stdout is not None
        url, pid = owner.stdout.readline().split()
        try:
            yield owner, url, int(pid)
        finally:
            owner.kill()
            owner.wait()
            # Its server goes a moment later; what follows may delete the files.
            assert _comes_true(lambda: not _is_running(int(pid)))


def _is_running(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2]
    except FileNotFoundError:
        return False
    # A zombie is only waiting to be counted by the process that inherited it.
    return state.split()[0] != "Z"


def _listens(host: str, opened: LocalDatabase) -> bool:
    port = urlsplit(opened.url).port
    assert port is not None
    try:
        socket.create_connection((host, port), timeout=2).close()
    except ConnectionRefusedError:
        return False
    return True


def _comes_true(is_true: Callable[[], bool]) -> bool:
    return wait_until(is_true, 10)
