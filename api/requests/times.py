"""Times in the forms that requests may use."""

import re
from datetime import UTC, datetime, timedelta

from mdp_core.domain.clock import from_ms
from mdp_core.errors import InvalidParameter

_INTEGER = re.compile(r"[+-]?\d+")
# Digits that `datetime` has no room for, and that are not all zero.
_BELOW_MICROSECONDS = re.compile(r"[.,]\d{6}0*[1-9]")
_MICROSECOND = timedelta(microseconds=1)
# An unescaped + in a query arrives as a space.
_LOST_PLUS = re.compile(r"(?<=\d) (?=\d\d:?\d\d$)")

# As milliseconds these are 1973 and 5138; as seconds or microseconds they are times of our days.
_SMALLEST_MS, _LARGEST_MS = 10**11, 10**14
_EARLIEST, _LATEST = datetime(1900, 1, 1, tzinfo=UTC), datetime(2200, 1, 1, tzinfo=UTC)


def parse_time(name: str, text: str) -> datetime:
    """Read ISO-8601 (a date is midnight, no zone means UTC) or epoch milliseconds.

    Args:
        name: The parameter, for the error; as a bound, it is rounded up.
        text: What was written.

    Raises:
        InvalidParameter: It is neither, it looks like seconds or microseconds, or no candle can be
            near it.
    """
    time = _from_integer(name, text) if _INTEGER.fullmatch(text) else _from_iso(name, text)
    if not _EARLIEST <= time <= _LATEST:
        message = f"{name}={text} lies outside the years 1900 to 2200"
        raise InvalidParameter(message)
    return time


def _from_integer(name: str, text: str) -> datetime:
    number = int(text) if len(text) < 25 else _LARGEST_MS  # noqa: PLR2004 - no time is that long
    if number == 0 or _SMALLEST_MS <= number < _LARGEST_MS:
        return from_ms(number)
    unit = "seconds" if number < _SMALLEST_MS else "microseconds or less"
    message = f"{name}={text} looks like {unit}: write epoch milliseconds or ISO-8601 with dashes"
    raise InvalidParameter(message)


def _from_iso(name: str, text: str) -> datetime:
    written = text.upper()
    has_separator = "T" in written or written.count(" ") > 1
    try:
        time = datetime.fromisoformat(_LOST_PLUS.sub("+", written) if has_separator else written)
        time = time.replace(tzinfo=UTC) if time.tzinfo is None else time.astimezone(UTC)
        return time + _MICROSECOND if _BELOW_MICROSECONDS.search(written) else time
    except (ValueError, OverflowError) as error:
        message = f"{name}={text} is no time: write ISO-8601 or epoch milliseconds"
        raise InvalidParameter(message) from error
