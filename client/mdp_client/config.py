"""The service's address, and the settings of a client."""

import os
import ssl
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Self
from urllib.parse import SplitResult, urlsplit

from mdp_client.core.asking import Call
from mdp_client.core.patience import Patience
from mdp_client.errors import JobStarted, NotConfigured
from mdp_client.records import JobStatus
from mdp_client.version import USER_AGENT

URL_VARIABLE, TOKEN_VARIABLE = "MDP_URL", "MDP_TOKEN"


@dataclass(frozen=True, slots=True)
class Config:
    """The settings of one client.

    Attributes:
        url: The service's, without a slash at its end.
        timeout: Seconds for which a connection may be silent.
        patience: Seconds for all tries of one call, counted since the last success.
    """

    url: str
    token: str | None
    timeout: float
    patience: float

    @classmethod
    def of(cls, url: str | None, token: str | None, timeout: float, patience: float) -> Self:
        """Read what the caller leaves out from `MDP_URL` and `MDP_TOKEN`.

        Raises:
            NotConfigured: There is no URL, or it is none.
        """
        url = url or os.environ.get(URL_VARIABLE, "")
        token = token or os.environ.get(TOKEN_VARIABLE) or None
        if urlsplit(url).scheme not in ("http", "https") or not urlsplit(url).hostname:
            said = f"{url!r} is no URL" if url else f"{URL_VARIABLE} is not set"
            detail = f"{said}: give Client the service's URL, as in http://127.0.0.1:8000"
            raise NotConfigured(detail=detail)
        return cls(url.rstrip("/"), token, timeout, patience)

    @property
    def address(self) -> SplitResult:
        """Return the URL in its parts."""
        return urlsplit(self.url)

    @property
    def origin(self) -> str:
        """Return the URL without its path."""
        return f"{self.address.scheme}://{self.address.netloc}"

    @property
    def is_local(self) -> bool:
        """Tell whether the service is on this machine: no proxy and no compression."""
        host = self.address.hostname or ""
        try:
            return ip_address(host).is_loopback
        except ValueError:
            return host == "localhost"

    def headers(self) -> Mapping[str, str]:
        """Return the headers of every request."""
        authorized = {"Authorization": f"Bearer {self.token}"} if self.token else {}
        return {"User-Agent": USER_AGENT, **authorized}

    def call(self, started: Callable[[JobStatus], JobStarted]) -> Call:
        """Begin a call, whose patience counts from now."""
        coding = "identity" if self.is_local else "zstd"
        patience = Patience(self.patience, self.timeout, time.monotonic)
        return Call(self.address.path, coding, patience, started)

    def security(self) -> ssl.SSLContext | None:
        """Return the system's certificates for a service behind TLS."""
        return ssl.create_default_context() if self.address.scheme == "https" else None
