"""Celery's `rate_limit`, with one worker process that has all of the rate, or two that have half of it each."""

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.rivals.calling import Tally, read_arguments, threads_for

WORKERS = 2


def main() -> None:
    """Queue more than can be read, and let the workers at it until the time is over."""
    given = read_arguments()
    with tempfile.TemporaryDirectory() as folder:
        tally_file = Path(folder) / "tally"
        tally_file.touch()
        environment = {
            **os.environ,
            "RIVAL_REDIS": given.redis,
            "RIVAL_URL": given.url,
            "RIVAL_KEY": given.key,
            "RIVAL_IMAGE": str(given.image),
            "RIVAL_TALLY": str(tally_file),
            "RIVAL_RATE": f"{given.qps / WORKERS:g}/s" if given.qps >= WORKERS else f"{given.qps * 30:g}/m",
        }
        os.environ.update(environment)
        from benchmarks.rivals.celery_tasks import read_card  # noqa: PLC0415 - reads the environment when imported

        for _ in range(int(given.qps * given.seconds * 1.5) + 20):
            read_card.delay()
        celery = str(Path(sys.executable).parent / "celery")
        command = [celery, "-A", "benchmarks.rivals.celery_tasks", "worker", "-P", "threads"]
        command += ["-c", str(threads_for(given.qps)), "--without-mingle", "--without-gossip", "-Q", given.key]
        workers = [
            subprocess.Popen(
                [*command, "-n", f"{given.key}{number}@%h"],
                env=environment,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
            for number in range(WORKERS)
        ]
        time.sleep(given.seconds)
        for worker in workers:
            worker.kill()
        for worker in workers:
            worker.wait()
        tally = Tally()
        for line in tally_file.read_text().splitlines():
            tally.count(accepted=line.endswith(" 0"), waited=0.0)
        tally.waits = []
        tally.tell()


if __name__ == "__main__":
    main()
