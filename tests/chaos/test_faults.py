"""Kill anything: what was accepted ends, once, with its own result; no call is made that nothing excuses."""

import threading
import time
from collections.abc import Iterator

import pytest

from tests.chaos.cluster import Cluster, running_cluster
from tests.chaos.faults import FAULTS
from tests.chaos.observer import Observer

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]
PICTURES = 60
# The others, and all at random, are for `make chaos`: a killed API, for one, leaves idempotency keys locked.
QUICK = ("worker_killed", "redis_killed", "postgres_crashed", "rolling_restart", "messages_doubled")


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


def test_no_log_names_a_person(cluster: Cluster) -> None:
    logs = cluster.logs()

    assert "job_settled" in logs
    assert "canary-" not in logs
    assert cluster.api_key not in logs
    assert "样例银行" not in logs
