"""What tasks may call, built once per process, when the first task runs (after any fork)."""

import os
import socket
import threading
from dataclasses import dataclass
from datetime import date, timedelta

from sqlalchemy import Engine

from shared.database import attempts as attempt_rows
from shared.database.clock import DatabaseClock
from shared.database.engine import make_engine, transaction
from shared.domain.retry import RetryPolicy
from shared.images import load_formats
from shared.limits.connection import connect
from shared.limits.permits import Limiter
from shared.limits.spread import SpreadMeter
from shared.limits.tokens import TokenStore
from shared.queues import Publisher
from shared.settings import Settings
from shared.storage import make_store
from worker.accounts import AccountPool
from worker.batches import BatchFollower
from worker.decoding import ImagePreparer
from worker.deliveries import Courier, DeliveryService
from worker.feeding import Feeder
from worker.fetching import ImageFetcher
from worker.in_hand import ImageHandler
from worker.leases import LeaseKeeper
from worker.providers.baidu import BaiduProvider
from worker.providers.protocol import Provider
from worker.quota_watch import QuotaWatch
from worker.recognition import RecognitionService
from worker.recovery import RecoveryService
from worker.settlement import Settlement


@dataclass(frozen=True)
class Services:
    """The use cases behind the tasks."""

    recognition: RecognitionService
    recovery: RecoveryService
    batches: BatchFollower
    leases: LeaseKeeper
    feeder: Feeder
    quotas: QuotaWatch
    deliveries: DeliveryService
    courier: Courier
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
    clock = DatabaseClock(engine)
    redis = connect(settings)
    policy = RetryPolicy(max_attempts=settings.max_attempts)
    process = f"{socket.gethostname()}:{os.getpid()}"
    spread = SpreadMeter(
        redis,
        process=process,
        initial_seconds=settings.permit_jitter_seconds,
        probe_seconds=settings.network_probe_seconds,
    )
    limiter = Limiter(
        redis,
        spread=spread,
        count_calls=lambda account_id, endpoint, day: count_calls(engine, account_id, endpoint, day),
        stopping=stopping,
        bulk_share=settings.bulk_share,
        day_offset=timedelta(hours=settings.quota_utc_offset_hours),
        call_life=timedelta(seconds=settings.permit_wait_seconds + settings.call_deadline_seconds),
        # Half of the threads are left to the other endpoints, and to calls under way.
        most_waiting=max(2, settings.worker_threads // 2),
    )
    accounts = AccountPool(
        engine, settings.require_secret_key(), order=settings.account_order, policy=policy, clock=clock
    )
    publisher = Publisher(settings)
    store = make_store(settings)
    leases = LeaseKeeper(
        engine=engine,
        lease=settings.lease,
        longest_task=timedelta(seconds=settings.longest_attempt_seconds + settings.call_deadline_seconds),
        clock=clock,
    )
    recognition = RecognitionService(
        engine=engine,
        settlement=Settlement(engine=engine, redis=redis, policy=policy, clock=clock),
        limiter=limiter,
        spread=spread,
        tokens=TokenStore(redis, settings.require_secret_key()),
        accounts=accounts,
        providers=make_providers(settings),
        images=ImageHandler(
            store=store,
            preparer=ImagePreparer(
                processes=settings.prepare_threads,
                max_pixels=settings.max_image_pixels,
                seconds=settings.prepare_seconds,
                memory_bytes=settings.prepare_memory_mb * 1_000_000,
            ),
            redis=redis,
            worker=process,
        ),
        fetcher=ImageFetcher(engine=engine, store=store, settings=settings, clock=clock),
        policy=policy,
        lease=settings.lease,
        permit_wait=timedelta(seconds=settings.permit_wait_seconds),
        worker=process,
        stopping=stopping,
        clock=clock,
        zone=settings.quota_zone,
        leases=leases,
        cache_life=timedelta(days=settings.cache_days),
    )
    recovery = RecoveryService(
        engine=engine,
        redis=redis,
        publisher=publisher,
        store=store,
        clock=clock,
        event_life=timedelta(days=settings.event_days),
    )
    feeder = Feeder(engine=engine, redis=redis, publisher=publisher, accounts=accounts, worker=process, clock=clock)
    batches = BatchFollower(engine=engine, clock=clock)
    quotas = QuotaWatch(engine=engine, clock=clock, zone=settings.quota_zone)
    deliveries = DeliveryService(engine=engine, settings=settings, clock=clock, stopping=stopping)
    courier = Courier(engine=engine, publisher=publisher, clock=clock)
    return Services(recognition, recovery, batches, leases, feeder, quotas, deliveries, courier, stopping)


def count_calls(engine: Engine, account_id: str, endpoint: str, day: date | None) -> int:
    """Calls of an account at an endpoint that use up quota, by what Postgres knows."""
    with transaction(engine) as connection:
        return attempt_rows.count_calls(connection, account_id, endpoint, day)


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
