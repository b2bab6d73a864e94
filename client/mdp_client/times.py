"""Times: everything that a caller may write, to epoch milliseconds and back."""

import re
from datetime import UTC, date, datetime, timedelta
from typing import TypeAlias

from mdp_client.errors import InvalidParameter

Time: TypeAlias = str | int | date
"""`"2021"`, `"2021-05"`, ISO-8601, `datetime` (`pandas.Timestamp`), `date`, or epoch ms.

Without a zone it is UTC.
"""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MILLISECOND = timedelta(milliseconds=1)
_YEAR = re.compile(r"\d{4}")
_MONTH = re.compile(r"\d{4}-\d{2}")
_DIGITS = re.compile(r"-?\d{5,}")


def read_time(name: str, value: Time) -> int:
    """Read a time; what lies between two milliseconds becomes the later one.

    Returns:
        Epoch milliseconds, UTC.

    Raises:
        InvalidParameter: It is no time.
    """
    if isinstance(value, bool) or not isinstance(value, (str, int, date)):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise _unreadable(name, value)
    if isinstance(value, int):
        return value
    return -((_EPOCH - _moment(name, value)) // _MILLISECOND)


def aware(milliseconds: int) -> datetime:
    """Convert epoch milliseconds to an aware time, UTC."""
    return _EPOCH + timedelta(milliseconds=milliseconds)


def to_ms(time: datetime) -> int:
    """Convert an aware time to epoch milliseconds."""
    return (time - _EPOCH) // _MILLISECOND


def _moment(name: str, value: str | date) -> datetime:
    if isinstance(value, str):
        value = _read_text(name, value.strip())
    if not isinstance(value, datetime):
        value = datetime(value.year, value.month, value.day, tzinfo=UTC)
    return value.replace(tzinfo=UTC) if value.tzinfo is None else value


def _read_text(name: str, text: str) -> datetime:
    if _DIGITS.fullmatch(text):
        return aware(int(text))
    if _YEAR.fullmatch(text):
        text = f"{text}-01-01"
    elif _MONTH.fullmatch(text):
        text = f"{text}-01"
    try:
        return datetime.fromisoformat(text)
    except ValueError as error:
        raise _unreadable(name, text) from error


def _unreadable(name: str, value: object) -> InvalidParameter:
    detail = f"{name}={value!r} is no time: write ISO-8601, a date, a datetime or epoch ms"
    return InvalidParameter(detail=detail)
