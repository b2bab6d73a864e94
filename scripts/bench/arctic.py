"""Time ArcticDB's local read of candles given as Parquet, in its own Python.

ArcticDB wants another pandas than the tests do, so it has an environment of its own.
"""
# pyright: reportMissingImports=false, reportUnknownMemberType=false, reportUnknownVariableType=false

import statistics
import sys
import tempfile
import time
from importlib.metadata import version

import arcticdb
import pandas as pd

_ROUNDS = 5


def main(path: str) -> None:
    """Write once, read several times, print the median in seconds."""
    frame = pd.read_parquet(path).set_index("time")
    with tempfile.TemporaryDirectory() as folder:
        store = arcticdb.Arctic(f"lmdb://{folder}?map_size=2GB")
        library = store.get_library("candles", create_if_missing=True)
        library.write("candles", frame)
        samples: list[float] = []
        for _ in range(_ROUNDS + 1):
            begun = time.perf_counter()
            _ = library.read("candles").data
            samples.append(time.perf_counter() - begun)
    print(statistics.median(samples[1:]), version("arcticdb"))  # noqa: T201 - read by the bench


if __name__ == "__main__":
    main(sys.argv[1])
