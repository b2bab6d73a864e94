"""A pgbouncer in front of a test server: the machine's, or Debian's, unpacked."""

import os
import platform
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Generator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from db.local import apt as local_apt
from db.local import programs as local_programs
from scripts.demo.ports import free_port
from support.http import HOST
from support.waiting import wait_until


@contextmanager
def running_pooler(url: str, mode: str, *settings: str) -> Generator[str]:
    """Run a pooler of two sessions in a mode; yield the URL of the database behind it."""
    program, given, port = _program(), urlsplit(url), free_port()
    with tempfile.TemporaryDirectory(prefix="mdp-test-") as name:
        folder = Path(name)
        folder.chmod(0o755)  # as root it runs as another user
        users = folder / "users"
        users.write_text(f'"{given.username}" "{given.password}"\n')
        lines = [
            "[databases]",
            f"* = host={given.hostname} port={given.port}",
            "[pgbouncer]",
            *(f"listen_addr = {HOST}", f"listen_port = {port}", "unix_socket_dir ="),
            *("auth_type = plain", f"auth_file = {users}"),
            *(f"pool_mode = {mode}", "default_pool_size = 2", *settings),
        ]
        configuration = folder / "pgbouncer.ini"
        configuration.write_text("\n".join(lines) + "\n")
        process = subprocess.Popen(  # noqa: S603 - the program found here
            [*program, str(configuration)],
            user="nobody" if os.geteuid() == 0 else None,
            stderr=subprocess.DEVNULL,
        )
        try:
            wait_until(lambda: _listens(port))
            yield url.replace(f":{given.port}/", f":{port}/")
        finally:
            process.kill()
            process.wait()


def _listens(port: int) -> bool:
    with suppress(OSError), socket.create_connection((HOST, port)):
        return True
    return False


def _program() -> Sequence[str]:
    if found := shutil.which("pgbouncer", path=f"{os.defpath}:/usr/sbin"):
        return [found]
    if shutil.which("apt-get") is None:
        pytest.skip("no pgbouncer, and no apt to get one with")
    root = local_programs.cached_folder(
        local_programs.default_cache(), f"pgbouncer-{platform.machine()}", None, _unpack
    )
    (loader,) = root.glob("usr/lib/*/ld-linux*.so.*")
    return [str(loader), "--library-path", str(loader.parent), str(root / "usr/sbin/pgbouncer")]


def _unpack(folder: Path, _final: Path) -> None:
    for package in local_apt.download(folder / "apt", ["pgbouncer"], "downloading pgbouncer"):
        if package.name.startswith(("lib", "pgbouncer")):
            local_apt.unpack(package, folder)
    shutil.rmtree(folder / "apt")
