"""Ports of this machine's loopback interface."""

import random
import socket
from contextlib import suppress

from scripts.demo.errors import StackError

HOST = "127.0.0.1"
# Linux gives connections their ports from 32768 on (ip_local_port_range).
_PORTS = range(20_000, 32_768)


def check_port(port: int) -> None:
    """Check that a port can be bound.

    Raises:
        StackError: It is in use.
    """
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError as error:
            message = f"port {port} is in use: choose another --port"
            raise StackError(message) from error


def free_port() -> int:
    """Return a free port outside the range that connections are given.

    Raises:
        StackError: There is none.
    """
    for port in random.sample(_PORTS, len(_PORTS)):
        with socket.socket() as probe, suppress(OSError):
            probe.bind((HOST, port))
            return port
    message = f"every port from {_PORTS.start} to {_PORTS.stop - 1} is in use"
    raise StackError(message)
