"""Bring the tables to the shape this code expects."""

from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, Engine, text

# Held while migrating, so that several processes may start at once. Any number will do; this one spells "kazheng".
_LOCK = 0x6B617A68656E67


def _config() -> Config:
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
    return config


def upgrade(engine: Engine) -> None:
    """Run all steps not run yet. Safe to run twice and in two places at once."""
    with engine.connect() as connection:
        connection.execute(text("SET statement_timeout = 0"))
        connection.execute(text("SET idle_in_transaction_session_timeout = 0"))
        connection.execute(text("SELECT pg_advisory_lock(:lock)"), {"lock": _LOCK})
        connection.commit()
        try:
            config = _config()
            config.attributes["connection"] = connection
            command.upgrade(config, "head")
            connection.commit()
        finally:
            connection.execute(text("SELECT pg_advisory_unlock(:lock)"), {"lock": _LOCK})
            connection.commit()
            connection.invalidate()  # the session settings above must not reach the next user of the connection


def is_at_head(connection: Connection) -> bool:
    """Whether the tables have the shape this code expects."""
    return (
        MigrationContext.configure(connection).get_current_revision()
        == ScriptDirectory.from_config(_config()).get_current_head()
    )
