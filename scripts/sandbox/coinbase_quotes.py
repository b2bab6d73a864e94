"""Ticker and order book of the sandbox's Coinbase. Source.

Docs.cdp.coinbase.com, rest-api.
"""

from uuid import UUID

from mdp_core.domain.clock import from_ms
from scripts.sandbox.quotes import Quote

BOOK_DEPTHS = {"1": 1, "2": 50, "3": 200}


def iso(time_ms: int, precision: str) -> str:
    """Print a time as the exchange does."""
    return from_ms(time_ms).isoformat(timespec=precision).replace("+00:00", "Z")


def ticker(quote: Quote, now_ms: int) -> dict[str, object]:
    """Describe the last trade, the best offers, and the volume of the last 24 hours."""
    bid, ask = quote.bids(1)[0], quote.asks(1)[0]
    return {
        "ask": ask.price,
        "bid": bid.price,
        "volume": f"{quote.day.volume.sum():.8f}",
        "trade_id": now_ms // 1000,
        "price": quote.text,
        "size": bid.size,
        "time": iso(now_ms, "microseconds"),
        "rfq_volume": "0",
    }


def book(quote: Quote, level: str, now_ms: int) -> dict[str, object]:
    """Print the book: levels with the number of their orders.

    Or single orders with an id.
    """
    depth, with_ids = BOOK_DEPTHS[level], level == "3"
    sides = {"bids": quote.bids(depth), "asks": quote.asks(depth)}
    printed = {
        side: [
            [entry.price, entry.size, str(UUID(int=place)) if with_ids else entry.orders]
            for place, entry in enumerate(levels)
        ]
        for side, levels in sides.items()
    }
    return {
        **printed,
        "sequence": now_ms,
        "auction_mode": False,
        "auction": None,
        "time": iso(now_ms, "microseconds"),
    }
