"""Log lines for people: what others say can't begin a line of its own."""

import logging

import pytest

from mdp_core.logs import log_config


@pytest.fixture
def written() -> logging.Formatter:
    """The formatter of lines for people."""
    formatters = log_config("INFO", "text", is_terminal=True)["formatters"]
    return formatters["text"]["()"]()


@pytest.mark.parametrize(
    ("said", "line"),
    [
        ("/candles/x\n12:00:00 ERROR forged", r"/candles/x\n12:00:00 ERROR forged"),
        ("\x1b[2Jgone", r"\x1b[2Jgone"),
        ("a\u2028b\x85c\rd", r"a\u2028b\x85c\rd"),
        ("币安人生-USDT", "币安人生-USDT"),
    ],
)
def test_control_characters_are_escaped(written: logging.Formatter, said: str, line: str) -> None:
    """In the event and in its fields; letters of any script stay."""
    record = logging.makeLogRecord({"msg": "asked %s", "args": (said,), "path": said})

    assert written.format(record).endswith(f"asked {line}  path={line}")


def test_traceback_is_indented(written: logging.Formatter) -> None:
    """So that no message in it looks like another line."""
    error = ValueError("x\n12:00:00 INFO    forged")
    record = logging.makeLogRecord({"msg": "failed", "exc_info": (ValueError, error, None)})
    _, *rest = written.format(record).splitlines()

    assert rest
    assert all(line.startswith("    ") for line in rest)
