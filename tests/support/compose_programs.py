"""Compose programs: the machine's, and those of Debian's packages, unpacked."""

import os
import platform
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

import pytest

from db.local import apt as local_apt
from db.local import programs as local_programs

# Debian 12's is written in Python and of the years before the specification; Debian 13's is the
# plugin of `docker compose`, which runs by itself too.
OLD, NEW = "bookworm", "trixie"
OF_THE_MACHINE = "this machine"


def offered() -> Sequence[str]:
    """Say whose programs there are."""
    return [*([OF_THE_MACHINE] if _of_the_machine() else []), NEW, OLD]


def find_compose(whose: str) -> Sequence[str]:
    """Give the command of a compose program, or skip where it can't be had."""
    if whose == OF_THE_MACHINE:
        return _of_the_machine()
    if shutil.which("apt-get") is None:
        pytest.skip("no apt to get a compose program with")
    if whose == NEW:
        return [str(next(_unpacked(NEW).glob("usr/libexec/**/docker-compose")))]
    if local_apt.SOURCES_VARIABLE in os.environ:
        pytest.skip(f"the sources that were given may not be those of Debian {OLD}")
    return _old(_unpacked(OLD))


def _of_the_machine() -> Sequence[str]:
    for command in (["docker", "compose"], ["docker-compose"]):
        if shutil.which(command[0]) is None:
            continue
        asked = subprocess.run([*command, "version"], capture_output=True, check=False)  # noqa: S603 - a compose program, if it is one
        if asked.returncode == 0:
            return command
    return []


def _old(root: Path) -> Sequence[str]:
    """Run a Python of its own on its own libraries, whatever the machine has."""
    (loader,) = root.glob("lib/*/ld-linux*.so.*")
    libraries = f"{loader.parent}:{root / 'usr' / loader.parent.relative_to(root)}"
    (python,) = root.glob("usr/bin/python3.[0-9]*")
    return [
        "env",
        f"PYTHONHOME={root / 'usr'}",
        f"PYTHONPATH={root / 'usr/lib/python3/dist-packages'}",
        "PYTHONDONTWRITEBYTECODE=1",
        *(str(loader), "--library-path", libraries),
        *(str(python), "-m", "compose"),
    ]


def _unpacked(suite: str) -> Path:
    """Give the root of a suite's program and all that it depends on; made once."""
    root = local_programs.default_cache() / f"compose-{suite}-{platform.machine()}"
    if root.exists():
        return root
    root.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=root.parent) as name:
        work, draft = Path(name), Path(name) / "root"
        what = f"downloading the compose program of Debian {suite}"
        for package in local_apt.download(work / "apt", ["docker-compose"], what, suite=suite):
            if suite == OLD or package.name.startswith("docker-compose_"):
                local_apt.unpack(package, draft)
        draft.rename(root)
    return root
