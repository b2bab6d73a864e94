"""The image without an engine: the Dockerfile's steps in a root file system.

The base is Debian's minimal system of the release that the base image is made of, with the CPython
of the machine in /usr/local, where the base image has its own. Each stage is a copy of it; each
step runs in a private mount namespace, in a chroot, as the user that the Dockerfile names. What
pip installs is downloaded beforehand, outside: the steps themselves need no network.
"""

import os
import shlex
import shutil
import string
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import orjson
from dockerfile_parse import DockerfileParser

from db.local import apt as local_apt

PROJECT = Path(__file__).parents[2]

# What CPython's own extension modules and the base image's tools need.
_LIBRARIES = (
    "ca-certificates,libbz2-1.0,libffi8,liblzma5,libncursesw6,libreadline8t64,libsqlite3-0,"
    "libssl3t64,libuuid1,netbase,tzdata,zlib1g"
)
_DEBIAN_PYTHON = "python3,python3-venv,python3-pip"
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_WHEELS = Path("/mnt")  # an empty folder of every Debian system

_OF_WHAT_RUNS = {"USER", "ENTRYPOINT", "CMD"}
_WITHOUT_EFFECT = {"EXPOSE", "STOPSIGNAL"}

# "ro" makes the root what --read-only makes it; "-" is no folder of wheels.
_ENTER = f"""
set -e
root=$1 mode=$2 user=$3 wheels=$4; shift 4
mount --make-rprivate /
mount --bind "$root" "$root"
mount --rbind /dev "$root/dev"
mount -t proc proc "$root/proc"
[ "$wheels" = - ] || mount --bind "$wheels" "$root{_WHEELS}"
if [ "$mode" = ro ]; then
    mount -o remount,bind,ro "$root"
    mount -t tmpfs tmpfs "$root/tmp"
fi
exec setpriv --no-new-privs chroot --userspec="$user" "$root" /usr/bin/env -i "$@"
"""


class TrialError(Exception):
    """The trial can't be held here, or a step of it failed."""


@dataclass(slots=True)
class Stage:
    """A root file system, and how the Dockerfile has set it up so far."""

    root: Path
    environment: dict[str, str] = field(default_factory=lambda: {"PATH": _PATH})
    folder: str = "/"
    user: str = "root"
    entrypoint: list[str] = field(default_factory=list)
    command: list[str] = field(default_factory=list)

    def enter(
        self, command: Sequence[str], extra: Mapping[str, str], mode: str, wheels: Path | None
    ) -> list[str]:
        """Give the command line that runs a command inside."""
        variables = [f"{name}={value}" for name, value in {**self.environment, **extra}.items()]
        where = [str(self.root), mode, f"{self.user}:", str(wheels or "-")]
        inside = ["-C", self.folder, *variables, *command]
        return ["unshare", "--mount", "sh", "-c", _ENTER, "sh", *where, *inside]


class RootfsImage:
    """The last stage of the Dockerfile, built without an engine."""

    def __init__(self, stage: Stage, python: str) -> None:
        self._stage = stage
        self.kind = f"a root file system with {python}"

    def run(
        self, arguments: Sequence[str], environment: Mapping[str, str], *, entry: bool = True
    ) -> list[str]:
        """Return the command line that runs it read-only; by default its own command."""
        stage = self._stage
        command = [*(stage.entrypoint if entry else []), *(arguments or stage.command)]
        return stage.enter(command, environment, "ro", None)


def build(work: Path) -> RootfsImage:
    """Execute every step of the Dockerfile.

    Args:
        work: Keeps the base for the next time; the rest is made anew.

    Raises:
        TrialError: A step failed, or the machine lacks what this needs.
    """
    if os.geteuid() != 0:
        message = "without a container engine this needs root: for chroot and its mounts"
        raise TrialError(message)
    work.mkdir(parents=True, exist_ok=True)
    python = _machine_python()
    base = _base(work, python)
    wheels = _wheels(work, python, base)
    builder = _Builder(work, base, wheels)
    parser = DockerfileParser(path=str(PROJECT / "Dockerfile"), cache_content=True)
    for step in parser.structure:
        if step["instruction"] != "COMMENT":
            builder.execute(step["instruction"], step["value"])
    return RootfsImage(builder.stage, _version(builder.stage))


class _Builder:
    """Executes one step after the other."""

    def __init__(self, work: Path, base: Path, wheels: Path) -> None:
        self._work = work
        self._base = base
        self._wheels = wheels
        self._stages: dict[str, Stage] = {}
        self.stage = Stage(base)

    def execute(self, instruction: str, value: str) -> None:
        """Do what one line of the Dockerfile says."""
        print(f"  {self.stage.user:5} {instruction} {value}", flush=True)  # noqa: T201 - the point of it
        steps = {
            "FROM": self._begin,
            "ENV": self._set,
            "WORKDIR": self._enter,
            "COPY": self._copy,
            "RUN": self._run,
        }
        if instruction in steps:
            steps[instruction](value)
        elif instruction in _OF_WHAT_RUNS:
            self._describe(instruction, value)
        elif instruction not in _WITHOUT_EFFECT:
            message = f"the trial doesn't know the step {instruction}"
            raise TrialError(message)

    def _describe(self, instruction: str, value: str) -> None:
        match instruction:
            case "USER":
                self.stage.user = value
            case "ENTRYPOINT":
                self.stage.entrypoint = orjson.loads(value)
            case _:
                self.stage.command = orjson.loads(value)

    def _enter(self, value: str) -> None:
        self.stage.folder = value
        (self.stage.root / value.lstrip("/")).mkdir(parents=True, exist_ok=True)

    def _begin(self, value: str) -> None:
        name = value.split(" AS ")[1] if " AS " in value else "final"
        root = self._work / name
        shutil.rmtree(root, ignore_errors=True)
        _call(["cp", "--archive", "--reflink=auto", self._base, root])
        self.stage = self._stages[name] = Stage(root)

    def _set(self, value: str) -> None:
        for assignment in shlex.split(value):
            name, _, text = assignment.partition("=")
            known = self.stage.environment
            known[name] = string.Template(text).safe_substitute(known)

    def _copy(self, value: str) -> None:
        words = value.split()
        origin, ignored = PROJECT, shutil.ignore_patterns("__pycache__")  # as .dockerignore says
        if words[0].startswith("--from="):
            origin = self._stages[words[0].removeprefix("--from=")].root
            words, ignored = words[1:], shutil.ignore_patterns()
        *sources, destination = words
        target = self.stage.root / Path(self.stage.folder, destination).relative_to("/")
        for source in [origin / source.lstrip("/") for source in sources]:
            if source.is_dir():
                shutil.copytree(source, target, symlinks=True, ignore=ignored, dirs_exist_ok=True)
            else:
                shutil.copy2(source, target)

    def _run(self, command: str) -> None:
        pip = {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(_WHEELS)}
        _call(self.stage.enter(["/bin/sh", "-c", command], pip, "rw", self._wheels))


# --- the base -----------------------------------------------------------------------------------


def _machine_python() -> Path | None:
    """Find the folder of a CPython 3.12 of the machine, or None."""
    candidates = [Path(sys.base_prefix), *sorted(Path.home().glob(".pyenv/versions/3.12*"))]
    if found := shutil.which("python3.12"):
        candidates.insert(0, Path(found).resolve().parents[1])
    return next((path for path in candidates if (path / "lib/python3.12/os.py").exists()), None)


def _base(work: Path, python: Path | None) -> Path:
    """Give a root file system like the base image's; made once."""
    base = work / "base"
    if base.exists():
        return base
    draft = work / "base.draft"
    shutil.rmtree(draft, ignore_errors=True)
    include = _LIBRARIES if python else f"{_LIBRARIES},{_DEBIAN_PYTHON}"
    print(f"  making Debian {local_apt.SUITE}, once: one or two minutes", flush=True)  # noqa: T201 - the point of it
    with tempfile.TemporaryDirectory(dir=work) as folder:
        script, environment = _debootstrap(Path(folder))
        options = ["--variant=minbase", f"--include={include}"]
        where = [local_apt.SUITE, draft, local_apt.mirror()]
        _call([script, *options, *where], environment)
    if python:
        _add_python(python, draft)
    else:
        for name in ("python", "python3"):
            (draft / "usr/local/bin" / name).symlink_to("/usr/bin/python3")
    draft.rename(base)
    return base


def _debootstrap(folder: Path) -> tuple[Path, Mapping[str, str]]:
    """Give the machine's debootstrap, or Debian's package of it, unpacked."""
    if found := shutil.which("debootstrap"):
        return Path(found), {}
    packages = local_apt.download(folder / "apt", ["debootstrap"], "downloading debootstrap")
    package = next(path for path in packages if path.name.startswith("debootstrap_"))
    local_apt.unpack(package, folder)
    environment = {"DEBOOTSTRAP_DIR": str(folder / "usr/share/debootstrap")}
    return folder / "usr/sbin/debootstrap", environment


def _add_python(python: Path, root: Path) -> None:
    """Install a CPython with pip where the base image has its own."""
    target = root / "usr/local"
    library = Path("lib/python3.12")
    ignored = shutil.ignore_patterns("__pycache__", "test", "config-*", "site-packages")
    shutil.copytree(python / library, target / library, symlinks=True, ignore=ignored)
    for path in (python / library / "site-packages").glob("pip*"):
        shutil.copytree(path, target / library / "site-packages" / path.name)
    for path in [*python.glob("lib/libpython3*"), *python.glob("bin/python*")]:
        shutil.copy2(path, target / path.relative_to(python), follow_symlinks=False)
    _call(["chroot", root, "/sbin/ldconfig"])


def _wheels(work: Path, python: Path | None, base: Path) -> Path:
    """Download the locked packages, by hash, for the Python of the base."""
    version = "3.12" if python else _version(Stage(base)).split()[-1].rpartition(".")[0]
    folder = work / "wheels"
    shutil.rmtree(folder, ignore_errors=True)
    uv = [sys.executable, "-m", "uv", "--quiet", "pip", "compile", "--no-deps", "--no-annotate"]
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check", "download"]
    for lock in ("requirements.lock", "requirements-build.lock", "requirements-page.lock"):
        # pip takes markers for its own Python's, whatever the version that it is told.
        chosen = work / lock
        chosen.unlink(missing_ok=True)
        exact = ["--generate-hashes", "--python-version", version, "--output-file", chosen]
        _call([*uv, *exact, PROJECT / lock])
        kind = ["--only-binary=:all:", "--python-version", version, "--no-deps"]
        _call([*pip, *kind, "--require-hashes", "--dest", folder, "-r", chosen])
    return folder


def _version(stage: Stage) -> str:
    command = stage.enter(["python", "--version"], {}, "ro", None)
    output = subprocess.run(command, capture_output=True, text=True, check=True).stdout  # noqa: S603 - our own program
    return output.replace("Python", "CPython").strip()


def _call(command: Sequence[str | Path], environment: Mapping[str, str] | None = None) -> None:
    done = subprocess.run(  # noqa: S603 - programs of the machine, with arguments made here
        command,
        env={**os.environ, **(environment or {})},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        message = f"{command[-1]} failed with {done.returncode}:\n{done.stdout[-2000:]}"
        raise TrialError(message)
