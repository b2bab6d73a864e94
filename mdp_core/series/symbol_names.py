"""The names of symbols: canonical, native, misspelled. Pure."""

from collections.abc import Sequence

from rapidfuzz import fuzz, process

from mdp_core.errors import AmbiguousSymbol
from mdp_core.exchanges.base import ExchangeAdapter
from mdp_core.storage.catalog.catalog import Listing

_NEAR_NAMES = 5
_NEAR_SPELLINGS = 3 * _NEAR_NAMES  # each name stands there thrice
_LEAST_LIKENESS = 50.0  # of 100
_LONGEST_MISSPELLED = 40


def find_listing(
    adapter: ExchangeAdapter, text: str, listings: Sequence[Listing]
) -> Listing | None:
    """Return the listing of that name, else of a name that `text` may stand for."""
    names = (text, *adapter.other_names(text))
    return next(filter(None, (_find_name(name, listings) for name in names)), None)


def _find_name(text: str, listings: Sequence[Listing]) -> Listing | None:
    """Return the only listing of that name."""
    owners = next((group for group in _owners(text, listings) if len(group) == 1), ())
    return next(iter(owners), None)


def check_unambiguous(adapter: ExchangeAdapter, text: str, listings: Sequence[Listing]) -> None:
    """Raise an error where several symbols have that name.

    Raises:
        AmbiguousSymbol: No symbol is the only one of that name.
    """
    if several := next((owners for owners in _owners(text, listings) if owners), None):
        natives = sorted(listing.symbol.native for listing in several)
        raise AmbiguousSymbol(adapter.facts.name, text, natives)


def _owners(text: str, listings: Sequence[Listing]) -> list[list[Listing]]:
    """Return the owners by canonical name, native id, and either in any case."""
    folded = text.casefold()
    tests = (
        [listing for listing in listings if listing.symbol.name == text],
        [listing for listing in listings if listing.symbol.native == text],
        [
            listing
            for listing in listings
            if folded in (listing.symbol.name.casefold(), listing.symbol.native.casefold())
        ],
    )
    # A relisted pair stands there twice: the active one owns the name.
    return [[match for match in matches if match.symbol.active] or matches for matches in tests]


def near_names(text: str, listings: Sequence[Listing]) -> list[str]:
    """Return names that `text` may have been meant for, the nearest first.

    It is compared with canonical names, with the exchange's own, and with bases.
    """
    if len(text) > _LONGEST_MISSPELLED:
        return []
    spellings = [
        (word.casefold(), listing.symbol.name)
        for listing in listings
        for word in (listing.symbol.name, listing.symbol.native, listing.symbol.base)
    ]
    near = process.extract(
        text.casefold(),
        [spelling for spelling, _ in spellings],
        scorer=fuzz.ratio,
        score_cutoff=_LEAST_LIKENESS,
        limit=_NEAR_SPELLINGS,
    )
    names = dict.fromkeys(spellings[place][1] for _, _, place in near)
    return [*names][:_NEAR_NAMES]
