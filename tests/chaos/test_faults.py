"""Kill anything: what was accepted ends, once, with its own result; no call is made that nothing excuses."""

import threading
import time
from collections.abc import Iterator

import psutil
import pytest

from tests.chaos.cluster import Cluster, running_cluster
from tests.chaos.faults import FAULTS
from tests.chaos.observer import Observer

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]
PICTURES = 60
# A client's reference, and the bank that the sandbox reads from every card.
SECRETS = ("canary-", "样例银行")
# The others, and all at random, are for `make chaos`: a killed API, for one, leaves idempotency keys locked.
QUICK = (
    "worker_killed",
    "beat_and_sweeper_killed",
    "redis_killed",
    "postgres_crashed",
    "postgres_cut",
    "rolling_restart",
    "messages_doubled",
    "clock_jumps",
)


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with running_cluster(tmp_path_factory.mktemp("chaos"), lease_seconds=8) as running:
        yield running


@pytest.mark.parametrize("fault", QUICK)
def test_nothing_accepted_is_lost(cluster: Cluster, fault: str) -> None:
    observer = Observer(cluster, seed=list(FAULTS).index(fault) + 1)
    sending = threading.Thread(target=observer.send, args=(PICTURES,))
    sending.start()
    time.sleep(1)
    FAULTS[fault](cluster)
    healed_at = time.monotonic()
    sending.join(150)

    outcome = observer.wait(healed_at, patience=90)

    assert (outcome.accepted, outcome.lost, outcome.failed) == (PICTURES, 0, 0)
    assert (outcome.doubled_results, outcome.wrong_results, outcome.processing) == (0, 0, 0)
    assert outcome.wasted_calls <= outcome.excused_calls
    assert (outcome.untold, outcome.told_differently) == (0, 0)


def test_neither_the_broker_nor_the_process_list_names_a_person(cluster: Cluster) -> None:
    observer, seen = Observer(cluster, seed=77), ""
    sending = threading.Thread(target=observer.send, args=(PICTURES,))
    sending.start()
    while sending.is_alive():
        seen += cluster.broker_content()
        time.sleep(0.2)
    commands = "\n".join(" ".join(process.info["cmdline"] or ()) for process in psutil.process_iter(["cmdline"]))
    observer.wait(time.monotonic(), patience=60)

    assert "job_" in seen
    assert "worker0@" in commands
    keys = cluster.api_key, "sandbox-secret-key", cluster.settings.require_secret_key()
    for secret in (*SECRETS, *observer.card_numbers(), *keys):
        assert secret not in seen
        assert secret not in commands


def test_no_log_names_a_person(cluster: Cluster) -> None:
    logs = cluster.logs()

    assert "job_settled" in logs
    assert not [secret for secret in (*SECRETS, cluster.api_key) if secret in logs]
