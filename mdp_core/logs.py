"""Log lines: an event in a few words, and fields beside it (`extra`).

As JSON for machines, as text for people. Fields are of a fixed few names: request_id, exchange,
series, window, rows, ms, and what an event alone needs. No secret is ever a field or part of an
event, and there is never a line per candle.
"""

import logging
import time
from collections.abc import Generator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from pythonjsonlogger.core import RESERVED_ATTRS
from pythonjsonlogger.orjson import OrjsonFormatter
from typing_extensions import override

from mdp_core.errors import MdpError

# Libraries that tell more than an operator wants to know.
_QUIET = ("httpx", "httpcore", "apscheduler", "alembic")
_STANDARD_FIELDS = {*RESERVED_ATTRS, "taskName", "color_message"}

_fields: ContextVar[dict[str, Any] | None] = ContextVar("mdp_log_fields", default=None)


def log_config(level: str, log_format: str, *, is_terminal: bool) -> dict[str, Any]:
    """Describe the logging of a process, as `logging.config.dictConfig` takes it.

    Args:
        level: The least severe level that is written.
        log_format: `text`, `json` or `auto`.
        is_terminal: Whether a person watches: decides where the format is "auto".
    """
    as_text = log_format == "text" or (log_format == "auto" and is_terminal)
    to_stderr = {
        "class": "logging.StreamHandler",
        "formatter": "text" if as_text else "json",
        "filters": ["request"],
    }
    return {
        "version": 1,
        "disable_existing_loggers": False,
        "filters": {"request": {"()": _OfRequest}, "unknown": {"()": _Unknown}},
        "formatters": {"text": {"()": _TextFormatter}, "json": {"()": _json_formatter}},
        "handlers": {"stderr": to_stderr},
        "loggers": {
            **{name: {"level": "WARNING"} for name in _QUIET},
            "uvicorn.error": {"filters": ["unknown"]},
        },
        "root": {"level": level, "handlers": ["stderr"]},
    }


@contextmanager
def log_fields(**fields: object) -> Generator[dict[str, Any]]:
    """Collect the fields of `note` while the context lasts; lines have `request_id`."""
    token = _fields.set(dict(fields))
    try:
        yield _fields.get() or {}
    finally:
        _fields.reset(token)


def note(**fields: object) -> None:
    """Add fields to the one line about the request that is being served, if one is."""
    collected = _fields.get()
    if collected is not None:
        collected.update(fields)


class _OfRequest(logging.Filter):
    """Gives every line the id of the request that it belongs to."""

    @override
    def filter(self, record: logging.LogRecord) -> bool:
        collected = _fields.get()
        if collected and "request_id" in collected and not hasattr(record, "request_id"):
            record.request_id = collected["request_id"]
        return True


class _Unknown(logging.Filter):
    """Drops what the server says of an answer that we broke off: the API has told why."""

    @override
    def filter(self, record: logging.LogRecord) -> bool:
        error = record.exc_info[1] if record.exc_info else None
        return error is None or not isinstance(error.__cause__, MdpError)


class _TextFormatter(logging.Formatter):
    """Time (UTC), level, event and fields on a line; a traceback is indented.

    What requests and exchanges say can't begin a line: control characters are escaped.
    """

    converter = time.gmtime

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)-7s %(message)s", "%H:%M:%S")

    @override
    def formatMessage(self, record: logging.LogRecord) -> str:
        fields = " ".join(f"{name}={value}" for name, value in _extra(record).items())
        return _on_a_line(f"{super().formatMessage(record)}  {fields}".rstrip())

    @override
    def formatException(self, ei: Any) -> str:
        lines = super().formatException(ei).splitlines()
        return "\n".join(f"    {_on_a_line(line)}" for line in lines)


def _json_formatter() -> logging.Formatter:
    return OrjsonFormatter(
        ["levelname", "name", "message"],
        rename_fields={"levelname": "level", "name": "logger", "message": "event"},
        reserved_attrs=sorted(_STANDARD_FIELDS),
        timestamp="time",
    )


def _on_a_line(text: str) -> str:
    if text.isprintable():
        return text
    return "".join(
        character if character.isprintable() else character.encode("unicode_escape").decode()
        for character in text
    )


def _extra(record: logging.LogRecord) -> dict[str, Any]:
    return {name: it for name, it in vars(record).items() if name not in _STANDARD_FIELDS}
