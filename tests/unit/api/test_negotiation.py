"""Which of what we have a client likes best."""

import pytest

from api.requests.negotiation import (
    NotAcceptable,
    accepts_plain,
    best_coding,
    best_media_type,
    matches,
)

_TYPES = ["application/json", "text/csv", "application/vnd.apache.arrow.stream"]
_CODINGS = ["zstd", "gzip"]


@pytest.mark.parametrize(
    ("accept", "chosen"),
    [
        ("", "application/json"),
        ("*/*", "application/json"),
        ("text/csv", "text/csv"),
        ("TEXT/CSV", "text/csv"),
        ("text/*", "text/csv"),
        ("text/html, application/xhtml+xml, */*;q=0.8", "application/json"),
        ("application/json;q=0.5, text/csv;q=0.9", "text/csv"),
        ("application/json;q=0.5, text/*", "text/csv"),
        ("application/*;q=0.3, application/vnd.apache.arrow.stream", _TYPES[2]),
        ("*/*, application/json;q=0", "text/csv"),
        ("text/csv;header=present;q=0.4, image/png", "text/csv"),
        ("text/csv;q=nonsense, application/json;q=0.1", "application/json"),
    ],
)
def test_media_type_is_that_of_the_highest_quality(accept: str, chosen: str) -> None:
    """The narrowest range that fits decides; of several equals, ours comes first."""
    assert best_media_type(accept, _TYPES) == chosen


@pytest.mark.parametrize("accept", ["image/png", "text/csv;q=0", "*/*;q=0"])
def test_nothing_acceptable_is_an_error(accept: str) -> None:
    """It says what there is."""
    with pytest.raises(NotAcceptable, match="text/csv"):
        best_media_type(accept, _TYPES)


@pytest.mark.parametrize(
    ("accepted", "chosen"),
    [
        ("", None),
        ("identity", None),
        ("br", None),
        ("gzip", "gzip"),
        ("gzip, zstd", "zstd"),
        ("gzip;q=1.0, zstd;q=0.5", "gzip"),
        ("gzip;q=0", None),
        ("*", "zstd"),
        ("*, zstd;q=0", "gzip"),
        ("gzip;q=0.5, identity", None),
        ("gzip;q=0.5, identity;q=0.1", "gzip"),
        ("gzip, identity;q=0", "gzip"),
        ("x-gzip", "gzip"),
        ("zstd, *;q=0", "zstd"),
        ("identity, *;q=0", None),
    ],
)
def test_coding_is_that_of_the_highest_quality(accepted: str, chosen: str | None) -> None:
    """A body as it is stays acceptable unless it is excluded."""
    assert best_coding(accepted, _CODINGS) == chosen


@pytest.mark.parametrize(
    ("accepted", "will_do"),
    [("", True), ("gzip", True), ("identity;q=0", False), ("*;q=0", False), ("*;q=0.1", True)],
)
def test_body_as_it_is_will_do_unless_it_is_excluded(accepted: str, *, will_do: bool) -> None:
    """By its name, or with everything that has none."""
    assert accepts_plain(accepted) is will_do


@pytest.mark.parametrize("accepted", ["identity;q=0", "*;q=0", "br, identity;q=0"])
def test_no_acceptable_coding_is_an_error(accepted: str) -> None:
    """To send a body as it is would be to ignore the client."""
    with pytest.raises(NotAcceptable, match="zstd, gzip"):
        best_coding(accepted, _CODINGS)


@pytest.mark.parametrize(
    ("given", "is_match"),
    [
        ("", False),
        ('"a"', True),
        ('"b"', False),
        ('"b", "a"', True),
        ('W/"a"', True),
        ("*", True),
        ("a", False),
    ],
)
def test_entity_tags_are_compared_weakly(given: str, *, is_match: bool) -> None:
    """A proxy may have made ours a weak one."""
    assert matches(given, '"a"') == is_match
    assert not matches(given, None)
