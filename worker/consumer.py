"""Celery's consumer, quicker to find its broker again."""

from typing import Any

from celery.worker.consumer import Consumer
from celery.worker.state import maybe_shutdown

_RETRY_SECONDS = 0.5


class PromptConsumer(Consumer):
    """Tries a broker that went away twice a second; Celery's own waits longer each time, up to half a minute.

    There is no setting for it: `Connection.ensure_connection` takes the wait as arguments, and Celery passes none.
    """

    def ensure_connected(self, conn: Any) -> Any:
        """Wait for the broker by asking often, then do as Celery does."""
        if not self.first_connection_attempt:
            conn.ensure_connection(
                interval_start=_RETRY_SECONDS,
                interval_step=0,
                interval_max=_RETRY_SECONDS,
                callback=maybe_shutdown,
            )
        return super().ensure_connected(conn)
