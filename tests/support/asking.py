"""Ask the candle service by names, as the API does."""

from mdp_core.domain.queries import Answer, CandleQuery
from mdp_core.ratelimit.context import RequestContext
from mdp_core.wiring import Services


async def answer_to(
    services: Services, query: CandleQuery, context: RequestContext | None = None
) -> Answer:
    """Return the answer to a query, at interactive priority unless a context is given."""
    context = context or services.candles.interactive()
    series = await services.candles.resolve(query, context)
    return await services.candles.get(series, query, context)
