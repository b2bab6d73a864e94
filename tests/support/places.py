"""Folders that tests read."""

from pathlib import Path

PROJECT = Path(__file__).parents[2]


SHARED = PROJECT.parent / "shared"


DATA = SHARED / "data"
