"""Parameters of requests to the sandbox's Binance, and the refusals of wrong ones.

Source of codes and texts: the error-code page of developers.binance.com, and measurements.
"""

import re
from collections.abc import Collection, Mapping
from typing import TypeAlias

from scripts.sandbox.exchange import Reply, reply

Params: TypeAlias = Mapping[str, str]

_INTEGER = re.compile(r"[0-9]{1,18}")


class Refused(Exception):
    """A parameter that the exchange answers with 400."""

    def __init__(self, code: int, text: str) -> None:
        """Take the code and the text of the answer."""
        super().__init__(code, text)
        self.reply: Reply = reply({"code": code, "msg": text}, 400)


def mandatory(params: Params, name: str) -> str:
    """Read a parameter that must be there and not empty."""
    value = params.get(name)
    if value is None:
        text = f"Mandatory parameter '{name}' was not sent, was empty/null, or malformed."
        raise Refused(-1102, text)
    if not value:
        raise Refused(-1105, f"Parameter '{name}' was empty.")
    return value


def symbol_of(params: Params, known: Collection[str]) -> str:
    """Read the symbol, which may be written in small letters."""
    symbol = mandatory(params, "symbol").upper()
    if symbol not in known:
        raise Refused(-1121, "Invalid symbol.")
    return symbol


def integer(params: Params, name: str) -> int | None:
    """Read a number of digits; None: the parameter is not there."""
    value = params.get(name)
    if value is None:
        return None
    if not value:
        raise Refused(-1105, f"Parameter '{name}' was empty.")
    if not _INTEGER.fullmatch(value):
        text = f"Illegal characters found in parameter '{name}'; legal range is '^[0-9]{{1,20}}$'."
        raise Refused(-1100, text)
    return int(value)


def limit_of(params: Params, default: int, most: int) -> int:
    """Read `limit`, which lies between one and `most`."""
    limit = integer(params, "limit")
    if limit is None:
        return default
    if not 1 <= limit <= most:
        raise Refused(-1130, "Data sent for parameter 'limit' is not valid.")
    return limit


def bounds_of(params: Params) -> tuple[int | None, int | None]:
    """Read `startTime` and `endTime`, both inclusive."""
    start, end = integer(params, "startTime"), integer(params, "endTime")
    if start is not None and end is not None and start > end:
        raise Refused(-1023, "Start time is greater than end time.")
    return start, end
