"""An image that kills every worker that touches it is given up after three, and takes no other with it."""

import io
import time
from pathlib import Path

import httpx
import pytest
from PIL import Image

from tests.chaos.cluster import running_cluster
from tests.chaos.observer import Observer
from tests.chaos.poison import DEADLY_WIDTH

pytestmark = [pytest.mark.slow, pytest.mark.timeout(180)]


def test_poison_ends_failed_and_the_others_succeed(tmp_path: Path) -> None:
    picture = io.BytesIO()
    Image.new("RGB", (DEADLY_WIDTH, 48), "gray").save(picture, "JPEG")
    deaths = 0
    with running_cluster(tmp_path, lease_seconds=8, app="tests.chaos.poisonable") as cluster:
        headers = {"Authorization": f"Bearer {cluster.api_key}", "Content-Type": "image/jpeg"}
        observer = Observer(cluster, seed=50)
        with httpx.Client(base_url=cluster.api_url, headers=headers, trust_env=False) as client:
            sent = client.post("/v1/jobs", params={"document_type": "bank_card"}, content=picture.getvalue()).json()
            observer.send(20)
            while (job := client.get(f"/v1/jobs/{sent['id']}").json())["status"] not in ("failed", "succeeded"):
                deaths += cluster.revive()
                time.sleep(0.3)
            outcome = observer.wait(time.monotonic(), patience=60)
            told = client.get(f"/v1/jobs/{sent['id']}/timeline").json()["data"]

    assert (job["status"], job["error"]["code"], job["attempts"]) == ("failed", "poisoned", 0)
    assert deaths == 3
    assert [event["while_preparing"] for event in told if event["event"] == "worker_lost"] == [True] * 3
    assert (outcome.accepted, outcome.lost, outcome.failed) == (20, 0, 0)
