"""What goes wrong, by name: each function breaks something under load, and mends it."""

import os
import random
import signal
import time
from collections.abc import Callable

from shared.database.engine import transaction
from shared.database.tables import jobs, stops
from shared.domain.job import JobStatus, Lane
from shared.queues import Publisher
from tests.chaos.cluster import WORKERS, Cluster
from tests.chaos.proxy import Mode


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
    """Every waiting job gets ten more messages, in any order, with some for jobs that never were."""
    publisher = Publisher(cluster.settings)
    with transaction(cluster.engine) as connection:
        waiting = connection.execute(
            jobs.select().with_only_columns(jobs.c.id, jobs.c.lane).where(jobs.c.status != JobStatus.SUCCEEDED)
        ).all()
    messages = [(row.id, row.lane) for row in waiting] + [("job_of_nobody", Lane.BULK), ("", Lane.INTERACTIVE)]
    messages *= 10
    random.Random(len(messages)).shuffle(messages)
    for job_id, lane in messages:
        publisher.publish_job(job_id, lane)


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


def tokens_refused(cluster: Cluster) -> None:
    """Error 110 to every call for 3 s, however new the token."""
    cluster.sandbox.faults({"kind": "code", "code": 110})
    time.sleep(3)
    cluster.sandbox.faults()
    # It looks like wrong keys, which the operator mends.
    with transaction(cluster.engine) as connection:
        connection.execute(stops.delete())


def vendor_hangs(cluster: Cluster) -> None:
    """No call is answered for 8 s."""
    cluster.sandbox.faults({"kind": "hang", "seconds": 8})
    time.sleep(8)
    cluster.sandbox.faults()


def redis_full(cluster: Cluster) -> None:
    """Redis refuses to store anything for 4 s (maxmemory, noeviction)."""
    cluster.redis.config_set("maxmemory", "1")
    time.sleep(4)
    cluster.redis.config_set("maxmemory", "0")


def clock_jumps(cluster: Cluster) -> None:
    """One worker's clock is an hour ahead, then an hour behind."""
    for seconds in (3600, -3600, 0):
        cluster.clock_file.write_text(str(seconds))
        time.sleep(3)


def vendor_cut(cluster: Cluster) -> None:
    """All connections to the vendor are reset, for 4 s."""
    cluster.break_link("vendor", Mode.CUT, 4)


def vendor_slow(cluster: Cluster) -> None:
    """Whatever goes to or from the vendor takes 0.1 s longer each time, for 5 s."""
    cluster.break_link("vendor", Mode.SLOW, 5)


def vendor_swallowed(cluster: Cluster) -> None:
    """Whatever is sent to the vendor vanishes, for 8 s."""
    cluster.break_link("vendor", Mode.SWALLOW, 8)


def redis_cut(cluster: Cluster) -> None:
    """A worker and the API are cut off from Redis, for 4 s."""
    cluster.break_link("redis", Mode.CUT, 4)


def redis_slow(cluster: Cluster) -> None:
    """Redis is 0.2 s away for a worker and the API, for 5 s."""
    cluster.break_link("redis", Mode.SLOW, 5)


def redis_swallowed(cluster: Cluster) -> None:
    """What a worker and the API say to Redis vanishes, for 8 s."""
    cluster.break_link("redis", Mode.SWALLOW, 8)


def postgres_cut(cluster: Cluster) -> None:
    """A worker and the API are cut off from Postgres, for longer than a lease."""
    cluster.break_link("postgres", Mode.CUT, cluster.lease_seconds + 7)


def postgres_slow(cluster: Cluster) -> None:
    """Postgres is 0.2 s away for a worker and the API, for 5 s."""
    cluster.break_link("postgres", Mode.SLOW, 5)


def postgres_swallowed(cluster: Cluster) -> None:
    """What a worker and the API say to Postgres vanishes, for longer than a lease."""
    cluster.break_link("postgres", Mode.SWALLOW, cluster.lease_seconds + 7)


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
        vendor_hangs,
        tokens_revoked,
        tokens_refused,
        redis_full,
        clock_jumps,
        vendor_cut,
        vendor_slow,
        vendor_swallowed,
        redis_cut,
        redis_slow,
        redis_swallowed,
        postgres_cut,
        postgres_slow,
        postgres_swallowed,
    )
}
