"""Other stores of candles, where they can be had on this machine."""

import subprocess
import tempfile
from pathlib import Path

_ARCTIC = Path(".venv-bench/bin/python")


class PeerMissing(Exception):
    """It can't be measured here; says why."""


def arctic_seconds(parquet: memoryview) -> tuple[float, str]:
    """Store and read these candles with ArcticDB; return its median and version.

    Raises:
        PeerMissing: It isn't installed, or does not run.
    """
    if not _ARCTIC.exists():
        message = f"there is no {_ARCTIC}"
        raise PeerMissing(message)
    with tempfile.NamedTemporaryFile(suffix=".parquet") as file:
        file.write(parquet)
        file.flush()
        command = [str(_ARCTIC), "scripts/bench/arctic.py", file.name]
        ended = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603 - our own program
    if ended.returncode:
        raise PeerMissing((ended.stderr.splitlines() or ["it ended without a word"])[-1])
    seconds, version = ended.stdout.split()
    return float(seconds), version
