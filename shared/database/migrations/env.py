"""Entry of Alembic: run the steps on the connection handed over in the configuration."""

from alembic import context

from shared.database.tables import metadata

context.configure(
    connection=context.config.attributes["connection"], target_metadata=metadata, transaction_per_migration=True
)
with context.begin_transaction():
    context.run_migrations()
