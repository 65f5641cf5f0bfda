"""Celery's way to Redis, mended where it does not outlast an outage (kombu 5.7).

When the connection is lost while messages are in hand, kombu closes its channel, forgets whom the channel belonged to,
and then tries to put the messages back over it. What comes of that is an AttributeError, which Celery takes for the
end of the worker. Here it is the lost connection that it is: the messages come back by themselves.

A Redis that refuses to write (it is full, or has become a replica) ends a worker too, for kombu takes that for our
mistake. Here it is an outage.
"""

from typing import Any

from kombu.transport import TRANSPORT_ALIASES, redis
from redis.exceptions import ConnectionError as LostConnectionError
from redis.exceptions import OutOfMemoryError, ReadOnlyError


class Channel(redis.Channel):
    """Says that it is closed, when it is."""

    def _connparams(self, *args: Any, **kwargs: Any) -> Any:
        if self.connection.client is None:
            raise LostConnectionError("the channel is closed")
        return super()._connparams(*args, **kwargs)  # type: ignore[misc]


class Transport(redis.Transport):
    """Redis, with such channels."""

    Channel = Channel
    connection_errors = (*redis.Transport.connection_errors, OutOfMemoryError, ReadOnlyError)


def use_patient_transport() -> None:
    """Let all `redis://` addresses of this process be reached this way."""
    TRANSPORT_ALIASES["redis"] = f"{__name__}:Transport"
    TRANSPORT_ALIASES["rediss"] = f"{__name__}:Transport"
