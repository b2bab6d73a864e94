"""Run migrations on the caller's connection."""

from alembic import context
from sqlalchemy import Connection, create_engine, make_url, pool, text

from db.schema import metadata
from mdp_core.settings import DatabaseSettings


def _migrate(connection: Connection) -> None:
    context.configure(connection=connection, target_metadata=metadata)
    with context.begin_transaction():
        connection.execute(text("SET LOCAL lock_timeout = '10s'"))
        context.run_migrations()


def _run() -> None:
    connection: Connection | None = context.config.attributes.get("connection")
    if connection is not None:
        _migrate(connection)
        return
    url = make_url(DatabaseSettings().database_url).set(drivername="postgresql+psycopg")  # pyright: ignore[reportCallIssue]
    engine = create_engine(url, poolclass=pool.NullPool)
    with engine.connect() as own_connection:
        _migrate(own_connection)
        own_connection.commit()


_run()
