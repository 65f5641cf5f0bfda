"""`make chaos`: every fault under load, then all at random; prints the table of docs/reliability.md."""

import argparse
import random
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from tests.chaos.cluster import Cluster, running_cluster
from tests.chaos.faults import FAULTS
from tests.chaos.observer import Observer, Outcome

_HEADER = (
    "| fault | accepted | lost | failed | doubled results | wrong results | vendor calls beyond one a job"
    " | of these excused by the record | calls over quota | ends untold | told under two ids | told again"
    " | time to recover, s |\n"
    "| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |"
)


def main() -> None:
    """Run the suite."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("--seed", type=int, default=1, help="the same seed breaks the same things in the same order")
    parser.add_argument("--only", nargs="*", choices=FAULTS, metavar="FAULT", help="these single faults; default: all")
    parser.add_argument("--pictures", type=int, default=200, help="pictures sent during each single fault")
    parser.add_argument("--lease-seconds", type=int, default=15, help="leases, as KAZHENG_LEASE_SECONDS")
    parser.add_argument("--minutes", type=float, default=10.0, help="length of the random part")
    parser.add_argument("--random-pictures", type=int, default=5000, help="pictures sent during it")
    given = parser.parse_args()
    _say(_HEADER)
    with (
        tempfile.TemporaryDirectory(prefix="kazheng-chaos-") as name,
        running_cluster(Path(name), lease_seconds=given.lease_seconds) as cluster,
    ):
        for number, (title, fault) in enumerate(FAULTS.items()):
            if given.only is not None and title not in given.only:
                continue
            observer = Observer(cluster, seed=given.seed * 100 + number)
            sending = threading.Thread(target=observer.send, args=(given.pictures,))
            sending.start()
            time.sleep(2)
            fault(cluster)
            healed_at = time.monotonic()
            sending.join()
            _tell(f"{title.replace('_', ' ')}: {fault.__doc__}", observer.wait(healed_at, patience=180))
        if given.minutes:
            _tell(f"all at random, seed {given.seed}", _run_at_random(cluster, given))


def _run_at_random(cluster: Cluster, given: argparse.Namespace) -> Outcome:
    dice = random.Random(given.seed)
    observer = Observer(cluster, seed=given.seed * 100 + 99)
    over = {"over_seconds": given.minutes * 60}
    sending = threading.Thread(target=observer.send, args=(given.random_pictures,), kwargs=over)
    sending.start()
    for pause, title in _plan(dice):
        if observer.elapsed > given.minutes * 60:
            break
        time.sleep(pause)
        _say(f"<!-- {observer.elapsed:4.0f} s: {title} -->")
        FAULTS[title](cluster)
        cluster.revive()
    healed_at = time.monotonic()
    sending.join()
    return observer.wait(healed_at, patience=600)


def _plan(dice: random.Random) -> Iterator[tuple[float, str]]:
    while True:
        yield dice.uniform(1, 10), dice.choice(list(FAULTS))


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def _tell(title: str, outcome: Outcome) -> None:
    figures = (outcome.accepted, outcome.lost, outcome.failed, outcome.doubled_results, outcome.wrong_results)
    calls = (outcome.wasted_calls, outcome.excused_calls, outcome.over_quota)
    told = (outcome.untold, outcome.told_differently, outcome.told_again)
    cells = " | ".join(str(figure) for figure in (*figures, *calls, *told))
    _say(f"| {title} | {cells} | {outcome.seconds:.1f} |")


if __name__ == "__main__":
    main()
