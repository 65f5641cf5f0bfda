"""What one job costs in the worker when the upstream answers at once: beside Celery alone, and beside no durability."""

import json
import os
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import psutil
from redis import Redis
from sqlalchemy import event

from benchmarks.fleet import Fleet, cpu_seconds, running_fleet, wait_until
from benchmarks.scripted import ScriptedSandbox, running_sandbox
from shared.domain.job import Lane
from shared.domain.quota import Quota
from worker.services import build_services

JOBS = 1_500
_UNLIMITED = 1_000.0


def run(rows: Path) -> None:
    """Measure all three."""
    with running_sandbox() as sandbox, running_fleet(permit_jitter_seconds=0.0, network_probe_seconds=0) as fleet:
        for measured in (
            _kazheng(fleet, sandbox),
            _celery(fleet, sandbox, "empty"),
            _celery(fleet, sandbox, "call"),
        ):
            with rows.open("a") as file:
                file.write(json.dumps({"table": "cost", **measured}) + "\n")
            print(measured, flush=True)


def _kazheng(fleet: Fleet, sandbox: ScriptedSandbox) -> dict[str, object]:
    account = {"api_key": "bench", "secret_key": "secret", "qps": 10_000, "window": "sliding"}
    sandbox.script(accounts=[account], latency={"median_seconds": 0, "p95_seconds": 0})
    fleet.use_accounts(sandbox.url, {"bench": Quota(_UNLIMITED)})
    with fleet.workers(1) as processes:
        fleet.queue(100)
        wait_until(lambda: fleet.finished() == 100)
        commands = _commands(fleet.redis)
        began, cpu = time.monotonic(), cpu_seconds(processes)
        fleet.queue(JOBS)
        wait_until(lambda: fleet.finished() == 100 + JOBS, 180)
        took, used = time.monotonic() - began, cpu_seconds(processes) - cpu
        commands = _commands(fleet.redis) - commands
    return {
        "system": "Kazheng",
        "cpu_ms": 1000 * used / JOBS,
        "redis_commands": commands / JOBS,
        "postgres_round_trips": _round_trips(fleet, sandbox),
        "jobs_per_second": JOBS / took,
        "jobs_per_core": JOBS / used,
    }


def _round_trips(fleet: Fleet, sandbox: ScriptedSandbox) -> float:
    """Statements of one job, with a BEGIN and a COMMIT for each transaction and the ping of each connection taken."""
    counted, jobs = Counter[str](), 50
    services = build_services(fleet.settings)
    engine = services.recognition._engine
    for name in ("before_cursor_execute", "begin", "commit"):
        event.listen(engine, name, lambda *_, name=name: counted.update([name]))
    event.listen(engine, "checkout", lambda *_: counted.update(["ping"]))
    fleet.use_accounts(sandbox.url, {"bench": Quota(_UNLIMITED)})
    ids = [fleet.queue_one(Lane.BULK) for _ in range(jobs + 1)]
    services.recognition.run_attempt(ids[0])
    counted.clear()
    for job_id in ids[1:]:
        services.recognition.run_attempt(job_id)
    engine.dispose()
    return counted.total() / jobs


def _commands(redis: Redis) -> float:
    return float(redis.info("stats")["total_commands_processed"])


def _celery(fleet: Fleet, sandbox: ScriptedSandbox, kind: str) -> dict[str, object]:
    account = {"api_key": "bench", "secret_key": "secret", "qps": 10_000, "window": "sliding"}
    sandbox.script(accounts=[account], latency={"median_seconds": 0, "p95_seconds": 0})
    image = fleet.folder / "picture.jpg"
    image.write_bytes(fleet.image)
    environment = {
        **os.environ,
        "PLAIN_REDIS": fleet.settings.require_redis_url(),
        "PLAIN_URL": sandbox.url,
        "PLAIN_IMAGE": str(image),
    }
    os.environ.update(environment)
    from benchmarks import plain_tasks  # noqa: PLC0415 - reads the environment when imported

    fleet.redis.flushall()
    task = {"empty": plain_tasks.do_nothing, "call": plain_tasks.call}[kind]
    command = [str(Path(sys.executable).parent / "celery"), "-A", "benchmarks.plain_tasks", "worker", "-P", "threads"]
    command += ["-c", "32", "--without-mingle", "--without-gossip", "--without-heartbeat", "-Q", "plain"]
    worker = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        for _ in range(100):
            task.delay()
        wait_until(lambda: int(str(fleet.redis.get("plain:done") or 0)) == 100)
        process, commands = psutil.Process(worker.pid), _commands(fleet.redis)
        for _ in range(JOBS):
            task.delay()
        began, cpu, done = time.monotonic(), cpu_seconds([process]), int(str(fleet.redis.get("plain:done")))
        wait_until(lambda: int(str(fleet.redis.get("plain:done"))) == 100 + JOBS, 180)
        commands, left = _commands(fleet.redis) - commands, 100 + JOBS - done
        took, used = time.monotonic() - began, cpu_seconds([process]) - cpu
    finally:
        worker.kill()
        worker.wait()
    return {
        "system": {"empty": "Celery, empty task", "call": "Celery + requests"}[kind],
        "cpu_ms": 1000 * used / left,
        "redis_commands": commands / JOBS,
        "postgres_round_trips": 0.0,
        "jobs_per_second": left / took,
        "jobs_per_core": left / used,
    }
