"""Content negotiation (RFC 9110, 12.5): media types and codings by quality."""

from collections.abc import Mapping, Sequence

_ACCEPT, _ACCEPT_ENCODING = "Accept", "Accept-Encoding"


class NotAcceptable(Exception):
    """The client accepts nothing of what there is; says what there is."""

    def __init__(self, header: str, offered: Sequence[str]) -> None:
        super().__init__(f"{header} excludes everything that there is: {', '.join(offered)}")


def best_media_type(accept: str, offered: Sequence[str]) -> str:
    """Return the media type of `offered` that is accepted best; the first of equals.

    Args:
        accept: The header's text; empty accepts everything.
        offered: Media types without parameters, the best one first.

    Raises:
        NotAcceptable: None of them is accepted.
    """
    qualities = _qualities(accept) or {"*/*": 1.0}

    def quality(media_type: str) -> float:
        ranges = (media_type, f"{media_type.partition('/')[0]}/*", "*/*")
        return next(
            (qualities[media_range] for media_range in ranges if media_range in qualities), 0.0
        )

    best = max(offered, key=quality)
    if not quality(best):
        raise NotAcceptable(_ACCEPT, offered)
    return best


def best_coding(accept_encoding: str, offered: Sequence[str]) -> str | None:
    """Return the coding of `offered` that is accepted best; None: no coding.

    Args:
        accept_encoding: The header's text; empty accepts no coding.
        offered: Names of codings, the best one first.

    Raises:
        NotAcceptable: None of them is accepted, nor a body as it is.
    """
    qualities = _codings(accept_encoding)
    rest = qualities.get("*", 0.0)
    best = max(offered, key=lambda name: qualities.get(name, rest), default=None)
    coded = qualities.get(best, rest) if best else 0.0
    plain = _plain_quality(qualities)
    if coded and coded >= (plain or 0.0):
        return best
    if plain == 0.0:
        raise NotAcceptable(_ACCEPT_ENCODING, (*offered, "identity"))
    return None


def accepts_plain(accept_encoding: str) -> bool:
    """Return whether an uncompressed body is acceptable."""
    return _plain_quality(_codings(accept_encoding)) != 0.0


def matches(if_none_match: str, etag: str | None) -> bool:
    """Return whether the client has the body of `etag`; weak tags compare equal."""
    if etag is None or not if_none_match:
        return False
    given = [part.strip().removeprefix("W/") for part in if_none_match.split(",")]
    return "*" in given or etag in given


def _codings(accept_encoding: str) -> dict[str, float]:
    """Read the qualities of codings; `x-gzip` is `gzip` (RFC 9110, section 8.4.1.3)."""
    qualities = _qualities(accept_encoding)
    return {name.removeprefix("x-"): quality for name, quality in qualities.items()}


def _plain_quality(codings: Mapping[str, float]) -> float | None:
    """Return the quality of `identity`; None: acceptable, but not asked for."""
    excluded = "*" in codings and not codings["*"]
    return codings.get("identity", 0.0 if excluded else None)


def _qualities(header: str) -> dict[str, float]:
    """Read `name;q=0.5, …`; other parameters are ignored, a bad quality counts 0."""
    qualities: dict[str, float] = {}
    for item in header.split(","):
        name, *parameters = (part.strip().lower() for part in item.split(";"))
        if name:
            texts = [parameter[2:] for parameter in parameters if parameter.startswith("q=")]
            qualities[name] = _quality(texts[0]) if texts else 1.0
    return qualities


def _quality(text: str) -> float:
    try:
        quality = float(text)
    except ValueError:
        return 0.0
    return quality if 0 <= quality <= 1 else 0.0
