"""Brings a database to the newest schema, and tells which one that is."""

from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory
from sqlalchemy import create_engine, make_url, pool, text

_MIGRATIONS = Path(__file__).parent / "migrations"
# Whoever upgrades holds this lock: services that start together upgrade once.
_LOCK = text("SELECT pg_advisory_xact_lock(hashtext('mdp.upgrade'))")


def upgrade(url: str) -> None:
    """Bring the database at a `postgresql://` URL to the newest schema, in one transaction."""
    engine = create_engine(
        make_url(url).set(drivername="postgresql+psycopg"), poolclass=pool.NullPool
    )
    with engine.begin() as connection:
        connection.execute(_LOCK)
        config = _config()
        config.attributes["connection"] = connection
        command.upgrade(config, "head")


def newest_revision() -> str:
    """Give the revision that the code expects."""
    head = ScriptDirectory.from_config(_config()).get_current_head()
    assert head, "there is at least one migration"  # noqa: S101
    return head


def _config() -> Config:
    config = Config()
    config.set_main_option("script_location", str(_MIGRATIONS).replace("%", "%%"))
    return config
