"""Connections of the standard library, through the environment's proxy if set."""

import base64
import http.client
from collections.abc import Mapping
from urllib.parse import SplitResult, unquote, urlsplit
from urllib.request import getproxies, proxy_bypass

from mdp_client.config import Config
from mdp_client.errors import NotConfigured


class Connector:
    """Makes connections to one service."""

    def __init__(self, config: Config) -> None:
        self._address = config.address
        self._security = config.security()
        self._proxy = None if config.is_local else _proxy_for(config.address)
        self.headers: Mapping[str, str] = {}
        """What a proxy wants to have with every request."""
        if self._proxy and not self._security:
            self.headers = _credentials(self._proxy)

    def connect(self, seconds: float) -> http.client.HTTPConnection:
        """Make a connection, which is opened by its first request.

        Args:
            seconds: How long it may be silent.
        """
        to = self._proxy or self._address
        host, port = str(to.hostname), to.port
        if not self._security:
            return http.client.HTTPConnection(host, port, timeout=seconds)
        connection = http.client.HTTPSConnection(
            host, port, timeout=seconds, context=self._security
        )
        if self._proxy:
            target = str(self._address.hostname), self._address.port or 443
            connection.set_tunnel(*target, headers=_credentials(self._proxy))
        return connection

    def target(self, path: str) -> str:
        """Return the request's target; a proxy without a tunnel wants the whole URL."""
        if self._proxy and not self._security:
            return f"{self._address.scheme}://{self._address.netloc}{path}"
        return path


def _proxy_for(address: SplitResult) -> SplitResult | None:
    proxies = getproxies()
    url = proxies.get(address.scheme) or proxies.get("all")
    if not url or proxy_bypass(str(address.hostname)):
        return None
    proxy = urlsplit(url if "://" in url else f"http://{url}")
    if proxy.scheme != "http":
        detail = f"a proxy of the kind {proxy.scheme} can't be used: name the host in NO_PROXY"
        raise NotConfigured(detail=detail)
    return proxy


def _credentials(proxy: SplitResult) -> dict[str, str]:
    if proxy.username is None:
        return {}
    text = f"{unquote(proxy.username)}:{unquote(proxy.password or '')}"
    encoded = base64.b64encode(text.encode()).decode()
    return {"Proxy-Authorization": f"Basic {encoded}"}
