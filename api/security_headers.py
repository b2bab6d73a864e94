"""Security headers: browsers must not take an answer for something else."""

from collections.abc import Mapping

_COMMON_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
}
_NOTHING = "default-src 'none'; frame-ancestors 'none'"
# Its page runs a script from elsewhere.
_DOCS, _DOCS_POLICY = "/docs", "frame-ancestors 'none'"
_FIRST_ERROR = 400


def security_headers(path: str, status: int) -> Mapping[str, str]:
    """Return the headers of an answer that sets none of them itself.

    Errors are `no-store`; other responses must be revalidated.
    """
    policy = _DOCS_POLICY if path == _DOCS else _NOTHING
    caching = "no-store" if status >= _FIRST_ERROR else "private, no-cache"
    return {**_COMMON_HEADERS, "Content-Security-Policy": policy, "Cache-Control": caching}
