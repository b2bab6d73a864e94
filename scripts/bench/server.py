"""The measured server: the service, an empty route, and a plain service.

The plain one is what FastAPI's own tutorials lead to: the same table through SQLAlchemy's ORM, one
object a row, one pydantic model a candle.
"""

import os
import sys
from collections.abc import Sequence
from datetime import datetime

import uvicorn
from fastapi import FastAPI, Response
from pydantic import BaseModel, ConfigDict
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from api.app import create_app
from mdp_core.logs import log_config

EMPTY, PLAIN = "/bench/empty", "/bench/plain/candles"


class _Base(DeclarativeBase):
    pass


class _Candle(_Base):
    __tablename__ = "candles"

    series_id: Mapped[int] = mapped_column(primary_key=True)
    time: Mapped[datetime] = mapped_column(primary_key=True)
    open: Mapped[float]
    high: Mapped[float]
    low: Mapped[float]
    close: Mapped[float]
    volume: Mapped[float]


class PlainCandle(BaseModel):
    """A candle as the plain service answers it."""

    model_config = ConfigDict(from_attributes=True)

    time: datetime
    open: float
    high: float
    low: float
    close: float
    volume: float


def create_server() -> FastAPI:
    """Make the service with two routes more, behind the same check of the token."""
    app = create_app()
    url = os.environ["DATABASE_URL"].replace("postgresql://", "postgresql+psycopg://")
    sessions = async_sessionmaker(create_async_engine(url))

    @app.get(EMPTY)
    async def empty(size: int) -> Response:  # pyright: ignore[reportUnusedFunction]
        return Response(bytes(size), media_type="application/json")

    @app.get(PLAIN, response_model=list[PlainCandle])
    async def plain(  # pyright: ignore[reportUnusedFunction]
        series_id: int, start: datetime, end: datetime
    ) -> Sequence[_Candle]:
        async with sessions() as session:
            return await _read(session, series_id, start, end)

    return app


async def _read(
    session: AsyncSession, series_id: int, start: datetime, end: datetime
) -> Sequence[_Candle]:
    rows = select(_Candle).where(
        _Candle.series_id == series_id, _Candle.time >= start, _Candle.time < end
    )
    return (await session.scalars(rows.order_by(_Candle.time))).all()


def main(port: int, workers: int) -> None:
    """Serve as `mdp api` does."""
    uvicorn.run(
        "scripts.bench.server:create_server",
        factory=True,
        port=port,
        workers=workers,
        access_log=False,
        log_config=log_config("INFO", "json", is_terminal=False),
        timeout_worker_healthcheck=60,
    )


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
