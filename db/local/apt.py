"""TimescaleDB from Debian's packages, unpacked into a folder, not installed.

Debian builds Postgres with TimescaleDB, signed, on mirrors that every Debian machine already
trusts; no other registry has a ready build. apt runs isolated: it sees its own state, its own cache
and an empty package status, so it needs no privileges and cannot change the machine. The mirror and
its keyring are those of the machine's own apt sources.
"""

import os
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from rich.console import Console
from rich.progress import Progress

from db.local.errors import LocalDatabaseError

SUITE = "trixie"
MAJOR = 17
# The environment variable naming an apt sources file to use as it is.
SOURCES_VARIABLE = "MDP_APT_SOURCES"

_PACKAGES = (f"postgresql-{MAJOR}-timescaledb", f"postgresql-client-{MAJOR}")
_BIN = Path("usr/lib/postgresql", str(MAJOR), "bin")
_MACHINE_SOURCES = Path("/etc/apt")
_OS_RELEASE = Path("/etc/os-release")
# Only for just-in-time compilation, which is off, and for the PL/Perl language: a third of all.
_NOT_NEEDED = ("libllvm", "libz3", "libperl", "perl")
_UNPACKED = ("lib", "postgresql")
_ROLLING_SUITES = {"oldstable", "stable", "testing", "unstable", "sid", SUITE}
_REWRITTEN_FIELDS = {"types", "uris", "suites", "components", "enabled", "architectures", "arch"}


def unpack_timescaledb(folder: Path, final: Path) -> None:
    """Build a server in `folder` that runs once the folder is renamed to `final`.

    Args:
        folder: Exists, empty.
        final: The path the programs look for their libraries under; absolute.

    Raises:
        LocalDatabaseError: This machine cannot do it; the message says why.
    """
    for tool in ("apt-get", "dpkg-deb"):
        if shutil.which(tool) is None:
            message = f"{tool} is not on this machine's PATH (TimescaleDB comes from Debian)"
            raise LocalDatabaseError(message)
    patchelf = _find_patchelf()
    work = folder / "apt"
    what = "downloading TimescaleDB from Debian, once (about 93 MB)"
    for package in download(work, _PACKAGES, what):
        if package.name.startswith(_UNPACKED) and not package.name.startswith(_NOT_NEEDED):
            unpack(package, folder)
    shutil.rmtree(work)
    _relocate(patchelf, folder, final)


def bin_dir(root: Path) -> Path:
    """Return the folder of the server's and client's programs in an unpacked tree."""
    return root / _BIN


def unpack(package: Path, folder: Path) -> None:
    """Unpack a package's files into a folder, without installing it."""
    _run(["dpkg-deb", "-x", package, folder])


def mirror() -> str:
    """Return the address of the Debian mirror that packages come from.

    Raises:
        LocalDatabaseError: The machine's apt sources name none.
    """
    return next(parse_deb822(_sources()))["uris"].split()[0]


def _find_patchelf() -> Path:
    scripts = Path(sysconfig.get_path("scripts"))
    for candidate in (scripts, Path(sys.executable).parent):
        if (candidate / "patchelf").exists():
            return candidate / "patchelf"
    if found := shutil.which("patchelf"):
        return Path(found)
    message = "patchelf is missing: install the project's dependencies (`make setup`)"
    raise LocalDatabaseError(message)


def download(work: Path, packages: Sequence[str], what: str, *, suite: str = SUITE) -> list[Path]:
    """Download packages of one Debian suite and all their dependencies, libc too.

    Args:
        work: A folder for apt's own state and the packages; made if need be.
        packages: Their names.
        what: Names the step, for the user who waits.
        suite: Whose packages; a sources file that was given is used as it is.

    Raises:
        LocalDatabaseError: apt can't do it; the message says why.
    """
    for part in ("state/lists/partial", "cache/archives/partial"):
        (work / part).mkdir(parents=True)
    (work / "state/status").touch()
    (work / "debian.sources").write_text(_sources(suite), encoding="utf-8")
    apt = ["apt-get", "--quiet", "--yes", *_isolation(work)]
    # Hooks of the machine's own configuration may fail here, and an index that was not asked for
    # may be missing: what counts is whether the packages come.
    update = _apt([*apt, "update"], "reading Debian's package index")
    install = _apt([*apt, "install", "--no-install-recommends", "--download-only", *packages], what)
    if install.returncode != 0:
        # The index says first what the network or a key lacks; it does so as a warning.
        lines = (update.stdout + install.stdout).splitlines()
        complaints = [line for line in lines if line.startswith(("W: Failed", "W: GPG", "E:"))]
        message = f"apt could not download {packages[0]}: {' '.join(complaints[:3]) or 'see apt'}"
        raise LocalDatabaseError(message)
    return sorted((work / "cache/archives").glob("*.deb"))


def _isolation(work: Path) -> Iterator[str]:
    options: Mapping[str, str | Path] = {
        "Dir::State": work / "state",
        "Dir::State::status": work / "state/status",
        "Dir::Cache": work / "cache",
        "Dir::Etc::sourcelist": work / "debian.sources",
        "Dir::Etc::sourceparts": "/dev/null",
        "Dir::Etc::preferences": "/dev/null",
        "Dir::Etc::preferencesparts": "/dev/null",
        # As root apt downloads as the account _apt, which may not enter this folder; signatures
        # are checked all the same.
        "APT::Sandbox::User": "root",
        "APT::Default-Release": "",
        "Acquire::Languages": "none",
        "Acquire::Retries": "2",
        "Acquire::http::Timeout": "20",
        "APT::Status-Fd": "1",
    }
    for name, value in options.items():
        yield from ("-o", f"{name}={value}")


def _apt(command: list[str], what: str) -> subprocess.CompletedProcess[str]:
    """Run apt to its end, showing how far its downloads are."""
    console = Console(stderr=True)
    if not console.is_terminal:
        console.print(f"local database: {what}", highlight=False, soft_wrap=True)
    lines: list[str] = []
    environment = {**os.environ, "LC_ALL": "C", "DEBIAN_FRONTEND": "noninteractive"}
    with (
        Progress(console=console, disable=not console.is_terminal, transient=True) as progress,
        subprocess.Popen(  # noqa: S603 - apt-get, with options made here
            command,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        ) as process,
    ):
        task = progress.add_task(what, total=100)
        for line in process.stdout or ():
            kind, *fields = line.split(":")
            if kind == "dlstatus" and len(fields) > 1:
                progress.update(task, completed=float(fields[1]))
            else:
                lines.append(line)
        return subprocess.CompletedProcess(command, process.wait(), "".join(lines))


def _run(command: list[str | Path]) -> None:
    done = subprocess.run(  # noqa: S603 - dpkg-deb and patchelf, with arguments made here
        command, capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        message = f"{command[0]} failed on {command[-1]}: {done.stderr.strip()}"
        raise LocalDatabaseError(message)


def _relocate(patchelf: Path, folder: Path, final: Path) -> None:
    """Point every program at the unpacked libc and libraries instead of the machine's.

    RPATH rather than RUNPATH: it also holds for the libraries' own libraries and for what the
    server loads later, and it wins over LD_LIBRARY_PATH.
    """
    loaders = sorted(folder.glob("usr/lib/*/ld-linux*.so.*"))
    if not loaders:
        message = f"Debian's {SUITE} has no dynamic loader for this machine"
        raise LocalDatabaseError(message)
    loader = final / loaders[0].relative_to(folder)
    rpath = f"{loader.parent}:{final / _BIN.parent / 'lib'}"
    for program in sorted((folder / _BIN).iterdir()):
        if program.is_file() and program.read_bytes()[:4] == b"\x7fELF":
            _run([patchelf, "--set-interpreter", loader, program])
            _run([patchelf, "--force-rpath", "--set-rpath", rpath, program])


def _sources(suite: str = SUITE) -> str:
    """Return the sources file apt is to use."""
    if override := os.environ.get(SOURCES_VARIABLE):
        return Path(override).read_text(encoding="utf-8")
    stanzas = [for_suite(stanza, suite) for stanza in _machine_stanzas() if is_debian(stanza)]
    if not stanzas:
        message = (
            "this machine's apt sources name no Debian mirror; "
            f"name a sources file of Debian {suite} in {SOURCES_VARIABLE}"
        )
        raise LocalDatabaseError(message)
    return "\n".join(stanzas)


def _machine_stanzas() -> Iterator[dict[str, str]]:
    folder = _MACHINE_SOURCES / "sources.list.d"
    for path in sorted(folder.glob("*.sources")):
        yield from parse_deb822(path.read_text(encoding="utf-8", errors="replace"))
    for path in [_MACHINE_SOURCES / "sources.list", *sorted(folder.glob("*.list"))]:
        if path.exists():
            yield from parse_one_line(path.read_text(encoding="utf-8", errors="replace"))


def parse_deb822(text: str) -> Iterator[dict[str, str]]:
    """Yield the stanzas of a `.sources` file, by lower-case field names."""
    lines = [line.rstrip() for line in text.splitlines() if not line.startswith("#")]
    for paragraph in "\n".join(lines).split("\n\n"):
        fields: dict[str, str] = {}
        name = ""
        for line in paragraph.splitlines():
            if line[:1].isspace() and name:
                fields[name] += f"\n{line}"  # a continuation: an inline key has many
            elif ":" in line:
                name, _, value = line.partition(":")
                name = name.strip().lower()
                fields[name] = value.strip()
        if fields:
            yield fields


def parse_one_line(text: str) -> Iterator[dict[str, str]]:
    """Yield the stanzas of a `sources.list` file."""
    for line in text.splitlines():
        kind, _, rest = line.split("#")[0].strip().partition(" ")
        if kind != "deb":
            continue
        options, _, rest = rest.strip()[1:].partition("]") if "[" in rest else ("", "", rest)
        uri, suite, *components = [*rest.split(), "", ""]
        fields = dict(option.split("=", 1) for option in options.split() if "=" in option)
        yield {
            **{name.lower(): value for name, value in fields.items()},
            "types": "deb",
            "uris": uri,
            "suites": suite,
            "components": " ".join(components),
        }


def is_debian(stanza: Mapping[str, str]) -> bool:
    """Return whether this source is Debian's main archive, by its suites' names."""
    suites = _ROLLING_SUITES | {_codename()}
    return (
        "deb" in stanza.get("types", "").split()
        and "main" in stanza.get("components", "").split()
        and bool(suites & set(stanza.get("suites", "").split()))
        and stanza.get("enabled", "yes") != "no"
        and not stanza.get("uris", "").startswith("cdrom:")
    )


def for_suite(stanza: Mapping[str, str], suite: str = SUITE) -> str:
    """Return a stanza as text, for one suite and the main component only."""
    kept = {name: value for name, value in stanza.items() if name not in _REWRITTEN_FIELDS}
    fields = {
        "types": "deb",
        "uris": stanza["uris"],
        "suites": suite,
        "components": "main",
        **kept,
    }
    return "".join(f"{name.title()}: {value}\n" for name, value in fields.items())


def _codename() -> str:
    """Return the machine's Debian release, or an empty text on anything else."""
    if not _OS_RELEASE.exists():
        return ""
    lines = _OS_RELEASE.read_text(encoding="utf-8").splitlines()
    facts = dict(line.split("=", 1) for line in lines if "=" in line)
    is_debian = facts.get("ID", "").strip('"') == "debian"
    return facts.get("VERSION_CODENAME", "").strip('"') if is_debian else ""
