"""The reading of refusals: how long to wait, and the exchange's own words. Pure."""

import math
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import cast

import httpx

SHOWN_CHARACTERS = 200
"""How much of an exchange's words is told."""

_LONGEST_BLOCK_SECONDS = 3 * 86_400.0  # Binance's longest ban


def retry_after_seconds(response: httpx.Response) -> float | None:
    """Read `Retry-After`: seconds, or a date, which is compared with the answer's own."""
    value = response.headers.get("Retry-After", "")
    try:
        seconds = float(value)
    except ValueError:
        until, now = _date(value), _date(response.headers.get("Date", "")) or datetime.now(UTC)
        seconds = (until - now).total_seconds() if until else math.nan
    return min(max(seconds, 0.0), _LONGEST_BLOCK_SECONDS) if math.isfinite(seconds) else None


def refusal_in(payload: object) -> str | None:
    """Give the words of a body that is an error, whatever status it came with."""
    if not isinstance(payload, dict):
        return None
    body = cast("dict[str, object]", payload)
    words = next((body[key] for key in ("msg", "message", "error") if body.get(key)), None)
    if words is None:
        return None
    code = body.get("code")
    return (str(words) if code is None else f"{code} {words}")[:SHOWN_CHARACTERS]


def _date(text: str) -> datetime | None:
    try:
        date = parsedate_to_datetime(text)
    except ValueError:
        return None
    return date if date.tzinfo else date.replace(tzinfo=UTC)
