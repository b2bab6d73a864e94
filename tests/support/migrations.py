"""Ways back to the schema of an earlier version."""

from alembic import command
from sqlalchemy import create_engine, make_url, pool

from db.upgrade import alembic_config


def downgrade(url: str, revision: str) -> None:
    """Leave a database as that revision had it."""
    address = make_url(url).set(drivername="postgresql+psycopg")
    config = alembic_config()
    with create_engine(address, poolclass=pool.NullPool).begin() as connection:
        config.attributes["connection"] = connection
        command.downgrade(config, revision)
