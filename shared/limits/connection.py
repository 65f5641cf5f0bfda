"""The Redis client of limits and tokens."""

from redis import Redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from shared.settings import Settings


def connect(settings: Settings) -> Redis:
    """A client that answers or fails within a second, and sends every command once.

    redis-py 8 repeats a timed-out command up to ten times by default: a booking whose answer got lost would book
    eleven slots.
    """
    return Redis.from_url(
        settings.require_redis_url(),
        socket_timeout=1.0,
        socket_connect_timeout=1.0,
        socket_keepalive=True,
        health_check_interval=5,
        retry=Retry(NoBackoff(), 0),
        decode_responses=True,
    )
