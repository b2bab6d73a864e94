"""The way to an exchange: proxies of the environment, and failures explained."""

import importlib.util
import os
import socket
import ssl
from collections.abc import Iterator, Mapping
from ipaddress import ip_address
from typing import cast
from urllib.request import getproxies, proxy_bypass

import httpx

_PROXY_SCHEMES = ("http", "https", "socks5", "socks5h")
_SOCKS_PACKAGE = "socksio"


def is_loopback(url: str) -> bool:
    """Return whether a URL leads to this machine, and so through no proxy."""
    host = httpx.URL(url).host
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")


def proxy_problem(url: str, proxies: Mapping[str, str] | None = None) -> str | None:
    """Return why the environment's proxy can't be used for a URL; None if it can.

    Args:
        url: Of an exchange.
        proxies: By scheme, as the environment has them unless given.
    """
    proxy = _proxy_of(url, getproxies() if proxies is None else proxies)
    if proxy is None:
        return None
    scheme = _with_scheme(proxy).partition("://")[0]
    if scheme not in _PROXY_SCHEMES:
        return (
            f"the proxy of the environment is {scheme}://, not one of {', '.join(_PROXY_SCHEMES)}"
        )
    if scheme.startswith("socks") and importlib.util.find_spec(_SOCKS_PACKAGE) is None:
        return (
            f"the proxy of the environment is {scheme}://, which needs the package "
            f"{_SOCKS_PACKAGE}: install it, name a http:// proxy, or list the exchange in NO_PROXY"
        )
    return None


def describe_failure(request: httpx.Request, error: httpx.HTTPError) -> str:
    """Return where a request was sent, and how that failed in the system's words."""
    url = request.url
    port = url.port or (443 if url.scheme == "https" else 80)
    proxy = _proxy_of(str(url), getproxies())
    way = f" through the proxy {httpx.URL(_with_scheme(proxy)).host}" if proxy else ""
    return f"can't be reached at {url.host}:{port}{way}: {_words(error)}"


def _proxy_of(url: str, proxies: Mapping[str, str]) -> str | None:
    address = httpx.URL(url)
    if is_loopback(url) or proxy_bypass(address.host):
        return None
    return proxies.get(address.scheme) or proxies.get("all")


def _with_scheme(proxy: str) -> str:
    return proxy if "://" in proxy else f"http://{proxy}"


def _words(error: httpx.HTTPError) -> str:
    if isinstance(error, httpx.TimeoutException):
        return "no answer in time"
    causes = [entry for entry in _chain(error) if isinstance(entry, OSError) and entry.errno]
    if not causes:
        return str(error) or type(error).__name__
    cause = causes[-1]
    if isinstance(cause, ssl.SSLError | socket.gaierror):
        return str(cause.strerror)
    return os.strerror(cause.errno or 0)


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """Yield an error and what it came from, the innermost last."""
    while error is not None:
        yield error
        if isinstance(error, BaseExceptionGroup):  # of the addresses of a name, one each
            error = cast("BaseExceptionGroup[BaseException]", error).exceptions[0]
        else:
            error = error.__cause__ or error.__context__
