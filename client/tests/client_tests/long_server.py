"""A server process of its own that sends millions of candles, made on the way.

`python long_server.py` prints its port; every answer holds at most a million candles.
"""

import socket
import threading
from urllib.parse import parse_qs, urlsplit

import numpy as np
import pyarrow as pa

MINUTE = 60_000
START = 946_684_800_000  # 2000-01-01
_ROWS, _MOST = 20_000, 1_000_000
_SCHEMA = pa.schema(
    [
        pa.field("time", pa.timestamp("ms", "UTC"), nullable=False),
        *(
            pa.field(name, pa.float64(), nullable=False)
            for name in ("open", "high", "low", "close", "volume")
        ),
    ]
)


def encoded(start: int, count: int) -> bytes:
    """Encode candles as one message of a stream."""
    times = np.arange(start, start + count * MINUTE, MINUTE)
    columns = [pa.array(times).cast(_SCHEMA[0].type), *[pa.array(times / MINUTE)] * 5]
    return pa.record_batch(columns, schema=_SCHEMA).serialize().to_pybytes()


def answer(connection: socket.socket) -> None:
    """Answer requests until the client leaves."""
    with connection, connection.makefile("rb") as lines:
        while first := lines.readline():
            while lines.readline().strip():
                pass
            url = urlsplit(first.split()[1].decode())
            query = {name: int(value[0]) for name, value in parse_qs(url.query).items()}
            start, end = query["start"], min(query["end"], query["start"] + _MOST * MINUTE)
            headers = {
                "Content-Type": "application/vnd.apache.arrow.stream",
                "X-Window-Start": start,
                "X-Window-End": end,
                "X-Settled-Until": end,
                "X-Complete": "true",
                "Connection": "close",
            }
            if end < query["end"]:
                following = f"{url.path}?start={end}&end={query['end']}"
                headers["Link"] = f'<{following}>; rel="next"'
            head = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
            connection.sendall(f"HTTP/1.1 200 OK\r\n{head}\r\n".encode())
            send_body(connection, start, end)
            return


def send_body(connection: socket.socket, start: int, end: int) -> None:
    """Send the stream of a window, without a length."""
    connection.sendall(_SCHEMA.serialize().to_pybytes())
    for at in range(start, end, _ROWS * MINUTE):
        connection.sendall(encoded(at, min(_ROWS, (end - at) // MINUTE)))
    connection.sendall(b"\xff\xff\xff\xff\0\0\0\0")
    connection.shutdown(socket.SHUT_WR)


def main() -> None:
    """Serve until the process is ended."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        print(listener.getsockname()[1], flush=True)  # noqa: T201 - read by the test
        while True:
            connection, _ = listener.accept()
            threading.Thread(target=answer, args=(connection,), daemon=True).start()


if __name__ == "__main__":
    main()
