"""Run migrations on the connection that the caller (`db.upgrade`) hands in."""

from alembic import context
from sqlalchemy import Connection, text

from db.schema import metadata


def _migrate(connection: Connection) -> None:
    context.configure(connection=connection, target_metadata=metadata)
    with context.begin_transaction():
        connection.execute(text("SET LOCAL lock_timeout = '10s'"))
        context.run_migrations()


_migrate(context.config.attributes["connection"])
