"""How much of a quota is used, and how often the vendor refuses: Kazheng beside what people do today.

Every system reads the same picture as fast as the vendor lets it, against the same scripted sandbox, under each of four
ways in which a vendor may count, at three rates, and with a random delay of the network that the sandbox puts in. The
sandbox's counts are what is reported. Up to 10 calls a second the four windows are four accounts in one run; at 50 they
come one after the other, for two cores would not serve 200.

`make bench-quota`, or one part of it: `python -m benchmarks.quota kazheng|rivals|lanes|cost|report`. Parts add their
rows to a file (`--rows`); `report` prints the tables and draws the plots.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from benchmarks import quota_cost, quota_lanes, quota_report
from benchmarks.fleet import ENDPOINT, Fleet, make_picture, running_fleet
from benchmarks.scripted import ScriptedSandbox, running_sandbox
from benchmarks.stack import print_machine
from kazheng.stack.valkey import free_port, running_valkey
from shared.domain.quota import Quota

WINDOWS = ("sliding", "fixed", "bucket", "in_flight")
DELAYS = (0.0, 0.01, 0.08)
RIVALS = {
    "SDK, thread pool": "sdk_pool",
    "Celery rate_limit": "celery_rate_limit",
    "fixed window": "fixed_window",
}
_WARM_UP_SECONDS = 14.0
_SECONDS = {2.0: 40.0, 10.0: 30.0, 50.0: 20.0}


@dataclass(frozen=True)
class Row:
    """One system under one window, rate and delay."""

    system: str
    window: str
    qps: float
    delay: float
    used: float
    """Accepted calls as a share of the allowed ones."""
    refused: int
    accepted: int
    p50: float | None
    """Seconds from being ready for the call to sending it."""
    p95: float | None

    @property
    def of_ceiling(self) -> float:
        """Share of what a limiter can use without refusals, 1/(1+J), J being the delay put in."""
        return self.used * (1 + self.delay)

    @property
    def refused_per_1000(self) -> float:
        """Refused calls for 1 000 accepted ones."""
        return 1000 * self.refused / max(1, self.accepted)


def accounts_of(windows: Sequence[str], qps: float) -> list[dict[str, object]]:
    """An account of the sandbox for each window."""
    return [
        {"api_key": window, "secret_key": "secret", "qps": qps, "window": window, "window_phase_seconds": 0.37}
        for window in windows
    ]


def measure_kazheng(
    fleet: Fleet, sandbox: ScriptedSandbox, windows: Sequence[str], *, processes: int, qps: float, delay: float
) -> Iterator[Row]:
    """One run of running workers, warmed up."""
    seconds = _SECONDS[qps]
    sandbox.script(accounts=accounts_of(windows, qps), network_delay_seconds=[0, delay])
    quotas = {window: Quota(qps, in_flight_limit=int(qps) if window == "in_flight" else None) for window in windows}
    fleet.use_accounts(sandbox.url, quotas)
    fleet.queue(int(qps * len(windows) * (seconds + _WARM_UP_SECONDS) * 1.2) + 100)
    time.sleep(_WARM_UP_SECONDS)
    sandbox.reset()
    began, since = time.monotonic(), time.time()
    time.sleep(seconds)
    stats, took = sandbox.stats(), time.monotonic() - began
    waits = fleet.waits(since)
    yield from rows_of(f"Kazheng, {processes}", windows, stats, qps, delay, took, waits)


def rows_of(
    system: str,
    windows: Sequence[str],
    stats: dict[str, dict[str, dict[str, dict[str, object]]]],
    qps: float,
    delay: float,
    seconds: float,
    waits: Sequence[float],
) -> Iterator[Row]:
    """What the sandbox counted."""
    ordered = sorted(waits)
    p50, p95 = (ordered[int(len(ordered) * share)] if ordered else None for share in (0.5, 0.95))
    for window in windows:
        usage = json.loads(json.dumps(stats["by_account"].get(window, {}).get(ENDPOINT, {})))
        accepted, refused = usage.get("accepted", 0), usage.get("refused", {}).get("18", 0)
        yield Row(system, window, qps, delay, accepted / (qps * seconds), refused, accepted, p50, p95)


def run_kazheng(keep: "Keep") -> None:
    """All cells of Kazheng."""
    with running_sandbox() as sandbox, running_fleet(network_probe_seconds=0.1) as fleet:
        for processes in (1, 2, 8):
            with fleet.workers(processes):
                for qps in (2.0, 10.0, 50.0):
                    if processes == 8 and qps == 2:
                        continue
                    for delay in DELAYS:
                        together = [WINDOWS] if qps < 50 else [(window,) for window in WINDOWS]
                        if qps == 50 and processes != 2:
                            together = [("sliding",)] if delay == 0 else []
                        for windows in together:
                            if keep.has(f"Kazheng, {processes}", windows, qps, delay):
                                continue
                            keep(measure_kazheng(fleet, sandbox, windows, processes=processes, qps=qps, delay=delay))


def run_rivals(keep: "Keep") -> None:
    """All cells of the others."""
    with (
        tempfile.TemporaryDirectory() as folder,
        running_sandbox() as sandbox,
        running_valkey(Path(folder) / "valkey", free_port()) as redis_url,
    ):
        image = Path(folder) / "picture.jpg"
        image.write_bytes(make_picture())
        for title, module in RIVALS.items():
            for qps in (2.0, 10.0, 50.0):
                for delay in DELAYS if qps < 50 else (0.0,):
                    for windows in [WINDOWS] if qps < 50 else [(window,) for window in WINDOWS]:
                        if keep.has(title, windows, qps, delay):
                            continue
                        sandbox.script(accounts=accounts_of(windows, qps), network_delay_seconds=[0, delay])
                        keep(measure_rival(title, module, sandbox, redis_url, image, windows, qps, delay))


def measure_rival(
    title: str,
    module: str,
    sandbox: ScriptedSandbox,
    redis_url: str,
    image: Path,
    windows: Sequence[str],
    qps: float,
    delay: float,
) -> Iterator[Row]:
    """One run of a rival: a process for each window, the fixed window with two that share their counter."""
    # Celery takes its time to start, eight processes on two cores all the more.
    seconds, start_up = _SECONDS[qps] * 0.6, 16.0 if module == "celery_rate_limit" else 5.0
    command = [sys.executable, "-m", f"benchmarks.rivals.{module}", "--url", sandbox.url, "--redis", redis_url]
    command += ["--qps", str(qps), "--seconds", str(seconds + start_up + 1), "--image", str(image)]
    copies = 2 if module == "fixed_window" else 1
    running = [
        subprocess.Popen([*command, "--key", window], stdout=subprocess.PIPE, text=True)
        for window in windows
        for _ in range(copies)
    ]
    time.sleep(start_up)
    sandbox.reset()
    began = time.monotonic()
    time.sleep(seconds)
    stats, took = sandbox.stats(), time.monotonic() - began
    told = [json.loads(process.communicate(timeout=120)[0]) for process in running]
    waits = [wait for one in told for wait in one["waits"]]
    yield from rows_of(title, windows, stats, qps, delay, took, waits)


class Keep:
    """Prints rows as they come, and adds them to a file."""

    def __init__(self, path: Path) -> None:
        """Take the file; one JSON object a line."""
        self._path = path

    def has(self, system: str, windows: Sequence[str], qps: float, delay: float) -> bool:
        """Whether the file has these cells already: a run that was cut short goes on where it stopped."""
        lines = self._path.read_text().splitlines() if self._path.exists() else []
        kept = [json.loads(line) for line in lines]
        have = {(row["system"], row["window"], row["qps"], row["delay"]) for row in kept if row["table"] == "quota"}
        return all((system, window, qps, delay) in have for window in windows)

    def __call__(self, rows: Iterator[Row]) -> None:
        """Keep some rows."""
        for row in rows:
            with self._path.open("a") as file:
                file.write(json.dumps({"table": "quota", **asdict(row)}) + "\n")
            print(
                f"{row.system:20} {row.window:10} {row.qps:4.0f}/s {1000 * row.delay:3.0f} ms:"
                f" {100 * row.used:6.2f} % used, {100 * row.of_ceiling:6.2f} % of the ceiling,"
                f" {row.refused} refused of {row.accepted + row.refused}",
                flush=True,
            )


def main() -> None:
    """Run the parts that are asked for."""
    parser = argparse.ArgumentParser("benchmarks.quota")
    parser.add_argument("parts", nargs="*", default=["kazheng", "rivals", "lanes", "cost", "report"])
    parser.add_argument("--rows", type=Path, default=Path("build/quota.jsonl"))
    parser.add_argument("--plots", type=Path, default=Path("docs"))
    given = parser.parse_args()
    given.rows.parent.mkdir(parents=True, exist_ok=True)
    print_machine()
    if "kazheng" in given.parts:
        run_kazheng(Keep(given.rows))
    if "rivals" in given.parts:
        run_rivals(Keep(given.rows))
    if "lanes" in given.parts:
        quota_lanes.run(given.rows)
    if "cost" in given.parts:
        quota_cost.run(given.rows)
    if "report" in given.parts:
        quota_report.run(given.rows, given.plots)


if __name__ == "__main__":
    main()
