"""Tries the image: builds it, and has it serve a request as compose runs it.

With an engine where one answers; else in a root file system that is made here (`image_rootfs`).
The database and the exchanges are those of a demo; the image's containers join it.
"""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

import httpx

from db.local.errors import LocalDatabaseError
from scripts.demo.errors import StackError
from scripts.demo.ports import free_port
from scripts.demo.stack import SandboxRequest, Stack, open_stack
from scripts.dev import image_rootfs
from scripts.dev.image_rootfs import PROJECT, TrialError

_WORK = PROJECT / "build" / "image-trial"
_TAG, _STAGE_TAG = "mdp:trial", "mdp:trial-build"
_START_SECONDS = 60.0
_STOP_SECONDS = 30.0
_CANDLES = 1000
# Once all is closed, uvicorn ends by the signal that it was sent; an engine says 128 + 15.
_TERMINATED = (-signal.SIGTERM, 128 + signal.SIGTERM)

# What compose promises of a container, as its own user sees it.
_INSIDE = """
id -un
for folder in / /opt/mdp /usr/local /var/tmp; do
    if touch "$folder/trial" 2>/dev/null; then echo "can write in $folder"; fi
done
for tool in pip gcc cc make git; do
    if command -v "$tool" >/dev/null; then echo "has $tool"; fi
done
if python -c "import pip" 2>/dev/null; then echo "has pip"; fi
touch /tmp/trial || echo "cannot write in /tmp"
"""


class Image(Protocol):
    """Something that can be run like an image."""

    kind: str

    def run(
        self, arguments: Sequence[str], environment: Mapping[str, str], *, entry: bool = True
    ) -> list[str]:
        """Return the command line that runs it read-only; by default its own command."""
        ...


class EngineImage:
    """The image as an engine builds and runs it."""

    kind = "an engine"

    def run(
        self, arguments: Sequence[str], environment: Mapping[str, str], *, entry: bool = True
    ) -> list[str]:
        """As `Image`."""
        # With init, as compose: a server that is process 1 would not end by its own SIGTERM.
        options = ["--rm", "--init", "--read-only", "--tmpfs", "/tmp", "--network", "host"]  # noqa: S108
        options += ["--cap-drop", "ALL", "--security-opt", "no-new-privileges:true"]
        variables = [f"--env={name}={value}" for name, value in environment.items()]
        command = [_TAG, *arguments]
        if not entry:
            command = ["--entrypoint", arguments[0], _TAG, *arguments[1:]]
        return ["docker", "run", *options, *variables, *command]


def main() -> None:
    """Hold the trial; the exit code says whether all went well."""
    try:
        print("building the image", flush=True)  # noqa: T201 - the point of it
        with _built() as image, tempfile.TemporaryDirectory(prefix="mdp-trial-") as name:
            print(f"built with {image.kind}", flush=True)  # noqa: T201 - the point of it
            folder = Path(name)
            folder.chmod(0o755)  # the database of root runs as another user
            with open_stack(folder, free_port(), SandboxRequest()) as (stack, _):
                _try(image, stack)
    except (TrialError, StackError, LocalDatabaseError) as error:
        sys.exit(f"image trial: {error}")


@contextmanager
def _built() -> Generator[Image]:
    """Build the image; an engine keeps nothing of it afterwards."""
    if not _has_engine():
        yield image_rootfs.build(_WORK)
        return
    # The stage too has a name, by which it can be removed.
    tags = {_STAGE_TAG: ["--target", "build"], _TAG: []}
    try:
        for tag, options in tags.items():
            _succeed(["docker", "build", "--tag", tag, *options, str(PROJECT)])
        yield EngineImage()
    finally:
        _succeed(["docker", "image", "rm", "--force", *tags])


def _try(image: Image, stack: Stack) -> None:
    output = _succeed(image.run(["/bin/sh", "-c", _INSIDE], {}, entry=False)).split("\n")
    if output != ["mdp", ""]:
        message = f"inside it should be user mdp, read-only, without tools: {output}"
        raise TrialError(message)
    print("inside: user mdp, nothing can be written but /tmp, no build tools")  # noqa: T201 - the point of it
    for arguments in (["db", "upgrade"], ["check"], ["alive"]):
        _succeed(image.run(arguments, stack.env))
        print(f"mdp {' '.join(arguments)}: exit code 0")  # noqa: T201 - the point of it
    with _serving(image, stack) as url:
        answer = _ask(
            f"{url}/candles/binance/perp/SOL-USDT/1h",
            params={"limit": _CANDLES},
            headers={"Authorization": f"Bearer {stack.token}"},
        )
        if not answer.is_success or answer.json()["count"] != _CANDLES:
            message = f"the request was answered {answer.status_code}: {answer.text[:300]}"
            raise TrialError(message)
    cache = answer.headers["X-Cache"]
    print(f"GET /candles: 200, {_CANDLES} candles, X-Cache: {cache}")  # noqa: T201 - the point of it


@contextmanager
def _serving(image: Image, stack: Stack) -> Generator[str]:
    """Run the API from the image on a free port; on leaving it must end by itself."""
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    command = image.run(["api", "--port", str(port)], stack.env)
    with subprocess.Popen(command) as process:  # noqa: S603 - the image's own command
        try:
            _wait_for(f"{url}/health", process)
            yield url
            process.send_signal(signal.SIGTERM)
            if (code := process.wait(_STOP_SECONDS)) not in _TERMINATED:
                message = f"after SIGTERM the service ended with exit code {code}"
                raise TrialError(message)
            print(f"SIGTERM: ended with {code}")  # noqa: T201 - the point of it
        finally:
            process.kill()


def _wait_for(url: str, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + _START_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        try:
            if _ask(url).is_success:
                return
        except httpx.HTTPError:
            time.sleep(0.2)
    message = f"{url} did not answer"
    raise TrialError(message)


def _ask(url: str, **options: Any) -> httpx.Response:  # noqa: ANN401 - those of httpx
    return httpx.get(url, timeout=60, trust_env=False, **options)


def _has_engine() -> bool:
    """Tell whether an engine answers, not only its client."""
    if shutil.which("docker") is None:
        return False
    return subprocess.run(["docker", "info"], capture_output=True, check=False).returncode == 0  # noqa: S607


def _succeed(command: Sequence[str]) -> str:
    done = subprocess.run(  # noqa: S603 - the image's own commands
        command, env=os.environ, capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        message = f"{command[-1]} ended with {done.returncode}: {done.stdout}{done.stderr}"
        raise TrialError(message)
    return done.stdout


if __name__ == "__main__":
    main()
