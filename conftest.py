"""Keep test files in memory: databases are cloned and dropped by the thousand."""

import os
import shutil
import tempfile
from pathlib import Path

_MEMORY = Path("/dev/shm")  # noqa: S108 - the one file system that Linux has in memory
_ENOUGH_BYTES = 4 * 2**30


def _is_usable() -> bool:
    return os.access(_MEMORY, os.W_OK) and shutil.disk_usage(_MEMORY).free >= _ENOUGH_BYTES


if "TMPDIR" not in os.environ and _is_usable():
    # Processes that a test starts read the variable.
    os.environ["TMPDIR"] = tempfile.tempdir = str(_MEMORY)
