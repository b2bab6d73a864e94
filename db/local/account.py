"""Which operating system account the local server runs as.

Postgres refuses to run as root, for good reasons, so root hands it to an unprivileged account;
other users run it as themselves. That account often cannot enter root's folders: whether it
can is tried rather than computed, because mode bits do not tell about access lists.
"""

import os
import pwd
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from db.local.errors import LocalDatabaseError

# An account made for Postgres first; then the one that exists on every Unix.
_ACCOUNTS_FOR_ROOT = ("postgres", "nobody")


@dataclass(frozen=True, slots=True)
class Account:
    """An unprivileged account that root hands the server to."""

    name: str
    uid: int
    gid: int


def server_account(homes: Iterable[Path]) -> Account | None:
    """Return the account to drop to, or None when this process is not root.

    Args:
        homes: Folders of existing clusters. Their owner is kept, so that an account which appears
            later (`apt install postgresql`) does not lock the data away.
    """
    if os.geteuid() != 0:
        return None
    for home in homes:
        if home.is_dir() and (owner := home.stat().st_uid) != 0:
            return _account_of(owner)
    known = {entry.pw_name: entry for entry in pwd.getpwall()}
    for name in _ACCOUNTS_FOR_ROOT:
        if name in known:
            return Account(name, known[name].pw_uid, known[name].pw_gid)
    message = "Postgres refuses root and this machine has no account postgres or nobody; add one"
    raise LocalDatabaseError(message)


def run_as(
    account: Account | None, command: Sequence[str | Path], *, cwd: Path = Path("/")
) -> subprocess.CompletedProcess[str]:
    """Run a command to its end as the account (None: our own); return its output."""
    return subprocess.run(  # noqa: S603 - commands of db.local* only
        command,
        cwd=cwd,
        env=server_environment(),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
        user=account.uid if account else None,
        group=account.gid if account else None,
        extra_groups=[] if account else None,
    )


def server_environment() -> Mapping[str, str]:
    """Return the whole environment of server programs.

    Nothing is inherited: PGDATA, PGOPTIONS, LD_PRELOAD or LC_* of the caller would change what the
    server is.
    """
    return {"PATH": os.defpath, "LC_ALL": "C"}


def can_enter(account: Account | None, folder: Path) -> bool:
    """Tell whether the account can reach and enter this folder."""
    if account is None:
        return os.access(folder, os.X_OK)
    return run_as(account, ["/bin/sh", "-c", 'cd -- "$0"', folder]).returncode == 0


def give_to(account: Account | None, path: Path) -> None:
    """Make the account the owner of one file or folder; nothing to do when None."""
    if account is not None:
        os.chown(path, account.uid, account.gid, follow_symlinks=False)


def _account_of(uid: int) -> Account:
    try:
        entry = pwd.getpwuid(uid)
    except KeyError:
        message = f"the database's files belong to uid {uid}, which has no account any more"
        raise LocalDatabaseError(message) from None
    return Account(entry.pw_name, uid, entry.pw_gid)
