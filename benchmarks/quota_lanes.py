"""How long a person waits while 20 000 bulk jobs stand in line, and what bulk still gets."""

import json
import random
import time
from pathlib import Path

from benchmarks.fleet import ENDPOINT, Fleet, running_fleet
from benchmarks.scripted import ScriptedSandbox, running_sandbox
from shared.domain.job import Lane
from shared.domain.quota import Quota
from shared.queues import Publisher

BACKLOG = 20_000
_WARM_UP_SECONDS = 14.0
_SECONDS = {2.0: 60.0, 10.0: 40.0, 50.0: 25.0}
_ALONE_SHARE = 1 / 3
_PEOPLE_SHARE = 0.2
"""Share of the rate at which people come, at random times."""


def run(rows: Path) -> None:
    """Measure at three rates, and under a flood of people."""
    with (
        running_sandbox() as sandbox,
        running_fleet(network_probe_seconds=0.1) as fleet,
        fleet.workers(1, queue="bulk", threads=64),
        fleet.workers(1, queue="interactive", threads=64),
    ):
        for qps in (2.0, 10.0, 50.0):
            _keep(rows, _measure(fleet, sandbox, qps, people_share=_ALONE_SHARE, alone=True))
            _keep(rows, _measure(fleet, sandbox, qps, people_share=_PEOPLE_SHARE))
        _keep(rows, _measure(fleet, sandbox, 10.0, people_share=1.5))


def _measure(
    fleet: Fleet, sandbox: ScriptedSandbox, qps: float, *, people_share: float, alone: bool = False
) -> dict[str, object]:
    """One run. `alone`: people come one at a time, two to four slots apart, and never wait for each other."""
    account = {"api_key": "bench", "secret_key": "secret", "qps": qps, "window": "sliding"}
    sandbox.script(accounts=[account])
    fleet.use_accounts(sandbox.url, {"bench": Quota(qps)})
    fleet.queue(BACKLOG)
    time.sleep(_WARM_UP_SECONDS)
    publisher = Publisher(fleet.settings)
    sandbox.reset()
    began, since, coming = time.monotonic(), time.time(), random.Random(1)
    next_at = began
    while time.monotonic() - began < _SECONDS[qps]:
        next_at += coming.uniform(2, 4) / qps if alone else coming.expovariate(qps * people_share)
        time.sleep(max(0.0, next_at - time.monotonic()))
        job_id = fleet.queue_one(Lane.INTERACTIVE)
        publisher.publish_job(job_id, Lane.INTERACTIVE)
    took = time.monotonic() - began
    accepted = sandbox.stats()["by_account"]["bench"][ENDPOINT]["accepted"]
    bulk = len(fleet.waits(since, "bulk"))
    time.sleep(5)
    waits = sorted(fleet.waits_from_acceptance(since, "interactive"))
    refused = sandbox.stats()["by_account"]["bench"][ENDPOINT]["refused"]
    return {
        "table": "lanes",
        "qps": qps,
        "people_share": people_share,
        "alone": alone,
        "people": len(waits),
        "p50": _at(waits, 0.5),
        "p95": _at(waits, 0.95),
        "p99": _at(waits, 0.99),
        "aim": 1.5 / qps + 0.05,
        "bulk_per_second": bulk / took,
        "used": accepted / (qps * took),
        "refused": refused,
        "waits": waits,
    }


def _at(ordered: list[float], share: float) -> float | None:
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))] if ordered else None


def _keep(rows: Path, row: dict[str, object]) -> None:
    with rows.open("a") as file:
        file.write(json.dumps(row) + "\n")
    print({name: value for name, value in row.items() if name != "waits"}, flush=True)
