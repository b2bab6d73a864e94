"""Lists that come page by page, and the records in them."""

from typing import Any, TypeVar
from urllib.parse import quote, urlencode

from mdp_client.core.actions import Flow
from mdp_client.core.asking import Call, Question, ask_json
from mdp_client.errors import BadBody
from mdp_client.records import Record, records

R = TypeVar("R", bound=Record)


def ask_pages(call: Call, path: str, member: str) -> Flow[list[Any]]:
    """Read a list to its end.

    Args:
        path: Of the first page, with its query.
        member: The body's member that holds the list.

    Raises:
        BadBody: There is no such member.
    """
    items, following = list[Any](), path
    while following:
        page = yield from ask_json(call, Question("GET", following))
        if not isinstance(page, dict) or not isinstance(page.get(member), list):
            raise BadBody(detail=f"the answer to {path} holds no {member}")
        items += page[member]
        following = page.get("next")
    return items


def ask_records(
    call: Call, path: str, member: str, kind: type[R], filters: dict[str, object]
) -> Flow[tuple[R, ...]]:
    """Read a list of records to its end.

    Args:
        filters: Query parameters; those that are None are left out.
    """
    given = {name: _text(value) for name, value in filters.items() if value is not None}
    query = f"?{urlencode(given)}" if given else ""
    return records(kind, (yield from ask_pages(call, f"{path}{query}", member)))


def _text(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def series_path(exchange: str, market_type: str, symbol: str, interval: str) -> str:
    """Return the part of a path that names a series."""
    return "/".join(quote(name, safe="") for name in (exchange, market_type, symbol, interval))
