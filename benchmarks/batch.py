"""A batch from the first byte to the spreadsheet: intake by each way in, recognition, memory, polls meanwhile, export.

The images are small and all different; the scripted sandbox answers at once. With 100 000 images it takes about half an
hour on two cores, nearly all of it recognition.
"""

import argparse
import base64
import io
import random
import tempfile
import threading
import time
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import psutil
from celery import Celery
from PIL import Image
from redis import Redis

from benchmarks.rivals.sdk_pool import make_sdk
from benchmarks.scripted import running_sandbox
from benchmarks.stack import Stack, print_machine, running_stack
from kazheng import Client
from kazheng.batches import Batch, NamedImage
from kazheng.stack.generated import read_generated

_SAMPLE_SECONDS = 5.0


def make_images(count: int, *, seed: int) -> Iterator[bytes]:
    """Small JPEGs, each different."""
    noise = random.Random(seed)
    for _ in range(count):
        buffer = io.BytesIO()
        Image.frombytes("L", (64, 48), noise.randbytes(64 * 48)).save(buffer, "JPEG")
        yield buffer.getvalue()


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=100_000, help="of the batch that is read; 0: the ways in only")
    parser.add_argument("--intake", type=int, default=2_000, help="images for each way in")
    given = parser.parse_args()
    print_machine()
    nowhere = {"baidu_base_url": "http://127.0.0.1:9", "BAIDU_API_KEY": "bench", "BAIDU_SECRET_KEY": "bench"}
    with running_stack(**nowhere) as stack, client_of(stack) as client:
        measure_intake(stack, client, given.intake)
        measure_celery(stack, given.intake)
    account = {"api_key": "bench", "secret_key": "bench", "qps": 1000, "window": "bucket", "bucket_size": 1000}
    latency = {"median_seconds": 0.05, "p95_seconds": 0.1}
    with running_sandbox(accounts=[account], latency=latency) as sandbox:
        measure_sdk(sandbox.url, given.intake // 10)
        if not given.images:
            return
        settings = {"baidu_base_url": sandbox.url, "BAIDU_API_KEY": "bench", "BAIDU_SECRET_KEY": "bench"}
        with (
            running_stack(**settings, baidu_qps=1000, baidu_billing="postpaid", task_events="false") as stack,
            client_of(stack) as client,
        ):
            measure_batch(stack, client, given.images)


@contextmanager
def client_of(stack: Stack) -> Iterator[Client]:
    """A client of a stack."""
    with Client(stack.api_key, stack.api_url, timeout=600) as client:
        yield client


def measure_intake(stack: Stack, client: Client, count: int) -> None:
    """Images a second by each way in, one sender."""
    headers = {"Authorization": f"Bearer {stack.api_key}"}
    with httpx.Client(base_url=stack.api_url, headers=headers, timeout=600, trust_env=False) as http:

        def one_by_one(images: list[bytes]) -> None:
            query = {"document_type": "bank_card", "lane": "bulk"}
            for image in images:
                http.post(
                    "/v1/jobs", params=query, content=image, headers={"Content-Type": "image/jpeg"}
                ).raise_for_status()

        def inline(images: list[bytes]) -> None:
            for start in range(0, len(images), 1000):
                items = [{"image_base64": base64.b64encode(image).decode()} for image in images[start : start + 1000]]
                http.post("/v1/batches", json={"document_type": "bank_card", "items": items}).raise_for_status()

        def files(images: list[bytes]) -> None:
            client.batches.create(images, document_type="bank_card")

        def archive(images: list[bytes]) -> None:
            buffer = io.BytesIO()
            with zipfile.ZipFile(buffer, "w") as packed:
                for number, image in enumerate(images):
                    packed.writestr(f"{number}.jpg", image)
            query, kind = {"document_type": "bank_card"}, {"Content-Type": "application/zip"}
            http.post("/v1/batches", params=query, content=buffer.getvalue(), headers=kind).raise_for_status()

        def manifest(images: list[bytes]) -> None:
            lines = "".join(f'{{"image_url": "https://cards.example/{number}.jpg"}}\n' for number in range(len(images)))
            query, kind = {"document_type": "bank_card"}, {"Content-Type": "application/x-ndjson"}
            http.post("/v1/batches", params=query, content=lines.encode(), headers=kind).raise_for_status()

        ways: dict[str, Callable[[list[bytes]], None]] = {
            "one request an image": one_by_one,
            "JSON, 1 000 a request": inline,
            "files, 100 a request (the client)": files,
            "one ZIP": archive,
            "one manifest of addresses": manifest,
        }
        print("| way in | images | images/s |\n| --- | --- | --- |")
        for number, (name, send) in enumerate(ways.items()):
            images = list(make_images(count, seed=number))
            began = time.monotonic()
            send(images)
            print(f"| {name} | {count} | {count / (time.monotonic() - began):.0f} |", flush=True)


def measure_celery(stack: Stack, count: int) -> None:
    """Plain Celery: the image in a message, in memory, until a worker takes it."""
    url = read_generated(stack.home)["KAZHENG_REDIS_URL"]
    app = Celery("plain", broker=url)
    images = list(make_images(count, seed=50))
    began = time.monotonic()
    for image in images:
        app.send_task("read", args=[base64.b64encode(image).decode()], queue="plain")
    print(
        f"| plain Celery publishing, nothing synced or recorded | {count} | {count / (time.monotonic() - began):.0f} |"
    )
    Redis.from_url(url).delete("plain")


def measure_sdk(url: str, count: int) -> None:
    """The official SDK, one image after the other: its way in is the call itself."""
    sdk = make_sdk(url, "bench", "bench")
    images = list(make_images(count, seed=51))
    began = time.monotonic()
    for image in images:
        if "result" not in sdk.bankcard(image):
            raise RuntimeError("the SDK was refused")
    print(f"| the official SDK, one call after the other | {count} | {count / (time.monotonic() - began):.0f} |")


class Sampler(threading.Thread):
    """Memory of every process of a stack and of its Redis, and how long polls take, while a batch is read."""

    def __init__(self, stack: Stack, batch: Batch, job_id: str) -> None:
        """Take what to look at."""
        super().__init__(daemon=True)
        self._stack, self._batch, self._job_id = stack, batch, job_id
        self._redis = Redis.from_url(read_generated(stack.home)["KAZHENG_REDIS_URL"])
        self.stopping = threading.Event()
        self.memory: dict[str, list[float]] = {}
        self.polls: dict[str, list[float]] = {"job": [], "batch": []}

    def run(self) -> None:
        """Look until told to stop."""
        headers = {"Authorization": f"Bearer {self._stack.api_key}"}
        looked_at = 0.0
        with httpx.Client(base_url=self._stack.api_url, headers=headers, timeout=60, trust_env=False) as http:
            while not self.stopping.wait(0.1):
                for name, path in (("job", f"jobs/{self._job_id}"), ("batch", f"batches/{self._batch.id}")):
                    began = time.monotonic()
                    http.get(f"/v1/{path}").raise_for_status()
                    self.polls[name].append(time.monotonic() - began)
                if time.monotonic() - looked_at > _SAMPLE_SECONDS:
                    looked_at = time.monotonic()
                    self._look()

    def _look(self) -> None:
        info = self._redis.info("memory")
        self.memory.setdefault("Valkey, data", []).append(int(info["used_memory"]) / 1e6)
        totals: dict[str, float] = {}
        for process in psutil.process_iter(["cmdline", "environ"]):
            if (process.info["environ"] or {}).get("KAZHENG_HOME") != str(self._stack.home):
                continue
            name = _role_of(" ".join(process.info["cmdline"] or ()))
            if name:
                totals[name] = totals.get(name, 0.0) + process.memory_info().rss / 1e6
        for name, megabytes in totals.items():
            self.memory.setdefault(name, []).append(megabytes)


def _role_of(command: str) -> str | None:
    if "gunicorn" in command and "api.wsgi" in command:
        return "API (all processes)"
    for role in ("interactive", "bulk", "maintenance"):
        if "celery" in command and f"-Q {role}" in command:
            return f"worker, {role}"
    return None


def percentile(values: list[float], share: float) -> float:
    """A percentile of some figures."""
    return sorted(values)[min(len(values) - 1, int(len(values) * share))]


def measure_batch(stack: Stack, client: Client, count: int) -> None:
    """From the first byte to the spreadsheet."""
    began = time.monotonic()
    images = (NamedImage(f"{number}.jpg", image) for number, image in enumerate(make_images(count, seed=99)))
    batch = client.batches.create(images, document_type="bank_card", name="bench")
    handed_over = time.monotonic() - began
    first = next(client.batches.items(batch))
    sampler = Sampler(stack, batch, first.job.id)
    sampler.start()
    batch = client.batches.wait(batch, timeout=7200)
    took = time.monotonic() - began
    sampler.stopping.set()
    sampler.join()
    print(
        f"\n{count} images: handed over in {handed_over:.0f} s, the last result after {took:.0f} s"
        f" ({count / took:.0f} a second); {dict(batch.counts)}, billed {batch.billing['billed']}"
    )
    for name, values in sampler.polls.items():
        print(
            f"GET {name}: {len(values)} polls, p50 {percentile(values, 0.5) * 1000:.1f} ms,"
            f" p99 {percentile(values, 0.99) * 1000:.1f} ms"
        )
    print("\n| memory, MB | first | median | largest | last |\n| --- | --- | --- | --- | --- |")
    for name, values in sorted(sampler.memory.items()):
        print(f"| {name} | {values[0]:.0f} | {percentile(values, 0.5):.0f} | {max(values):.0f} | {values[-1]:.0f} |")
    print("\n| export | seconds | MB | API after it, MB |\n| --- | --- | --- | --- |")
    with tempfile.TemporaryDirectory() as folder:
        for kind in ("jsonl", "csv", "xlsx"):
            began = time.monotonic()
            path = client.batches.export(batch, Path(folder) / f"out.{kind}")
            seconds = time.monotonic() - began
            sampler._look()
            api = sampler.memory["API (all processes)"][-1]
            print(f"| {kind} | {seconds:.1f} | {path.stat().st_size / 1e6:.1f} | {api:.0f} |", flush=True)


if __name__ == "__main__":
    main()
