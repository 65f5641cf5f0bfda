"""Kazheng's own workers before the scripted sandbox: as many processes as asked for, on embedded servers."""

import hashlib
import io
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil
from cryptography.fernet import Fernet
from PIL import Image
from redis import Redis
from sqlalchemy import Engine, text

from kazheng.stack.postgres import running_postgres
from kazheng.stack.valkey import free_port, running_valkey
from shared.clock import utc_now
from shared.database.accounts import save_account, set_quota
from shared.database.clients import create_key, find_client
from shared.database.engine import make_engine, transaction
from shared.database.migrate import upgrade
from shared.domain.documents import DOCUMENT_TYPES
from shared.domain.errors import DatabaseUnavailableError
from shared.domain.quota import Billing, Quota
from shared.limits.connection import connect
from shared.settings import Settings
from shared.storage import make_store

ENDPOINT = "bankcard"
_QUEUED = text(
    "INSERT INTO jobs (id, client_id, document_type, endpoint, options, lane, status, waiting_on, image_key,"
    " image_sha256, image_bytes, image_format, image_width, image_height, cache, created_at)"
    " SELECT :prefix || lpad(n::text, 20, '0'), :client_id, 'bank_card', 'bankcard', CAST(:options AS jsonb), :lane,"
    " 'queued', 'worker',"
    " :key, :sha256, :size, 'JPEG', 800, 500, false, now() FROM generate_series(1, :jobs) AS n"
)


@dataclass(frozen=True)
class Fleet:
    """Servers, and the means to queue jobs and start workers."""

    settings: Settings
    engine: Engine
    redis: Redis
    client_id: str
    image: bytes
    environment: Mapping[str, str]
    folder: Path

    def use_accounts(self, url: str, quotas: Mapping[str, Quota]) -> None:
        """These accounts, by API key, and no others; all that Redis knew is forgotten."""
        self._empty()
        with transaction(self.engine) as connection:
            for key, quota in quotas.items():
                save_account(
                    connection,
                    name=key,
                    provider="baidu",
                    base_url=url,
                    api_key=key,
                    secret="secret",
                    default_qps=quota.qps,
                    billing=Billing.FREE,
                    secret_key=self.settings.require_secret_key(),
                )
                set_quota(connection, key, ENDPOINT, quota)
        self.redis.flushall()

    def _empty(self) -> None:
        """Empty the tables; workers that run may hold locks on them, in another order."""
        for attempt in range(10):
            try:
                with transaction(self.engine) as connection:
                    connection.execute(text("TRUNCATE accounts, jobs, attempts, results, stops, events CASCADE"))
                return
            except DatabaseUnavailableError:
                if attempt == 9:
                    raise
                time.sleep(0.5)

    def queue(self, jobs: int, lane: str = "bulk") -> None:
        """Queue jobs for the benchmark's picture."""
        self._insert(lane, f"job_{utc_now():%H%M%S%f}", jobs)

    def queue_one(self, lane: str) -> str:
        """Queue one job; its id."""
        prefix = f"job_{uuid.uuid4().hex[:16]}"
        self._insert(lane, prefix, 1)
        return f"{prefix}{1:020d}"

    def _insert(self, lane: str, prefix: str, jobs: int) -> None:
        store, key = make_store(self.settings), "bench/picture"
        store.put(key, self.image)
        with transaction(self.engine) as connection:
            connection.execute(
                _QUEUED,
                {
                    "prefix": prefix,
                    "client_id": self.client_id,
                    "options": json.dumps(DOCUMENT_TYPES["bank_card"].validate_options({})),
                    "lane": lane,
                    "key": key,
                    "sha256": hashlib.sha256(self.image).hexdigest(),
                    "size": len(self.image),
                    "jobs": jobs,
                },
            )

    @contextmanager
    def workers(self, processes: int, *, queue: str = "bulk", threads: int = 32) -> Iterator[list[psutil.Process]]:
        """So many worker processes, for the length of a `with` block."""
        celery = str(Path(sys.executable).parent / "celery")
        started = []
        for number in range(processes):
            log = (self.folder / f"{queue}{number}.log").open("wb")
            command = [celery, "-A", "worker.main", "worker", "-P", "threads", "-c", str(threads), "-Q", queue]
            command += ["-n", f"{queue}{number}@%h", "--without-mingle", "--without-gossip", "--without-heartbeat"]
            started.append(
                subprocess.Popen(command, env=self.environment, stdout=log, stderr=log, start_new_session=True)
            )
        try:
            yield [psutil.Process(process.pid) for process in started]
        finally:
            for process in started:
                process.send_signal(signal.SIGTERM)
            for process in started:
                try:
                    process.wait(60)
                except subprocess.TimeoutExpired:
                    process.kill()

    def finished(self) -> int:
        """Jobs that have succeeded."""
        with transaction(self.engine) as connection:
            return int(connection.execute(text("SELECT count(*) FROM jobs WHERE status = 'succeeded'")).scalar_one())

    def waits(self, since: float, lane: str = "bulk") -> list[float]:
        """Seconds from asking for a permit to sending the call, of calls begun since a moment."""
        statement = text(
            "SELECT attempts.throttle_ms FROM attempts JOIN jobs ON jobs.id = attempts.job_id"
            " WHERE lane = :lane AND extract(epoch FROM attempts.started_at) >= :since"
        )
        with transaction(self.engine) as connection:
            return [wait / 1000 for wait in connection.execute(statement, {"lane": lane, "since": since}).scalars()]

    def waits_from_acceptance(self, since: float, lane: str) -> list[float]:
        """Seconds from the job's row to its call being sent, of jobs accepted since a moment."""
        statement = text(
            "SELECT extract(epoch FROM attempts.started_at - jobs.created_at) FROM attempts"
            " JOIN jobs ON jobs.id = attempts.job_id WHERE lane = :lane AND outcome IS NOT NULL"
            " AND extract(epoch FROM jobs.created_at) >= :since"
        )
        with transaction(self.engine) as connection:
            return [float(wait) for wait in connection.execute(statement, {"lane": lane, "since": since}).scalars()]


def make_picture(size_bytes: int = 45_000) -> bytes:
    """A JPEG of about this size, without content."""
    noise = Image.effect_noise((800, 500), 60)
    buffer = io.BytesIO()
    for quality in range(20, 96, 3):
        buffer.seek(0)
        buffer.truncate()
        noise.convert("RGB").save(buffer, "JPEG", quality=quality)
        if buffer.tell() >= size_bytes:
            break
    return buffer.getvalue()


@contextmanager
def running_fleet(**changes: object) -> Iterator[Fleet]:
    """Servers and tables, without workers yet.

    Args:
        changes: settings in lower case, without `KAZHENG_`.
    """
    with (
        tempfile.TemporaryDirectory(prefix="kazheng-bench-") as name,
        running_postgres(Path(name) / "postgres", free_port()) as database_url,
        running_valkey(Path(name) / "valkey", free_port()) as redis_url,
    ):
        folder = Path(name)
        given = {
            "home": folder / "home",
            "database_url": database_url,
            "redis_url": redis_url,
            "secret_key": Fernet.generate_key().decode(),
            "log_level": "WARNING",
            "task_events": False,
            **changes,
        }
        environment = {**os.environ, **{f"KAZHENG_{name.upper()}": str(value) for name, value in given.items()}}
        settings = Settings(**given)  # type: ignore[arg-type]
        engine = make_engine(settings, application="benchmark", pool_size=2)
        upgrade(engine)
        with transaction(engine) as connection:
            client_id = find_client(connection, create_key(connection, client="bench", name="bench"))
        redis = connect(settings)
        try:
            yield Fleet(settings, engine, redis, client_id or "", make_picture(), environment, folder)
        finally:
            redis.close()
            engine.dispose()


def cpu_seconds(processes: list[psutil.Process]) -> float:
    """User and system time of processes so far."""
    return sum(sum(process.cpu_times()[:2]) for process in processes)


def wait_until(condition: object, seconds: float = 60) -> None:
    """Wait for something to become true.

    Raises:
        TimeoutError: it did not.
    """
    end = time.monotonic() + seconds
    while not condition():  # type: ignore[operator]
        if time.monotonic() > end:
            raise TimeoutError
        time.sleep(0.05)
