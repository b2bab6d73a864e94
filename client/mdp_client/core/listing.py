"""Lists that come page by page, and the records in them."""

from collections.abc import Mapping
from typing import Any, TypeVar, cast
from urllib.parse import quote, urlencode

from mdp_client.core.actions import Flow
from mdp_client.core.asking import Call, Question, ask_json
from mdp_client.errors import BadBody
from mdp_client.records import Record, records

R = TypeVar("R", bound=Record)


def ask_pages(call: Call, path: str, member: str) -> Flow[list[Any]]:
    """Read a list to its end, which lies in one member of each page's body.

    Raises:
        BadBody: There is no such member.
    """
    items, following = list[Any](), path
    while following:
        page = yield from ask_json(call, Question("GET", following))
        items += list_of(page, member)
        following = str(page.get("next") or "")
    return items


def list_of(body: Mapping[str, Any], member: str) -> list[Any]:
    """Return a member that must be an array.

    Raises:
        BadBody: It is none, or there is no such member.
    """
    items = body.get(member)
    if not isinstance(items, list):
        raise BadBody(detail=f"the answer holds no {member}")
    return cast("list[Any]", items)


def ask_records(
    call: Call, path: str, member: str, kind: type[R], filters: dict[str, object]
) -> Flow[tuple[R, ...]]:
    """Read a list of records to its end; filters that are None are left out."""
    given = {name: _text(value) for name, value in filters.items() if value is not None}
    query = f"?{urlencode(given)}" if given else ""
    return records(kind, (yield from ask_pages(call, f"{path}{query}", member)))


def _text(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def series_path(exchange: str, market_type: str, symbol: str, interval: str) -> str:
    """Return the part of a path that names a series."""
    return "/".join(quote(name, safe="") for name in (exchange, market_type, symbol, interval))
