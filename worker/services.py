"""What tasks may call, built once per process, when the first task runs (after any fork)."""

import socket
import threading
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta

from sqlalchemy import Engine, func, select

from shared.clock import utc_now
from shared.database.engine import make_engine, transaction
from shared.database.tables import attempts
from shared.domain.quota import SHANGHAI
from shared.domain.retry import RetryPolicy
from shared.images import load_formats
from shared.limits.connection import connect
from shared.limits.permits import Limiter
from shared.limits.tokens import TokenStore
from shared.queues import Publisher
from shared.settings import Settings
from shared.storage import make_store
from worker.accounts import AccountPool
from worker.prepare import ImagePreparer
from worker.providers.baidu import BaiduProvider
from worker.providers.protocol import Provider
from worker.recognition import RecognitionService
from worker.recovery import RecoveryService
from worker.settlement import Settlement


@dataclass(frozen=True)
class Services:
    """The use cases behind the tasks."""

    recognition: RecognitionService
    recovery: RecoveryService
    stopping: threading.Event


def make_providers(settings: Settings) -> dict[str, Provider]:
    """The registry: one line a vendor."""
    return {
        "baidu": BaiduProvider(
            connect_timeout=settings.connect_timeout_seconds,
            read_timeout=settings.read_timeout_seconds,
            deadline=settings.call_deadline_seconds,
        ),
    }


def build_services(settings: Settings) -> Services:
    """Connect what the tasks need; nothing is asked of the network before the first use."""
    load_formats(settings.max_image_pixels)
    stopping = threading.Event()
    # A thread holds a connection for milliseconds only: far fewer are needed than there are threads.
    engine = make_engine(settings, application="kazheng-worker", pool_size=min(10, settings.worker_threads))
    redis = connect(settings)
    policy = RetryPolicy(max_attempts=settings.max_attempts)
    limiter = Limiter(
        redis,
        jitter_seconds=settings.permit_jitter_seconds,
        count_calls=lambda account_id, endpoint, day: count_calls(engine, account_id, endpoint, day),
        stopping=stopping,
    )
    recognition = RecognitionService(
        engine=engine,
        store=make_store(settings),
        settlement=Settlement(engine=engine, redis=redis, policy=policy, clock=utc_now),
        limiter=limiter,
        tokens=TokenStore(redis, settings.require_secret_key()),
        accounts=AccountPool(engine, settings.require_secret_key()),
        providers=make_providers(settings),
        preparer=ImagePreparer(settings.prepare_threads, settings.max_image_pixels),
        policy=policy,
        lease=settings.lease,
        permit_wait=timedelta(seconds=settings.permit_wait_seconds),
        worker=socket.gethostname(),
        clock=utc_now,
    )
    recovery = RecoveryService(
        engine=engine, redis=redis, publisher=Publisher(settings), window=4 * settings.worker_threads, clock=utc_now
    )
    return Services(recognition, recovery, stopping)


def count_calls(engine: Engine, account_id: str, endpoint: str, day: date) -> int:
    """Calls that an account made at an endpoint on a provider's day, by what Postgres knows."""
    begin = datetime.combine(day, time.min, SHANGHAI)
    statement = select(func.count()).where(
        attempts.c.account_id == account_id,
        attempts.c.endpoint == endpoint,
        attempts.c.started_at >= begin,
        attempts.c.started_at < begin + timedelta(days=1),
    )
    with transaction(engine) as connection:
        return connection.execute(statement).scalar_one()


class _Holder:
    """The services of this process, built by the first task that asks for them."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._settings: Settings | None = None
        self._services: Services | None = None

    def install(self, settings: Settings) -> None:
        self._settings = settings

    def get(self) -> Services:
        with self._lock:
            if self._services is None:
                if self._settings is None:
                    raise RuntimeError("install_services was not called")
                self._services = build_services(self._settings)
            return self._services


_holder = _Holder()


def install_services(settings: Settings) -> None:
    """Say with which settings this process builds its services."""
    _holder.install(settings)


def services() -> Services:
    """The services of this process."""
    return _holder.get()
