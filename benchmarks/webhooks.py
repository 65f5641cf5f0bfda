"""Deliveries: how many a second a worker process makes, how soon they come, and whether bad receivers are felt."""

import os
import random
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import httpx
import psutil
import requests
from sqlalchemy import text

from benchmarks.fleet import Fleet, cpu_seconds, running_fleet, wait_until
from benchmarks.stack import print_machine
from kazheng.stack.valkey import free_port
from shared.clock import utc_now
from shared.database.endpoints import ensure_secret, insert_endpoint
from shared.database.engine import transaction
from shared.database.events import record_event
from shared.domain.webhook import EventType, Payload
from shared.ids import new_id

_BURST = 5_000
_RATE = 50.0
_SECONDS = 20.0
_BAD = ("hangs", "drips", "fails", "slow", "closed")


@contextmanager
def _receivers() -> Iterator[str]:
    port = free_port()
    process = subprocess.Popen([sys.executable, "-m", "benchmarks.webhook_receiver", str(port)])
    url = f"http://127.0.0.1:{port}"
    try:
        wait_until(lambda: _answers(url))
        yield url
    finally:
        process.kill()
        process.wait()


def _answers(url: str) -> bool:
    try:
        return httpx.get(f"{url}/seen").is_success
    except httpx.HTTPError:
        return False


def _empty(fleet: Fleet) -> None:
    with transaction(fleet.engine) as connection:
        connection.execute(text("DELETE FROM deliveries"))
        connection.execute(text("DELETE FROM events"))
        connection.execute(text("DELETE FROM webhook_endpoints"))
        connection.execute(text("DELETE FROM webhook_secrets"))


def _register(fleet: Fleet, urls: Sequence[str]) -> list[str]:
    """A client with one endpoint for each address; the clients' ids."""
    clients = [new_id("cli") for _ in urls]
    with transaction(fleet.engine) as connection:
        for client_id, url in zip(clients, urls, strict=True):
            connection.execute(text("INSERT INTO clients (id, name) VALUES (:id, :id)"), {"id": client_id})
            endpoint = insert_endpoint(connection, client_id, utc_now(), url=url, payload=Payload.THIN)
            ensure_secret(connection, endpoint.id, fleet.settings.require_secret_key())
    return clients


def _settle(fleet: Fleet, clients: Sequence[str]) -> list[tuple[str, float]]:
    """What a settlement writes, one event for each of these clients, in one transaction; ids and the commit's time."""
    ids = []
    with transaction(fleet.engine) as connection:
        for client_id in clients:
            data = {"job_id": new_id("job"), "status": "succeeded", "document_type": "id_card"}
            ids.append(record_event(connection, EventType.JOB_SUCCEEDED, data, utc_now(), client_id=client_id))
    at = time.time()
    return [(event_id, at) for event_id in ids]


def _arrivals(url: str, wanted: set[str], seconds: float) -> dict[str, float]:
    """When these events arrived first."""
    found: dict[str, float] = {}
    end = time.monotonic() + seconds
    while not wanted <= found.keys() and time.monotonic() < end:
        for event_id, at in httpx.get(f"{url}/seen").json():
            found.setdefault(event_id, at)
        time.sleep(0.05)
    return found


def _burst(fleet: Fleet, url: str, endpoints: int, worker: list[psutil.Process]) -> tuple[float, float]:
    """Deliveries a second, and CPU milliseconds of the worker for one."""
    _empty(fleet)
    clients = _register(fleet, [f"{url}/good/{number}" for number in range(endpoints)])
    before = cpu_seconds(worker)
    settled = _settle(fleet, [clients[number % endpoints] for number in range(_BURST)])
    arrived = _arrivals(url, {event_id for event_id, _ in settled}, 300)
    assert len(arrived) == _BURST, f"{len(arrived)} of {_BURST} arrived"
    seconds = max(arrived.values()) - settled[0][1]
    time.sleep(1)
    return _BURST / seconds, 1000 * (cpu_seconds(worker) - before) / _BURST


def _waits(fleet: Fleet, url: str, clients: Sequence[str], *, noise: Sequence[str] = ()) -> list[float]:
    """Seconds from the commit to the arrival at a steady rate; `noise`: clients that get events and are not counted."""
    stopping = threading.Event()

    def disturb() -> None:
        while not stopping.wait(0.1):
            _settle(fleet, noise)

    if noise:
        threading.Thread(target=disturb, daemon=True).start()
        time.sleep(3)
    settled: list[tuple[str, float]] = []
    began = time.monotonic()
    for number in range(round(_RATE * _SECONDS)):
        time.sleep(max(0.0, began + number / _RATE - time.monotonic()))
        settled += _settle(fleet, [random.choice(clients)])
    arrived = _arrivals(url, {event_id for event_id, _ in settled}, 60)
    stopping.set()
    assert len(arrived) >= len(settled), f"{len(arrived)} of {len(settled)} arrived"
    return sorted(arrived[event_id] - at for event_id, at in settled)


def _percentile(waits: Sequence[float], percent: int) -> float:
    return statistics.quantiles(waits, n=100)[percent - 1] * 1000


def _bare(url: str, *, kept: bool) -> tuple[float, float]:
    """A loop of `requests.post`: a second, and CPU milliseconds each."""
    number, body = 1_000, b'{"type":"job.succeeded","timestamp":"2026-11-24T00:00:00Z","data":{}}'
    session = requests.Session()
    began, cpu = time.monotonic(), time.process_time()
    for _ in range(number):
        (session if kept else requests).post(f"{url}/plain", data=body)
    return number / (time.monotonic() - began), 1000 * (time.process_time() - cpu) / number


def main() -> None:
    """Print the figures."""
    print_machine()
    allowed = {"outbound_allowed_networks": "127.0.0.0/8", "outbound_allow_http": True}
    with _receivers() as url, running_fleet(**allowed) as fleet:
        threads = fleet.settings.webhook_threads
        with fleet.workers(1, queue="webhooks", threads=threads) as worker:
            _print_speed(fleet, url, worker)
            _print_isolation(fleet, url)


def _print_speed(fleet: Fleet, url: str, worker: list[psutil.Process]) -> None:
    print("\n| endpoints | deliveries/s | CPU, ms each | p50, ms | p95, ms |\n| --- | --- | --- | --- | --- |")
    for endpoints in (1, 100, 1_000):
        rate, cpu = _burst(fleet, url, endpoints, worker)
        _empty(fleet)
        waits = _waits(fleet, url, _register(fleet, [f"{url}/good/{number}" for number in range(endpoints)]))
        figures = f"{rate:.0f} | {cpu:.1f} | {_percentile(waits, 50):.0f} | {_percentile(waits, 95):.0f}"
        print(f"| {endpoints:,} | {figures} |", flush=True)
    for kept in (False, True):
        rate, cpu = _bare(url, kept=kept)
        print(f"| bare `{'Session' if kept else 'requests'}.post` loop | {rate:.0f} | {cpu:.1f} | | |", flush=True)


def _print_isolation(fleet: Fleet, url: str) -> None:
    print("\n| 50 good endpoints | p50, ms | p95, ms | p99, ms |\n| --- | --- | --- | --- |")
    closed = f"http://127.0.0.1:{free_port()}/"
    for bad in ((), _BAD):
        _empty(fleet)
        clients = _register(fleet, [f"{url}/good/{number}" for number in range(50)])
        noise = _register(fleet, [closed if name == "closed" else f"{url}/{name}" for name in bad])
        waits = _waits(fleet, url, clients, noise=noise)
        figures = " | ".join(f"{_percentile(waits, percent):.0f}" for percent in (50, 95, 99))
        print(f"| {'beside ' + ', '.join(bad) if bad else 'alone'} | {figures} |", flush=True)


if __name__ == "__main__":
    os.environ.setdefault("PYTHONWARNINGS", "ignore")
    main()
