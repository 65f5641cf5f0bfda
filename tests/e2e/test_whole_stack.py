"""Everything at once, with real processes: `kazheng up`, the sandbox that reads pictures, the Python client."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import openpyxl
import pytest

from benchmarks.fleet import wait_until
from benchmarks.stack import Stack, running_stack
from kazheng import Client
from kazheng.webhooks import verify
from tests.conftest import SAMPLES
from tests.receivers import receiver

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

KAZHENG = Path(sys.executable).parent / "kazheng"


@pytest.fixture(scope="module")
def stack() -> Iterator[Stack]:
    local = {"outbound_allowed_networks": "127.0.0.0/8", "outbound_allow_http": True}
    with running_stack(sandbox_qps=5, **local) as running:
        yield running


@pytest.fixture
def client(stack: Stack) -> Iterator[Client]:
    with Client(stack.api_key, stack.api_url, timeout=60) as client:
        yield client


def sample(samples: list[dict[str, Any]], name: str) -> dict[str, Any]:
    return next(entry for entry in samples if entry["file"] == name)


def run(stack: Stack, *arguments: str, expect: int = 0) -> str:
    done = subprocess.run(
        [str(KAZHENG), *arguments],
        env=dict(stack.environment),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == expect, done.stdout + done.stderr
    return done.stdout


def test_a_card_handed_to_the_client_comes_back_with_its_fields(client: Client, samples: list[dict[str, Any]]) -> None:
    expected = sample(samples, "id_front_exif.jpg")

    job = client.wait(client.submit(SAMPLES / expected["file"], document_type="id_card", options=expected["options"]))

    result = job.require_result()
    assert {name: result.fields[name].value for name in expected["fields"]} == expected["fields"]
    assert [check.code for check in result.checks if check.has_failed] == []


def test_the_other_side_of_the_card_is_told(client: Client) -> None:
    job = client.submit(SAMPLES / "id_back_desk.jpg", document_type="id_card", options={"side": "front"})

    ended = client.wait(job)

    assert ended.error is not None
    assert ended.error.code == "wrong_side"


def test_a_card_of_another_type_is_told(client: Client) -> None:
    job = client.submit(SAMPLES / "license_portrait.png", document_type="bank_card")

    ended = client.wait(job)

    assert ended.error is not None
    assert ended.error.code == "not_a_bank_card"


def test_a_bulk_job_is_fed_to_the_workers(client: Client) -> None:
    job = client.submit(SAMPLES / "bank_debit.webp", document_type="bank_card", lane="bulk")

    ended = client.wait(job)

    assert ended.require_result().fields["card_number"].value


def test_the_command_reads_files_and_says_which_failed(stack: Stack) -> None:
    files = [str(SAMPLES / "bank_credit.jpg"), str(SAMPLES / "id_back_desk.jpg")]

    output = run(stack, "submit", *files, "--type", "bank_card", "--json", expect=1)

    lines = [json.loads(line) for line in output.splitlines()]
    assert len(lines) == 2


def test_a_folder_becomes_a_spreadsheet_and_is_not_paid_for_twice(
    stack: Stack, samples: list[dict[str, Any]], tmp_path: Path
) -> None:
    expected = sample(samples, "id_front_exif.jpg")["fields"]
    scans = tmp_path / "scans"
    (scans / "more").mkdir(parents=True)
    for place in (scans / "card.jpg", scans / "more" / "again.jpg"):
        place.write_bytes((SAMPLES / "id_front_exif.jpg").read_bytes())
    (scans / "broken.jpg").write_bytes(b"no image")
    command = ("submit", str(scans), "--type", "id_card", "--recursive", "--json")

    told = [json.loads(run(stack, *command, "--out", str(tmp_path / name), expect=1)) for name in ("a.xlsx", "b.xlsx")]

    assert [batch["counts"]["succeeded"] for batch in told] == [2, 2]
    # Read by an earlier test, by the command itself, or by neither.
    assert told[0]["billing"]["billed"] <= 1
    assert (told[1]["billing"]["billed"], told[1]["billing"]["cached"]) == (0, 2)
    sheet = openpyxl.load_workbook(tmp_path / "b.xlsx").active
    assert sheet is not None
    heading, *rows = list(sheet.iter_rows(values_only=True))
    read = {row[1]: dict(zip(heading, row, strict=True)) for row in rows}
    assert sorted(map(str, read)) == ["broken.jpg", "card.jpg", "more/again.jpg"]
    assert {row["姓名"] for name, row in read.items() if name != "broken.jpg"} == {expected["name"]}
    assert read["broken.jpg"]["Error"] == "image_format_unsupported"
    assert list(tmp_path.glob("*.json")) == []
    look_at_the_batch(stack, told[1]["id"], tmp_path)


def test_the_end_of_a_job_is_delivered_signed_with_its_fields(
    stack: Stack, client: Client, samples: list[dict[str, Any]]
) -> None:
    expected = sample(samples, "id_front_exif.jpg")
    with receiver() as there, receiver() as of_the_job:
        endpoint = client.webhooks.create(there.url, event_types=["job.succeeded"], payload="full")
        assert client.webhooks.ping(endpoint.id)["delivered"]
        job = client.submit(
            SAMPLES / expected["file"],
            document_type="id_card",
            options=expected["options"],
            webhook_url=of_the_job.url,
        )
        client.wait(job)
        wait_until(lambda: len(there.seen) == 2 and len(of_the_job.seen) == 1)
        wait_until(lambda: {one["status"] for one in client.get(job.id).json["deliveries"]} == {"succeeded"})
        client.webhooks.delete(endpoint.id)

    event = client.webhooks.verify(there.seen[1].headers, there.seen[1].body, endpoint.secret)
    assert (event.type, event.data["job_id"]) == ("job.succeeded", job.id)
    assert event.data["fields"]["name"]["value"] == expected["fields"]["name"]
    thin = json.loads(of_the_job.seen[0].body)
    assert (thin["data"]["job_id"], "fields" in thin["data"]) == (job.id, False)
    events, place = client.webhooks.events()
    assert [one.data["job_id"] for one in events if one.id == event.id] == [job.id]
    assert client.webhooks.events(place) == ([], place)


def test_listen_brings_what_trigger_makes(stack: Stack) -> None:
    with receiver() as there:
        command = [str(KAZHENG), "listen", "--forward-to", there.url, "--stop-after", "2"]
        environment = {**stack.environment, "PYTHONUNBUFFERED": "1"}
        listening = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)
        assert listening.stdout is not None
        secret = listening.stdout.readline().split()[-1]
        listening.stdout.readline()
        run(stack, "trigger", "job.succeeded")
        run(stack, "trigger", "quota.warning")
        rest, _ = listening.communicate(timeout=60)

    assert listening.returncode == 0
    assert "200 in" in rest
    assert rest.splitlines()[-1] == "2 forwarded."
    said = [verify(seen.headers, seen.body, secret) for seen in there.seen]
    assert [(event.type, event.data["test"]) for event in said] == [("job.succeeded", True), ("quota.warning", True)]


def test_every_command_about_webhooks(stack: Stack) -> None:
    with receiver() as there:
        created = run(stack, "webhooks", "create", there.url, "--events", "job.failed")
        endpoint_id = created.split()[0]
        assert "whsec_" in created
        assert "HTTP 200" in run(stack, "webhooks", "ping", endpoint_id)
        run(stack, "trigger", "job.failed")
        wait_until(lambda: len(there.seen) == 2)
        wait_until(lambda: "succeeded" in run(stack, "webhooks", "deliveries", endpoint_id))
        assert "disabled" in run(stack, "webhooks", "disable", endpoint_id)
        missed = run(stack, "trigger", "job.failed").split()[-1].strip(".")
        run(stack, "webhooks", "recover", endpoint_id, "--since", "1h", expect=2)
        assert "enabled" in run(stack, "webhooks", "enable", endpoint_id)
        # Other tests' jobs have failed within the hour too.
        assert "on their way" in run(stack, "webhooks", "recover", endpoint_id, "--since", "1h")
        wait_until(lambda: missed in there.event_ids)
        assert "whsec_" in run(stack, "webhooks", "rotate-secret", endpoint_id)
        assert endpoint_id in run(stack, "webhooks", "list")
        run(stack, "webhooks", "delete", endpoint_id)
        assert endpoint_id not in run(stack, "webhooks", "list")


def look_at_the_batch(stack: Stack, batch_id: str, folder: Path) -> None:
    """Every command about a batch that has ended with one bad file."""
    assert "scans" in run(stack, "batches", "list")
    assert "broken.jpg" in run(stack, "batches", "show", batch_id, "--failed")
    run(stack, "batches", "export", batch_id, str(folder / "cards.csv"), "--fields", "file,status")
    assert sorted((folder / "cards.csv").read_text("utf-8-sig").splitlines()) == [
        "broken.jpg,failed",
        "card.jpg,succeeded",
        "file,status",
        "more/again.jpg,succeeded",
    ]
    assert "0 tried again" in run(stack, "batches", "retry", batch_id)
    assert "completed" in run(stack, "batches", "watch", batch_id, expect=1)
    assert "completed" in run(stack, "batches", "cancel", batch_id)


def test_the_doctor_finds_nothing_wrong(stack: Stack) -> None:
    run(stack, "doctor")


def test_ready_and_alive(stack: Stack) -> None:
    assert httpx.get(f"{stack.api_url}/livez").status_code == 200
    assert httpx.get(f"{stack.api_url}/readyz").status_code == 200


def test_metrics_tell_of_workers_too(stack: Stack, client: Client) -> None:
    client.wait(client.submit(SAMPLES / "bank_credit.jpg", document_type="bank_card"))

    metrics = httpx.get(f"{stack.api_url}/metrics").text

    assert "kazheng_jobs_accepted_total" in metrics
    assert 'kazheng_upstream_calls_total{endpoint="bankcard",outcome="succeeded"}' in metrics


def test_flower_wants_a_password_and_shows_no_content(stack: Stack, client: Client) -> None:
    client.wait(client.submit(SAMPLES / "bank_credit.jpg", document_type="bank_card"))
    flower = f"http://127.0.0.1:{stack.environment['KAZHENG_FLOWER_PORT']}"
    generated = (stack.home / "generated.env").read_text(encoding="utf-8")
    password = generated.split("KAZHENG_FLOWER_PASSWORD=", 1)[1].splitlines()[0].strip("'\"")

    closed = httpx.get(f"{flower}/api/tasks")
    tasks = httpx.get(f"{flower}/api/tasks", auth=("kazheng", password)).raise_for_status().json()

    assert closed.status_code == 401
    names = {task["name"] for task in tasks.values()}
    assert "kazheng.recognize" in names
    arguments = {task["kwargs"] for task in tasks.values() if task["name"] == "kazheng.recognize"}
    assert all("job_" in argument and len(argument) < 60 for argument in arguments)


def test_no_log_holds_what_is_on_a_card_or_a_secret(stack: Stack, samples: list[dict[str, Any]]) -> None:
    secrets = [stack.api_key, "sandbox-secret-key", "24."]
    values = [value for entry in samples for value in entry["fields"].values() if value and len(value) > 5]
    logs = "".join(path.read_text(errors="replace") for path in (stack.home / "logs").glob("*.log"))

    assert "job_settled" in logs
    assert [value for value in values if value in logs and not value[:4].isdigit()] == []
    assert [value for value in values if value.isdigit() and len(value) > 10 and value in logs] == []
    assert [secret for secret in secrets[:2] if secret in logs] == []
    assert "access_token=" not in logs
