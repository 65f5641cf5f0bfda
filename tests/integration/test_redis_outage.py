"""While Redis is away nothing is called, nothing is lost, and work goes on by itself when it is back."""

import threading
from pathlib import Path

from pydantic import SecretStr
from sqlalchemy import Engine

from kazheng.stack.valkey import free_port, running_valkey
from shared.domain.job import JobStatus
from shared.limits.connection import connect
from shared.settings import Settings
from shared.storage import ImageStore
from tests.fakes import FakeProvider
from tests.integration.recognition_bench import Bench


def test_a_job_is_held_while_redis_is_away_and_called_when_it_is_back(
    settings: Settings, engine: Engine, store: ImageStore, tmp_path: Path
) -> None:
    port, provider = free_port(), FakeProvider()
    with running_valkey(tmp_path / "valkey", port, durable=False) as url:
        redis = connect(settings.model_copy(update={"redis_url": SecretStr(url)}))
        bench = Bench(settings, engine, redis, store)
        service = bench.service(provider, outage_hold=30)
        before = bench.job()
        service.run_attempt(before.id)
    held = bench.job()
    worker = threading.Thread(target=service.run_attempt, args=(held.id,))
    worker.start()
    while bench.read(held.id).status is JobStatus.QUEUED:
        pass
    called_while_away = len(provider.calls)

    # It comes back empty: its day's count is rebuilt before the call.
    with running_valkey(tmp_path / "valkey", port, durable=False):
        worker.join(60)
        counts = [int(str(redis.get(key))) for key in redis.keys("kz:*:idcard:day:*")]
        redis.close()

    assert called_while_away == 1
    assert bench.read(held.id).status is JobStatus.SUCCEEDED
    assert (len(provider.calls), counts) == (2, [2])
