"""What Kazheng adds to the upstream call for one job on an idle stack.

One client posts an image with `Prefer: wait`, one job at a time; the provider answers after a fixed time. Added is the
client's time from the first byte sent to the result read, less the provider's own time for that call.
"""

import statistics
import time

import httpx

from benchmarks.intake import make_image
from benchmarks.stack import print_machine, running_stack
from benchmarks.upstream import running_upstream

ANSWER_SECONDS = 0.3
JOBS = 200
WARM_UP = 20


def main() -> None:
    """Print the figures."""
    image = make_image()
    print_machine()
    added: list[float] = []
    with (
        running_upstream(ANSWER_SECONDS) as upstream,
        running_stack(
            baidu_base_url=upstream.url, baidu_qps=200, BAIDU_API_KEY="bench", BAIDU_SECRET_KEY="bench"
        ) as stack,
        httpx.Client(headers={"Authorization": f"Bearer {stack.api_key}"}, timeout=60) as client,
    ):
        for number in range(WARM_UP + JOBS):
            upstream.took.clear()
            began = time.perf_counter()
            answer = client.post(
                f"{stack.api_url}/v1/jobs?document_type=bank_card&cache=false",
                content=image,
                headers={"Content-Type": "image/jpeg", "Prefer": "wait=30"},
            )
            took = time.perf_counter() - began
            job = answer.raise_for_status().json()
            if job["status"] != "succeeded":
                raise RuntimeError(f"{job['id']} is {job['status']}: {job['error']}")
            if number >= WARM_UP:
                added.append(1000 * (took - sum(upstream.took)))
            time.sleep(0.02)
    cuts = statistics.quantiles(added, n=100)
    print(f"{JOBS} jobs of {len(image)} bytes, one at a time, upstream answers in {1000 * ANSWER_SECONDS:.0f} ms")
    print("| added latency | p50 | p95 | p99 | max |")
    print("| --- | --- | --- | --- | --- |")
    print(f"| ms | {cuts[49]:.1f} | {cuts[94]:.1f} | {cuts[98]:.1f} | {max(added):.1f} |")


if __name__ == "__main__":
    main()
