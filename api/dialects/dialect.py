"""The dialect of an exchange: its own protocol, answered from the store.

What a dialect does not answer itself is handed on to the exchange as it came: everything public
beside candles, and calls for candles that the exchange refuses or that the store can't answer.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from typing import Any, ClassVar, TypeAlias, cast
from urllib.parse import parse_qsl, unquote

import orjson
from fastapi import Response

from api.dialects.series_rows import SeriesRows
from mdp_core.domain.clock import from_ms
from mdp_core.ratelimit.context import RequestContext

Json: TypeAlias = dict[str, Any]

JSON = "application/json"
_LATEST_MS = 4_102_444_800_000  # 2100-01-01
_SECRET_HEADERS = ("x-mbx-apikey", "authorization", "cb-access-")
_SIGNATURE = "signature"


@dataclass(frozen=True)
class Call:
    """A request in a dialect.

    `path` and `query` are encoded as they came, names of headers are in lower case.
    """

    method: str
    path: str
    query: str
    headers: Mapping[str, str]
    body: bytes

    @property
    def target(self) -> str:
        """Path and query."""
        return f"{self.path}?{self.query}" if self.query else self.path

    @cached_property
    def params(self) -> list[tuple[str, str]]:
        """The parameters of the query, decoded."""
        return parse_qsl(self.query, keep_blank_values=True)

    @cached_property
    def json(self) -> Json:
        """The body, if it is a JSON object; else nothing."""
        try:
            read = orjson.loads(self.body or b"{}")
        except orjson.JSONDecodeError:
            return {}
        return cast("Json", read) if isinstance(read, dict) else {}

    def unique(self, names: frozenset[str]) -> dict[str, str] | None:
        """Return the parameters; None: one is not of `names`, or is there twice."""
        read = dict(self.params)
        return read if len(read) == len(self.params) and read.keys() <= names else None

    @property
    def is_signed(self) -> bool:
        """True if a key or a signature came with it."""
        has_key = any(
            value.strip() and name.startswith(_SECRET_HEADERS)
            for name, value in self.headers.items()
        )
        return has_key or any(name == _SIGNATURE for name, _ in self.params) or self._has_signature

    @property
    def _has_signature(self) -> bool:
        if not self.body:
            return False
        if _SIGNATURE in self.json:
            return True
        form = parse_qsl(self.body.decode("latin-1"), keep_blank_values=True)
        return any(name == _SIGNATURE for name, _ in form)

    @property
    def leaves_its_place(self) -> bool:
        """True if the path could mean another place than it says."""
        parts = self.path.split("/")[1:]
        decoded = [unquote(part) for part in parts]
        return any(
            part in {"", ".", ".."} or "/" in part or "\\" in part for part in decoded
        ) or any(not part.isprintable() for part in decoded)


class Dialect(ABC):
    """One exchange's protocol."""

    exchange: ClassVar[str]
    market_type: ClassVar[str]
    methods: ClassVar[frozenset[str]] = frozenset({"GET"})

    @abstractmethod
    async def answer(
        self, call: Call, rows: SeriesRows, context: RequestContext
    ) -> Response | None:
        """Answer a call; None: it is the exchange's to answer."""

    @abstractmethod
    def weigh(self, call: Call) -> float:
        """Return what the exchange charges for a call, at the most."""

    def charged(self, call: Call, body: bytes) -> float:
        """Return what the exchange has charged for its answer."""
        del body
        return self.weigh(call)

    def kept_seconds(self, call: Call) -> float:
        """Return how long the exchange's answer may be told again."""
        del call
        return 0

    def headers(self, spent: float) -> Mapping[str, str]:
        """Return headers as the exchange has them; `spent` is weight of this minute."""
        del spent
        return {}

    @abstractmethod
    def refusal(self, status: int, text: str) -> Response:
        """Word an error as the exchange does."""


def answer_json(body: bytes) -> Response:
    """Return a body of JSON."""
    return Response(body, media_type=JSON)


def time_of(ms: int) -> datetime | None:
    """Return the time of epoch milliseconds, None where no candle can be near it."""
    return from_ms(ms) if 0 <= ms <= _LATEST_MS else None
