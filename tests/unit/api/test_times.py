"""Times as people and programs write them in a request."""

from contextlib import suppress
from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.strategies import steady, times, utc

from api.requests.times import parse_time
from mdp_core.domain.clock import EPOCH, from_ms, to_ms
from mdp_core.errors import InvalidParameter

OF_OUR_DAYS = utc(2024, 6, 10, 12, 30)


@pytest.mark.parametrize(
    ("text", "time"),
    [
        pytest.param("2024-06-10", utc(2024, 6, 10), id="date alone is midnight"),
        pytest.param("2024-06-10T12:30", OF_OUR_DAYS, id="no zone is UTC"),
        pytest.param("2024-06-10 12:30", OF_OUR_DAYS, id="blank in place of T"),
        pytest.param("2024-06-10T12:30:00Z", OF_OUR_DAYS, id="Z"),
        pytest.param("2024-06-10T12:30:00+00:00", OF_OUR_DAYS, id="offset zero"),
        pytest.param("2024-06-10T14:30:00+02:00", OF_OUR_DAYS, id="offset east"),
        pytest.param("2024-06-10T07:00:00-05:30", OF_OUR_DAYS, id="offset west"),
        pytest.param("2024-06-10T14:30:00+0200", OF_OUR_DAYS, id="offset without colon"),
        pytest.param("2024-06-10T14:30:00 02:00", OF_OUR_DAYS, id="lost plus"),
        pytest.param("2024-06-10T14:30 0200", OF_OUR_DAYS, id="lost plus without colon"),
        pytest.param("2024-06-10 14:30:00 02:00", OF_OUR_DAYS, id="lost plus after a blank"),
        pytest.param("2024-06-10t12:30:00z", OF_OUR_DAYS, id="lower case"),
        pytest.param("2024-06-10T12:30:00.000000000Z", OF_OUR_DAYS, id="nanoseconds, all zero"),
        pytest.param(
            "2024-06-10T12:30:00.000000001Z",
            OF_OUR_DAYS + timedelta(microseconds=1),
            id="a nanosecond rounds up",
        ),
        pytest.param("2024-06-10T12:30:00.000Z", OF_OUR_DAYS, id="JavaScript"),
        pytest.param("2024-06-11T00:30:00+12:00", OF_OUR_DAYS, id="another day there"),
        pytest.param("20240610T123000Z", OF_OUR_DAYS, id="basic form"),
        pytest.param("1718022600000", OF_OUR_DAYS, id="milliseconds"),
        pytest.param("+1718022600000", OF_OUR_DAYS, id="milliseconds with plus"),
        pytest.param("0", EPOCH, id="zero"),
        pytest.param("-0", EPOCH, id="minus zero"),
        pytest.param("100000000000", from_ms(10**11), id="smallest milliseconds"),
        pytest.param("1900-01-01", utc(1900), id="earliest"),
        pytest.param("2200-01-01", utc(2200), id="latest"),
        pytest.param(
            "2024-06-10T12:30:00.123456Z",
            OF_OUR_DAYS + timedelta(microseconds=123456),
            id="microseconds of a second",
        ),
    ],
)
def test_time_is_read_in_every_form(text: str, time: datetime) -> None:
    """The result is aware and UTC, whatever was written."""
    parsed = parse_time("start", text)

    assert parsed == time
    assert parsed.tzinfo is UTC


@pytest.mark.parametrize(
    ("text", "why"),
    [
        pytest.param("1718022600", "seconds", id="seconds"),
        pytest.param("1", "seconds", id="one"),
        pytest.param("99999999999", "seconds", id="just below milliseconds"),
        pytest.param("20240610", "seconds", id="date without dashes"),
        pytest.param("2024", "seconds", id="year alone"),
        pytest.param("100000000000000", "microseconds", id="just above milliseconds"),
        pytest.param("1718022600000000", "microseconds", id="microseconds"),
        pytest.param("1718022600000000000", "microseconds", id="nanoseconds"),
        pytest.param("9" * 5000, "microseconds", id="more digits than Python reads"),
        pytest.param("7258118400001", "outside the years", id="milliseconds after 2200"),
    ],
)
def test_integer_of_another_unit_is_refused_with_its_unit(text: str, why: str) -> None:
    """A wrong guess would answer for another century."""
    with pytest.raises(InvalidParameter, match=why):
        parse_time("start", text)


@pytest.mark.parametrize(
    "text",
    [
        "-1718022600000",
        "-1",
        "-" + "9" * 5000,
        "0001-01-01",
        "1899-12-31T23:59:59Z",
        "2200-01-01T00:00:01Z",
        "9999-12-31T23:59:59Z",
        "0001-01-01T00:00:00+23:59",
        "9999-12-31T23:59:59-23:59",
    ],
)
def test_time_no_candle_can_be_near_is_refused(text: str) -> None:
    """Also where the zone carries it out of the calendar."""
    with pytest.raises(InvalidParameter):
        parse_time("start", text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "now",
        "yesterday",
        "2024-13-01",
        "2024-02-30",
        "2023-02-29",
        "2024-06-10T25:00",
        "2024-06-10T12:60",
        "2024-06-10T12:30:00+25:00",
        "2024-06-10T12:30:00Z+02:00",
        "2024/06/10",
        "10.06.2024",
        "1718022600000.5",
        "1.7e12",
        "1_718_022_600_000",
        "0x18FFA1B2C3D",
        "nan",
        "inf",
        "None",
        "null",
        "-",
        "+",
        "1718022600000 ",
        " 1718022600000",
        "2024-06-10\n",
        "\x00",
        "Jun 10 2024",
        "12024-01-01",
    ],
)
def test_garbage_is_refused(text: str) -> None:
    """With the one error that becomes a 422, which names the parameter."""
    with pytest.raises(InvalidParameter, match="end="):
        parse_time("end", text)


@steady
@given(st.text())
def test_any_text_is_a_time_or_an_invalid_parameter(text: str) -> None:
    """Nothing else may come out of what a stranger writes."""
    try:
        time = parse_time("start", text)
    except InvalidParameter:
        return
    assert utc(1900) <= time <= utc(2200)
    assert time.tzinfo is UTC


@steady
@given(st.text("0123456789-+:.TZ W", max_size=30))
def test_text_of_the_letters_of_times_is_one_or_an_invalid_parameter(text: str) -> None:
    """Closer to the real forms than any text."""
    with suppress(InvalidParameter):
        assert parse_time("start", text).tzinfo is UTC


@steady
@given(times, st.integers(-14 * 60, 14 * 60))
def test_time_written_in_any_zone_is_read_back(time: datetime, offset: int) -> None:
    """The same moment, to the microsecond, as a parameter and with a lost plus."""
    there = time.astimezone(timezone(timedelta(minutes=offset)))

    assert parse_time("start", there.isoformat()) == time
    assert parse_time("start", there.isoformat().replace("+", " ")) == time


@steady
@given(st.integers(10**11, to_ms(utc(2200))))
def test_milliseconds_are_read_exactly(ms: int) -> None:
    """No float on the way."""
    assert to_ms(parse_time("start", str(ms))) == ms
