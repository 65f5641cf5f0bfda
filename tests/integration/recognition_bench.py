"""A recognition service on real servers before a provider that answers from a script."""

import threading
from datetime import timedelta
from typing import Any

from redis import Redis
from sqlalchemy import Engine, select

from shared.database.engine import transaction
from shared.database.jobs import Job, get_job, get_result
from shared.database.recovery import find_abandoned, take_back
from shared.database.tables import attempts
from shared.domain.retry import RetryPolicy
from shared.images import load_formats
from shared.limits import keys
from shared.limits.permits import Limiter
from shared.limits.spread import SpreadMeter
from shared.limits.tokens import TokenStore
from shared.settings import Settings
from shared.storage import ImageStore
from tests.factories import make_account, make_client, make_job
from tests.fakes import FakeClock, FakeProvider
from worker.accounts import AccountPool
from worker.decoding import ImagePreparer
from worker.fetching import ImageFetcher
from worker.in_hand import ImageHandler
from worker.leases import LeaseKeeper
from worker.recognition import RecognitionService
from worker.services import count_calls
from worker.settlement import Settlement

PREPARER = ImagePreparer(processes=1, max_pixels=10_000_000, seconds=60, memory_bytes=2_000_000_000)


class Bench:
    """A recognition service with everything around it that a test wants to see."""

    def __init__(self, settings: Settings, engine: Engine, redis: Redis, store: ImageStore) -> None:
        load_formats(settings.max_image_pixels)
        self.engine, self.redis, self.store, self.settings = engine, redis, store, settings
        self.clock = FakeClock()
        self.stopping = threading.Event()
        self.client_id, _ = make_client(engine)
        self.account_id = make_account(engine, settings, "http://provider.invalid")
        # Slots right away: a new pace is silent for a second, which is tested with the limiter.
        for endpoint in ("idcard", "bankcard"):
            redis.set(keys.pace(self.account_id, endpoint), "1")

    def service(
        self,
        provider: FakeProvider,
        redis: Redis | None = None,
        *,
        outage_hold: float = 0.5,
        cache_life: timedelta = timedelta(days=30),
    ) -> RecognitionService:
        redis = redis or self.redis
        policy = RetryPolicy(max_attempts=3)
        spread = SpreadMeter(redis, process="tests", initial_seconds=0.05, probe_seconds=0)
        self.accounts = AccountPool(self.engine, self.settings.require_secret_key(), policy=policy, clock=self.clock)
        return RecognitionService(
            engine=self.engine,
            settlement=Settlement(engine=self.engine, redis=redis, policy=policy, clock=self.clock),
            limiter=Limiter(
                redis,
                spread=spread,
                count_calls=lambda account_id, endpoint, day: count_calls(self.engine, account_id, endpoint, day),
                stopping=self.stopping,
            ),
            spread=spread,
            tokens=TokenStore(redis, self.settings.require_secret_key()),
            accounts=self.accounts,
            providers={"baidu": provider},
            images=ImageHandler(store=self.store, preparer=PREPARER, redis=redis, worker="tests"),
            fetcher=ImageFetcher(engine=self.engine, store=self.store, settings=self.settings, clock=self.clock),
            policy=policy,
            lease=timedelta(seconds=120),
            permit_wait=timedelta(seconds=5),
            worker="tests",
            stopping=self.stopping,
            clock=self.clock,
            outage_hold=timedelta(seconds=outage_hold),
            leases=LeaseKeeper(
                engine=self.engine,
                lease=timedelta(seconds=120),
                longest_task=timedelta(seconds=300),
                clock=self.clock,
            ),
            cache_life=cache_life,
        )

    def lose_worker_of(self, job_id: str) -> None:
        """Let the lease of a claimed job run out, and take it back."""
        self.clock.forward(seconds=121)
        with transaction(self.engine) as connection:
            (abandoned,) = [row for row in find_abandoned(connection, self.clock(), most=9) if row.id == job_id]
            assert take_back(connection, abandoned, self.clock(), crashed=False, poisons=False)

    def job(self, **changes: Any) -> Job:
        return make_job(self.engine, self.client_id, store=self.store, **changes)

    def read(self, job_id: str) -> Job:
        with transaction(self.engine) as connection:
            job = get_job(connection, job_id, client_id=self.client_id)
        assert job is not None
        return job

    def result(self, job_id: str) -> dict[str, Any] | None:
        with transaction(self.engine) as connection:
            return get_result(connection, job_id)

    def attempts(self, job_id: str) -> list[Any]:
        with transaction(self.engine) as connection:
            return list(
                connection.execute(select(attempts).where(attempts.c.job_id == job_id).order_by(attempts.c.number))
            )
