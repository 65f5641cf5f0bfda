"""What goes wrong, by name: each function breaks something under load, and mends it."""

import os
import signal
import time
from collections.abc import Callable

from shared.database.engine import transaction
from shared.database.tables import jobs
from shared.domain.job import JobStatus
from shared.queues import Publisher
from tests.chaos.cluster import WORKERS, Cluster


def worker_killed(cluster: Cluster) -> None:
    """kill -9 of a worker in the middle of its calls."""
    cluster.restart("worker0")


def all_workers_killed(cluster: Cluster) -> None:
    """kill -9 of all workers at once."""
    for name in WORKERS:
        cluster.end(name)
    cluster.start(*WORKERS)


def worker_frozen(cluster: Cluster) -> None:
    """A worker stopped (SIGSTOP) for longer than its lease, and woken up again."""
    group = cluster._processes["worker0"].pid
    os.killpg(group, signal.SIGSTOP)
    time.sleep(cluster.lease_seconds + 7)
    os.killpg(group, signal.SIGCONT)


def api_killed(cluster: Cluster) -> None:
    """kill -9 of the API in the middle of uploads."""
    cluster.restart("api", away_seconds=1)


def beat_and_sweeper_killed(cluster: Cluster) -> None:
    """kill -9 of beat and of the maintenance worker, then of a worker."""
    cluster.end("beat")
    cluster.end("maintenance")
    cluster.restart("worker1")
    time.sleep(3)
    cluster.start("maintenance", "beat")


def redis_flushed(cluster: Cluster) -> None:
    """FLUSHALL."""
    cluster.redis.flushall()


def redis_killed(cluster: Cluster) -> None:
    """kill -9 of Valkey, which comes back empty after 3 s."""
    cluster.restart("valkey", away_seconds=3)


def postgres_crashed(cluster: Cluster) -> None:
    """PostgreSQL shut down in immediate mode (its kill -9), back after 3 s."""
    cluster.restart("postgres", signal.SIGQUIT, away_seconds=3)


def rolling_restart(cluster: Cluster) -> None:
    """SIGTERM and start of one process after the other."""
    for name in (*WORKERS, "maintenance", "api"):
        cluster.restart(name, signal.SIGTERM)


def messages_doubled(cluster: Cluster) -> None:
    """Every waiting job gets ten more messages."""
    publisher = Publisher(cluster.settings)
    with transaction(cluster.engine) as connection:
        waiting = connection.execute(
            jobs.select().with_only_columns(jobs.c.id, jobs.c.lane).where(jobs.c.status != JobStatus.SUCCEEDED)
        ).all()
    for row in waiting:
        for _ in range(10):
            publisher.publish_job(row.id, row.lane)


def vendor_stumbles(cluster: Cluster) -> None:
    """A gateway's pages, garbage, half bodies, cuts and empty answers, a third of the calls for 4 s."""
    kinds = ("html_502", "garbage", "half_body", "cut_after", "empty", "cut")
    cluster.sandbox.faults(*({"kind": kind, "share": 0.06} for kind in kinds))
    time.sleep(4)
    cluster.sandbox.faults()


def vendor_refuses(cluster: Cluster) -> None:
    """Error 18 to every call for 3 s, whatever the pace."""
    cluster.sandbox.faults({"kind": "code", "code": 18})
    time.sleep(3)
    cluster.sandbox.faults()


def tokens_revoked(cluster: Cluster) -> None:
    """All access tokens become invalid."""
    cluster.sandbox.faults({"kind": "revoke_tokens"})
    time.sleep(2)
    cluster.sandbox.faults()


FAULTS: dict[str, Callable[[Cluster], None]] = {
    fault.__name__: fault
    for fault in (
        worker_killed,
        all_workers_killed,
        worker_frozen,
        api_killed,
        beat_and_sweeper_killed,
        redis_flushed,
        redis_killed,
        postgres_crashed,
        rolling_restart,
        messages_doubled,
        vendor_stumbles,
        vendor_refuses,
        tokens_revoked,
    )
}
