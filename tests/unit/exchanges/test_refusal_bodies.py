"""Refusals as exchanges word them: with a status, or in a body under 200."""

from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import httpx
import pytest

from mdp_core.exchanges.refusals import refusal_in, retry_after_seconds

NOON = datetime(2026, 11, 27, 12, tzinfo=UTC)


def http_date(time: datetime) -> str:
    """Write a time as HTTP does."""
    return format_datetime(time, usegmt=True)


def seconds_in(**headers: str) -> float | None:
    """Read the wait that a response with these headers demands."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return retry_after_seconds(httpx.Response(429, headers=named))


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        pytest.param("7", 7.0, id="seconds"),
        pytest.param("0.5", 0.5, id="half a second"),
        pytest.param("-3", 0.0, id="below zero"),
        pytest.param("1e9", 259_200.0, id="beyond the longest ban"),
        pytest.param(http_date(NOON + timedelta(seconds=90)), 90.0, id="date"),
        pytest.param(http_date(NOON - timedelta(seconds=90)), 0.0, id="date that is over"),
        pytest.param(http_date(NOON + timedelta(days=9)), 259_200.0, id="distant date"),
        pytest.param("Fri, 27 Nov 2026 12:01:30 -0000", 90.0, id="date without a zone"),
        pytest.param("nan", None, id="not a number"),
        pytest.param("soon", None, id="a word"),
        pytest.param("", None, id="nothing"),
    ],
)
def test_retry_after_is_read_as_seconds_or_as_a_date(value: str, seconds: float | None) -> None:
    """A date is compared with the exchange's own, whatever our clock shows."""
    assert seconds_in(Retry_After=value, Date=http_date(NOON)) == seconds


def test_date_without_the_exchanges_own_is_compared_with_ours() -> None:
    """It is real time that counts."""
    seconds = seconds_in(Retry_After=http_date(datetime.now(UTC) + timedelta(hours=1)))

    assert seconds is not None
    assert 3000 < seconds <= 3600


@pytest.mark.parametrize(
    ("payload", "words"),
    [
        pytest.param({"code": -1003, "msg": "Too many requests"}, "-1003 Too many requests"),
        pytest.param({"code": 429, "msg": "Slow", "data": None}, "429 Slow"),
        pytest.param({"message": "NotFound"}, "NotFound"),
        pytest.param({"error": "upstream"}, "upstream"),
        pytest.param({"message": "x" * 999}, "x" * 200, id="long"),
        pytest.param({"serverTime": 1}, None, id="time"),
        pytest.param({"time": 1, "specialStatuses": None}, None, id="status"),
        pytest.param({"universe": []}, None, id="list"),
        pytest.param({"msg": ""}, None, id="no words"),
        pytest.param([], None, id="rows"),
        pytest.param(None, None, id="null"),
    ],
)
def test_error_body_is_told_in_its_own_words(payload: object, words: str | None) -> None:
    """A body without an error has none."""
    assert refusal_in(payload) == words
