"""Requests a second that intake accepts, beside a bare Flask endpoint that only hashes the upload.

Both run under gunicorn with the same settings, in the same run, one after the other in turns. Every accepted image is
synced to disk and its row committed with fsync on before the 202. One pass: `python -m benchmarks.intake`.
"""

import io
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

import httpx
from PIL import Image

from benchmarks.load import Load, request_bytes, run_load
from benchmarks.stack import Stack, print_machine, running_stack
from kazheng.stack.valkey import free_port

IMAGE_BYTES = 45_000
SECONDS = 6.0
ROUNDS = 3
CONNECTIONS = (1, 16)


def make_image() -> bytes:
    """A JPEG of about 45 KB: noise of the right size."""
    for side in range(100, 1000, 4):
        buffer = io.BytesIO()
        Image.effect_noise((side, side), 60).convert("RGB").save(buffer, "JPEG", quality=75)
        if buffer.tell() >= IMAGE_BYTES:
            return buffer.getvalue()
    raise RuntimeError("no image of that size")


@contextmanager
def bare_server(stack: Stack) -> Iterator[str]:
    """The bare endpoint under the API's gunicorn settings."""
    port = free_port()
    process = subprocess.Popen(
        [sys.executable, "-m", "gunicorn", "-c", "python:benchmarks.bare_conf", "benchmarks.bare:app"],
        env={**stack.environment, "KAZHENG_API_PORT": str(port)},
        stderr=subprocess.DEVNULL,
    )
    try:
        url = f"http://127.0.0.1:{port}/hash"
        for _ in range(200):
            try:
                httpx.post(url, content=b"x", timeout=2).raise_for_status()
                break
            except httpx.HTTPError:
                time.sleep(0.1)
        else:
            raise RuntimeError("the bare endpoint did not start")
        yield url
    finally:
        process.terminate()
        process.wait(60)


def main() -> None:
    """Print the table."""
    image = make_image()
    print_machine()
    print(f"image: {len(image)} bytes, load generator on the same cores")
    # No worker takes part: an account that waits costs nothing, and jobs only pile up.
    with running_stack(baidu_base_url="http://127.0.0.1:9", BAIDU_API_KEY="bench", BAIDU_SECRET_KEY="bench") as stack:
        intake_url = f"{stack.api_url}/v1/jobs?document_type=bank_card&lane=bulk"
        headers = {"Content-Type": "image/jpeg", "Authorization": f"Bearer {stack.api_key}"}
        intake = request_bytes(intake_url, image, headers)
        with bare_server(stack) as bare_url:
            bare = request_bytes(bare_url, image, headers)
            print("| endpoint | connections | requests/s (rounds) | p50 ms | p95 ms | statuses |")
            print("| --- | --- | --- | --- | --- | --- |")
            for connections in CONNECTIONS:
                loads: dict[str, list[Load]] = {"bare Flask, SHA-256 only": [], "intake": []}
                for _ in range(ROUNDS):
                    for name, url, request in (
                        ("bare Flask, SHA-256 only", bare_url, bare),
                        ("intake", intake_url, intake),
                    ):
                        loads[name].append(run_load(url, request, connections=connections, seconds=SECONDS))
                for name, rounds in loads.items():
                    rates = " / ".join(f"{load.per_second:.0f}" for load in rounds)
                    last = rounds[-1]
                    statuses = ", ".join(f"{status}: {count}" for status, count in sorted(last.statuses.items()))
                    print(
                        f"| {name} | {connections} | {rates} | {last.percentile(50):.1f} "
                        f"| {last.percentile(95):.1f} | {statuses} |",
                        flush=True,
                    )
        print(f"load generator: pid {os.getpid()}, one process")


if __name__ == "__main__":
    main()
