"""Proxies of the environment: which URL goes through which, and which can be used."""

import httpx
import pytest
from support.http import HOST

from mdp_core.exchanges.network import is_loopback, proxy_problem

_SOCKS = "socks5://proxy.example:1080"


@pytest.mark.parametrize(
    ("url", "proxies", "expected"),
    [
        ("https://x.example", {}, None),
        ("https://x.example", {"https": "http://p.example:3128"}, None),
        ("https://x.example", {"http": _SOCKS}, None),
        ("https://x.example", {"all": "gopher://p.example"}, "gopher://"),
        ("https://x.example", {"https": "p.example:3128"}, None),
        (f"http://{HOST}:8900/x", {"all": "gopher://p.example"}, None),
        ("http://localhost:8900", {"all": "gopher://p.example"}, None),
        ("http://[::1]:8900", {"all": "gopher://p.example"}, None),
    ],
)
def test_proxies_are_judged_by_where_the_url_leads(
    url: str, proxies: dict[str, str], expected: str | None
) -> None:
    """Only the one that would be used counts."""
    problem = proxy_problem(url, proxies)

    assert problem is None if expected is None else expected in (problem or "")


def test_judged_usable_is_what_the_client_takes() -> None:
    """The library refuses what is refused here, and takes the rest."""
    for proxy in ("http://p.example", "https://p.example", _SOCKS, "gopher://p.example"):
        try:
            httpx.AsyncClient(proxy=proxy)
            is_usable = True
        except (ImportError, ValueError):
            is_usable = False
        assert (proxy_problem("https://x.example", {"all": proxy}) is None) is is_usable
    assert is_loopback("http://127.1.2.3")
