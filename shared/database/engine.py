"""The engine, built once per process, after the fork."""

from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy import Connection, Engine, create_engine, text
from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from shared.domain.errors import DatabaseUnavailableError
from shared.settings import Settings


def make_engine(settings: Settings, *, application: str, pool_size: int) -> Engine:
    """An engine whose statements and waits all end.

    Args:
        application: name shown in `pg_stat_activity`.
        pool_size: connections kept open, and no more than these.
    """
    return create_engine(
        settings.require_database_url(),
        pool_size=pool_size,
        max_overflow=0,
        pool_timeout=5,
        pool_pre_ping=True,
        pool_recycle=1800,
        hide_parameters=True,  # error texts would otherwise quote fields and ids
        connect_args={
            "application_name": application,
            "connect_timeout": 5,
            # A server that vanished without a word is noticed within about 20 s instead of two hours.
            "keepalives_idle": 5,
            "keepalives_interval": 5,
            "keepalives_count": 3,
            "tcp_user_timeout": 20_000,
            "options": "-c statement_timeout=15s -c lock_timeout=5s -c idle_in_transaction_session_timeout=10s",
        },
    )


@contextmanager
def transaction(engine: Engine) -> Iterator[Connection]:
    """One transaction: committed at the end, rolled back on an error.

    Raises:
        DatabaseUnavailableError: Postgres is away, or so busy that no connection came free.
    """
    try:
        with engine.begin() as connection:
            yield connection
    except (OperationalError, InterfaceError, PoolTimeoutError) as error:
        raise DatabaseUnavailableError("The database does not answer. Try again in a few seconds.") from error
    except DBAPIError as error:
        if error.connection_invalidated:
            raise DatabaseUnavailableError("The database does not answer. Try again in a few seconds.") from error
        raise


def commit_without_waiting(connection: Connection) -> None:
    """Let this transaction's commit not wait for the disk: a server that dies at once may forget it."""
    connection.execute(text("SET LOCAL synchronous_commit = off"))
