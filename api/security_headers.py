"""The headers that keep browsers from taking an answer for something else."""

from collections.abc import Mapping

_OF_ALL = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
}
_NOTHING = "default-src 'none'; frame-ancestors 'none'"
# Its page runs a script from elsewhere.
_DOCS, _DOCS_POLICY = "/docs", "frame-ancestors 'none'"
_FIRST_ERROR = 400


def security_headers(path: str, status: int) -> Mapping[str, str]:
    """Give the headers of an answer that has said nothing else.

    An error is never to be kept by anybody, anything else not to be believed later.
    """
    policy = _DOCS_POLICY if path == _DOCS else _NOTHING
    caching = "no-store" if status >= _FIRST_ERROR else "private, no-cache"
    return {**_OF_ALL, "Content-Security-Policy": policy, "Cache-Control": caching}
