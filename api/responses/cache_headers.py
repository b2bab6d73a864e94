"""Caching headers: an answer that can't change may be kept, others revalidate."""

import hashlib

from api.responses import compression
from api.responses import formats as encoding
from api.responses.envelope import AnswerMetadata
from mdp_core.domain.queries import Answer, CandleQuery

_VARY = "Accept, Accept-Encoding, Authorization"


def cache_headers(
    query: CandleQuery, provenance: AnswerMetadata, form: tuple[str, ...]
) -> dict[str, str]:
    """Return `Cache-Control`, `Vary`, and an `ETag` if all is settled and confirmed.

    An answer that may lack a part is not stored by any cache. One that ends at the live edge is
    final but differs a candle later: it may be stored, and must be revalidated.

    Args:
        query: What was asked.
        provenance: What is answered.
        form: Whatever else the bytes of the body depend on.
    """
    answer = provenance.answer
    if answer.missing or query.partial:
        return {"Cache-Control": "no-store", "Vary": _VARY}
    if not answer.is_final or answer.unconfirmed:
        return {"Cache-Control": "private, no-cache", "Vary": _VARY}
    return {
        "Cache-Control": "private, max-age=3600"
        if _is_fixed(query, provenance)
        else "private, no-cache",
        "Vary": _VARY,
        "ETag": _etag(query, provenance, form),
    }


def version_header(answer: Answer) -> dict[str, str]:
    """Return `X-Version`: store, series, the window's version, the series' epoch.

    As long as the first three are the same, so are the settled candles of the window.
    """
    versions = answer.versions
    parts = versions.store, answer.series.id, answer.version, versions.epoch
    return {"X-Version": ".".join(map(str, parts))}


def _is_fixed(query: CandleQuery, provenance: AnswerMetadata) -> bool:
    """Return whether the requested window is independent of the time."""
    answer = provenance.answer
    asked_end = answer.next.end if answer.next and answer.next.start else answer.window.end
    return query.end is not None and answer.series.grid.ceil(query.end) == asked_end


def _etag(query: CandleQuery, provenance: AnswerMetadata, form: tuple[str, ...]) -> str:
    answer = provenance.answer
    version = answer.versions.store, answer.series.id, answer.version
    parts = (version, provenance.window(), query.limit)
    versions = encoding.VERSION, compression.VERSION
    text = repr((parts, provenance.columns, provenance.following, form, versions))
    return f'"{hashlib.blake2b(text.encode(), digest_size=16).hexdigest()}"'
