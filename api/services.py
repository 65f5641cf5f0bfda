"""What the routes may use, built once per process, after the fork."""

from dataclasses import dataclass
from typing import cast

import structlog
from flask import Flask, current_app
from redis import Redis
from redis.exceptions import RedisError
from sqlalchemy import Engine

from api.batch_intake import BatchIntake
from api.batch_outlook import BatchOutlook
from api.intake import Intake
from api.outlooks import Outlooks
from api.waiting import FinalWatch
from shared.clock import Clock
from shared.database.clock import DatabaseClock
from shared.database.engine import make_engine
from shared.limits.connection import connect
from shared.limits.keys import FINAL_CHANNEL
from shared.outbound import OutboundPolicy
from shared.queues import Publisher
from shared.settings import Settings
from shared.storage import ImageStore, make_store

log = structlog.get_logger(__name__)

# A request holds a connection for about a millisecond, a held poll holds none: few serve many threads.
_POOL_SIZE = 16

_EXTENSION = "kazheng"


@dataclass(frozen=True)
class Services:
    """Everything behind the routes. Safe to share between threads."""

    settings: Settings
    engine: Engine
    store: ImageStore
    redis: Redis
    intake: Intake
    final_watch: FinalWatch
    outlooks: Outlooks
    batch_intake: BatchIntake
    batch_outlook: BatchOutlook
    clock: Clock

    def announce_final(self, job_id: str) -> None:
        """Wake whoever waits for a job that has just become final; a lost word costs them a second."""
        try:
            self.redis.publish(FINAL_CHANNEL, job_id)
        except RedisError as error:
            log.warning("announcement_failed", job_id=job_id, error=type(error).__name__)

    def close(self) -> None:
        """End the threads and the connections."""
        self.final_watch.close()
        self.redis.close()
        self.engine.dispose()


def build_services(settings: Settings, clock: Clock | None = None) -> Services:
    """Connect what the routes need; nothing is asked of the network before the first use.

    Raises:
        SettingsError: an address or the secret key is missing.
        StorageUnavailableError: the folder of images can't be made.
    """
    engine = make_engine(settings, application="kazheng-api", pool_size=min(_POOL_SIZE, settings.api_threads))
    clock = clock or DatabaseClock(engine)
    settings.require_secret_key()  # signing secrets are sealed with it
    store = make_store(settings)
    redis = connect(settings)
    intake = Intake(
        engine=engine,
        store=store,
        publisher=Publisher(settings),
        redis=redis,
        settings=settings,
        policy=OutboundPolicy.of(settings),
        clock=clock,
    )
    outlooks = Outlooks(engine, redis, settings)
    batch_intake = BatchIntake(engine=engine, store=store, settings=settings, clock=clock)
    return Services(
        settings=settings,
        engine=engine,
        store=store,
        redis=redis,
        intake=intake,
        final_watch=FinalWatch(engine, lambda: connect(settings), capacity=settings.api_poll_threads),
        outlooks=outlooks,
        batch_intake=batch_intake,
        batch_outlook=BatchOutlook(
            engine=engine, intake=batch_intake, outlooks=outlooks, settings=settings, clock=clock
        ),
        clock=clock,
    )


def install_services(extensions: dict[str, object], built: Services) -> None:
    """Put the services where the routes find them: in the extensions of the application."""
    extensions[_EXTENSION] = built


def services_of(app: Flask) -> Services:
    """The services of an application."""
    return cast(Services, app.extensions[_EXTENSION])


def services() -> Services:
    """The services of the application that serves this request."""
    return services_of(current_app)
