"""A database server that stands still: its processes live, and none answers."""

from collections.abc import Generator
from contextlib import contextmanager, suppress

import psutil
import psycopg


@contextmanager
def frozen_server(url: str) -> Generator[None]:
    """Suspend every process of the server behind a URL (SIGSTOP) inside the context."""
    with psycopg.connect(url) as connection:
        first = psutil.Process(connection.info.backend_pid).parent()
    assert first, "a backend is a child of the server's first process"
    processes = [first, *first.children(recursive=True)]
    try:
        for process in processes:
            with suppress(psutil.NoSuchProcess):
                process.suspend()
        yield
    finally:
        for process in processes:
            with suppress(psutil.NoSuchProcess):
                process.resume()
