"""The files of one local database: their place, owner and life cycle.

A cluster is `home/data` beside `home/password`. `home` is `data_dir/postgres-<major>-<kind>`, so a
server never opens files of another version or kind. As root the server runs as an unprivileged
account; where that account cannot reach the data folder (below /root, or a private temporary
folder), the home is in /var/lib/mdp and the name in the data folder is a symbolic link to it:
opening up a user's folders is not ours to do.
"""

import fcntl
import os
import secrets
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from db.local.account import Account, can_enter, give_to, run_as
from db.local.errors import LocalDatabaseError
from db.local.programs import Programs

ROLE = "mdp"

_ELSEWHERE = Path("/var/lib/mdp")
_PID_FILE = "postmaster.pid"
_STOP_SECONDS = 30.0
_POLL_SECONDS = 0.02


@dataclass(frozen=True, slots=True)
class Cluster:
    """An initialised cluster of the local database."""

    home: Path
    account: Account | None
    programs: Programs

    @property
    def data(self) -> Path:
        """Postgres's data directory."""
        return self.home / "data"

    @property
    def password(self) -> str:
        """The password of the role `mdp`."""
        return (self.home / "password").read_text(encoding="ascii").strip()


def homes(data_dir: Path) -> list[Path]:
    """Return the homes of all clusters of this data folder, links among them."""
    return sorted(data_dir.glob("postgres-*-*"))


def refuse_links_out(folder: Path) -> None:
    """Refuse links that lead out of a folder: root would hand over their targets.

    Args:
        folder: Resolved. Homes that were made elsewhere for it are as good as in it.

    Raises:
        LocalDatabaseError: There is one; the message names it.
    """
    for link in filter(Path.is_symlink, folder.iterdir()):
        target = link.resolve()
        if not target.is_relative_to(folder) and target.parent.parent != _ELSEWHERE:
            message = f"{link} leads out of the data folder, to {target}: remove that link"
            raise LocalDatabaseError(message)


def ensure_cluster(
    data_dir: Path, account: Account | None, programs: Programs, *, is_durable: bool
) -> Cluster:
    """Return the cluster of these programs in a data folder, initialised if new.

    Args:
        data_dir: Exists; the caller holds its owner lock.
        account: Runs the server.
        programs: Decide which cluster it is.
        is_durable: Flush a new cluster to disk; not worth a second when the server does not either.
    """
    cluster = Cluster(_ensure_home(data_dir, account, programs), account, programs)
    refuse_links_out(cluster.home)
    for rest in cluster.home.glob("data.*.new"):
        # Of an initdb whose owner was killed; it may still be writing, hence no error.
        shutil.rmtree(rest, ignore_errors=True)
    if not cluster.data.is_dir():
        _initialise(cluster, is_durable=is_durable)
    return cluster


def stop_stale_server(data: Path) -> None:
    """Stop any server on these files; the caller must hold the owner lock.

    A server found is one whose owner was killed where the system could not tell it, or which is
    still shutting down. A number in the pid file that by now belongs to another program is removed:
    Postgres would take that program for its predecessor and refuse to start.

    Raises:
        LocalDatabaseError: A server could not be stopped.
    """
    pid = _recorded_pid(data)
    if pid is None or not _is_alive(pid):
        return
    if not _is_server(pid, data):
        (data / _PID_FILE).unlink(missing_ok=True)
        return
    for death in (signal.SIGINT, signal.SIGQUIT):
        os.kill(pid, death)
        if wait_until(lambda: not _is_server(pid, data), _STOP_SECONDS):
            return
    message = f"an abandoned server of {data} (pid {pid}) does not stop; end it and try again"
    raise LocalDatabaseError(message)


def is_ready(data: Path, pid: int, port: int) -> bool:
    """Tell whether the server with this pid accepts connections on this port."""
    try:
        lines = (data / _PID_FILE).read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        return False
    # Its own word, not a connection: another program may have taken the port meanwhile. The lines
    # are pid, data directory, start time, port, socket, address, shared memory, status.
    match lines:
        case [said_pid, _, _, said_port, _, _, _, status, *_]:
            return (said_pid, said_port, status.strip()) == (str(pid), str(port), "ready")
        case _:
            return False


def remove_home(home: Path) -> None:
    """Delete a cluster that no server runs on, wherever its files are."""
    if home.is_symlink():
        target = home.resolve()
        home.unlink()
        if target.parent.parent == _ELSEWHERE:
            shutil.rmtree(target.parent, ignore_errors=True)
    else:
        shutil.rmtree(home)


def wait_until(is_true: Callable[[], bool], timeout_seconds: float) -> bool:
    """Wait for a condition; return whether it came true in time."""
    deadline = time.monotonic() + timeout_seconds
    while not is_true():
        if time.monotonic() > deadline:
            return False
        time.sleep(_POLL_SECONDS)
    return True


def _ensure_home(data_dir: Path, account: Account | None, programs: Programs) -> Path:
    home = data_dir / f"postgres-{programs.major}-{programs.kind}"
    if home.is_symlink() and not home.exists():
        home.unlink()  # its files were deleted by hand
    if not home.exists():
        if can_enter(account, data_dir):
            home.mkdir(mode=0o700)
        else:
            _make_home_elsewhere(home)
    # Every time: a home whose making was interrupted may still be root's.
    give_to(account, home.resolve())
    return home.resolve()


def _make_home_elsewhere(link: Path) -> None:
    """Make a home that every account can reach, and link to it.

    Those of data folders in the temporary folder go when their link has gone, for nothing else
    deletes them; all others stay until they are removed on purpose.
    """
    _ELSEWHERE.mkdir(parents=True, exist_ok=True)
    _ELSEWHERE.chmod(0o755)
    is_temporary = link.is_relative_to(Path(tempfile.gettempdir()).resolve())
    with (_ELSEWHERE / ".lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        for folder in _ELSEWHERE.glob("temporary-*"):
            _sweep(folder)
        prefix = "temporary-" if is_temporary else "kept-"
        folder = Path(tempfile.mkdtemp(prefix=prefix, dir=_ELSEWHERE))
        folder.chmod(0o755)
        (folder / "home").mkdir(mode=0o700)
        (folder / "origin").write_text(str(link), encoding="utf-8")
        link.symlink_to(folder / "home")


def _sweep(folder: Path) -> None:
    """Delete a temporary home that nothing links to and nothing runs on."""
    origin, home = folder / "origin", folder / "home"
    if origin.exists() and Path(origin.read_text(encoding="utf-8")).resolve() == home:
        return
    pid = _recorded_pid(home / "data")
    if pid is None or not _is_server(pid, home / "data"):
        shutil.rmtree(folder, ignore_errors=True)  # its owner may be deleting it, too


def _initialise(cluster: Cluster, *, is_durable: bool) -> None:
    """Make the data directory; it appears complete, by a rename."""
    new = Path(tempfile.mkdtemp(prefix="data.", suffix=".new", dir=cluster.home))
    give_to(cluster.account, new)
    command: list[str | Path] = [
        *(cluster.programs.bin_dir / "initdb", "--pgdata", new),
        *("--username", ROLE, "--pwfile", _make_password(cluster)),
        *("--auth", "scram-sha-256", "--encoding", "UTF8", "--locale", "C", "--no-instructions"),
        *([] if is_durable else ["--no-sync"]),
    ]
    done = run_as(cluster.account, command, cwd=cluster.home)
    if done.returncode != 0:
        message = f"initdb failed in {cluster.home}: {done.stdout.strip()}"
        raise LocalDatabaseError(message)
    new.rename(cluster.data)


def _make_password(cluster: Cluster) -> Path:
    path = cluster.home / "password"
    path.touch(mode=0o600)
    path.write_text(secrets.token_hex(16), encoding="ascii")
    give_to(cluster.account, path)
    return path


def _recorded_pid(data: Path) -> int | None:
    try:
        first, *_ = (data / _PID_FILE).read_text(encoding="utf-8").splitlines()
        return int(first)
    except (FileNotFoundError, ValueError):
        return None


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _is_server(pid: int, data: Path) -> bool:
    """Tell whether this process is the server of exactly these files."""
    process = Path("/proc") / str(pid)
    if not process.parent.joinpath("self").exists():  # no such file system, e.g. on macOS
        command = ["ps", "-ww", "-p", str(pid), "-o", "args="]
        ps = subprocess.run(  # noqa: S603 - nothing but a number is put in
            command, capture_output=True, text=True, check=False
        )
        return f"postgres -D {data} " in ps.stdout
    try:
        arguments = (process / "cmdline").read_bytes().split(b"\0")
    except OSError:
        return False
    return arguments[0].endswith(b"/postgres") and os.fsencode(data) in arguments
