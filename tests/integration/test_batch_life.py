"""How batches live: repeated requests, more items, the end, cancellation, another try."""

import io
import json
import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import pytest
from redis import Redis
from sqlalchemy import Engine, select, update

from api import batch_intake
from api.routes import batch_events
from shared.database.engine import transaction
from shared.database.jobs import claim_job, fail_job
from shared.database.stops import Stop, put_stop
from shared.database.tables import batches, events, jobs
from shared.domain.errors import StorageFullError
from shared.domain.job import JobErrorCode, JobStatus
from shared.domain.quota import Billing, StopReason
from shared.settings import Settings
from tests.factories import make_account, make_client
from tests.integration.api_tools import ApiBench, running_api
from tests.integration.test_api_batches import PICTURES, create, encoded, items_of
from worker.batches import BatchFollower


@pytest.fixture
def api(settings: Settings, engine: Engine) -> Iterator[ApiBench]:
    with running_api(settings, engine) as running:
        yield running


def end_all(api: ApiBench, batch_id: str, error: JobErrorCode | None = None) -> None:
    """Let every item that waits fail (or be claimed and fail) as a worker would."""
    now = api.services.clock()
    with transaction(api.engine) as connection:
        waiting = connection.execute(
            select(jobs.c.id).where(jobs.c.batch_id == batch_id, jobs.c.status == JobStatus.QUEUED)
        ).scalars()
        for number, job_id in enumerate(list(waiting)):
            token = f"{job_id}{number}"
            claim_job(connection, job_id, token=token, worker="w", now=now, lease_until=now + timedelta(minutes=1))
            fail_job(connection, job_id, token, error=error or JobErrorCode.BLURRED, now=now, count_failure=True)


def follow(api: ApiBench) -> int:
    return BatchFollower(engine=api.engine, clock=api.services.clock).follow()


def event_types(api: ApiBench) -> list[str]:
    with transaction(api.engine) as connection:
        return list(
            connection.execute(
                select(events.c.type).where(events.c.type.like("batch.%")).order_by(events.c.id)
            ).scalars()
        )


def test_the_same_key_gives_the_same_batch(api: ApiBench) -> None:
    headers = {"Idempotency-Key": "monday"}

    first, second = (create(api, headers=headers) for _ in range(2))
    other = create(api, status=422, headers=headers, name="another")

    assert first["id"] == second["id"]
    assert other["code"] == "idempotency_key_reused"
    assert api.count_jobs() == 3


def test_a_request_cut_short_goes_on_where_it_was(api: ApiBench) -> None:
    headers = {"Idempotency-Key": "monday"}
    first = create(api, headers=headers)
    with transaction(api.engine) as connection:  # as if it had died after its first item
        connection.execute(jobs.delete().where(jobs.c.item_number > 1))
        connection.execute(_open_again(first["id"]))

    second = create(api, headers=headers)

    assert (second["id"], second["status"], second["counts"]["total"]) == (first["id"], "running", 3)


def test_what_waits_for_quota_is_told(api: ApiBench, redis_client: Redis) -> None:
    account_id = make_account(api.engine, api.settings, "http://provider.invalid", billing=Billing.POSTPAID)
    batch = create(api)
    before = api.get(f"/v1/batches/{batch['id']}").json
    now = api.services.clock()
    stop = Stop(account_id, "idcard", StopReason.DAILY_QUOTA, "17", "used up", now, now + timedelta(hours=3), None)
    with transaction(api.engine) as connection:
        put_stop(connection, stop)
        connection.execute(update(jobs).where(jobs.c.item_number == 1).values(calls=3, billed_calls=3))
    time.sleep(1.1)  # how long the outlook is believed

    after = api.get(f"/v1/batches/{batch['id']}").json

    assert (before["parked"], after["parked"]) == (0, 3)  # type: ignore[index]
    assert after["billing"] == {"calls": 3, "billed": 3, "cached": 0, "cost_at_most": "0.15"}  # type: ignore[index]
    assert after["estimated_completion_at"] > before["estimated_completion_at"]  # type: ignore[index]


def failing_store(api: ApiBench, monkeypatch: pytest.MonkeyPatch, portions: int) -> None:
    """The disk is full after so many portions, of one item each."""
    monkeypatch.setattr(batch_intake, "_PORTION_ITEMS", 1)
    put_many, left = api.services.store.put_many, iter(range(portions))

    def put(contents: Mapping[str, bytes]) -> None:
        if next(left, None) is None:
            raise StorageFullError("full")
        put_many(contents)

    monkeypatch.setattr(api.services.store, "put_many", put)


def test_a_batch_that_nobody_was_told_of_is_called_off(api: ApiBench, monkeypatch: pytest.MonkeyPatch) -> None:
    failing_store(api, monkeypatch, portions=2)

    create(api, status=507)
    follow(api)
    kept = [path for path in (api.settings.home / "images").rglob("job_*") if path.is_file()]

    (left,) = api.get("/v1/batches").json["data"]  # type: ignore[index]
    assert (left["status"], left["counts"]["canceled"], len(kept)) == ("canceled", 2, 2)


def test_a_batch_with_a_key_waits_for_the_rest(api: ApiBench, monkeypatch: pytest.MonkeyPatch) -> None:
    headers = {"Idempotency-Key": "monday"}
    with monkeypatch.context() as patch:
        failing_store(api, patch, portions=2)
        create(api, status=507, headers=headers)

    batch = create(api, headers=headers)

    assert (batch["status"], batch["counts"]["queued"], batch["counts"]["total"]) == ("running", 3, 3)


def test_the_same_request_twice_at_once_is_one_batch(api: ApiBench, monkeypatch: pytest.MonkeyPatch) -> None:
    headers = {"Idempotency-Key": "monday"}
    monkeypatch.setattr(batch_intake, "_PORTION_ITEMS", 1)
    put_many = api.services.store.put_many
    told: list[Any] = []

    def put(contents: Mapping[str, bytes]) -> None:
        put_many(contents)
        if not told:
            told.append(None)
            told.append(create(api, headers=headers))  # overtakes

    monkeypatch.setattr(api.services.store, "put_many", put)

    first = create(api, headers=headers)

    assert (first["id"], first["counts"]) == (told[1]["id"], told[1]["counts"])
    assert api.count_jobs() == 3


def _open_again(batch_id: str) -> Any:
    return update(batches).where(batches.c.id == batch_id).values(closed_at=None)


def test_another_client_sees_nothing(api: ApiBench) -> None:
    batch = create(api)
    _, key = make_client(api.engine, "another")

    for method, path in (("GET", ""), ("GET", "/items"), ("POST", "/close"), ("POST", "/cancel"), ("POST", "/retry")):
        assert api.call(method, f"/v1/batches/{batch['id']}{path}", key=key).status_code == 404
    assert api.get("/v1/batches", key=key).json["data"] == []  # type: ignore[index]


def test_an_open_batch_takes_items_until_it_is_closed(api: ApiBench) -> None:
    batch = create(api, [], close=False)
    path = f"/v1/batches/{batch['id']}"
    more = {"items": [{"image_base64": encoded(picture)} for picture in PICTURES]}

    added = [api.call("POST", f"{path}/items", json=more, headers={"Idempotency-Key": "a"}) for _ in range(2)]
    files = {"images": [(io.BytesIO(PICTURES[0]), "five.jpg")]}
    more_files = api.call("POST", f"{path}/items", data=files)
    closed = api.call("POST", f"{path}/close")
    late = api.call("POST", f"{path}/items", json=more)

    assert [answer.status_code for answer in (*added, more_files, closed, late)] == [202, 202, 202, 200, 409]
    assert closed.json["counts"]["total"] == 5  # type: ignore[index]
    assert [item["number"] for item in items_of(api, batch["id"])] == [1, 2, 3, 4, 5]


def test_a_batch_is_completed_though_items_failed(api: ApiBench) -> None:
    batch = create(api)
    before = follow(api)
    end_all(api, batch["id"])

    completed = [follow(api) for _ in range(2)]

    told = api.get(f"/v1/batches/{batch['id']}").json
    assert (before, completed) == (0, [1, 0])
    assert (told["status"], told["percent"], told["counts"]["failed"]) == ("completed", 100.0, 3)  # type: ignore[index]
    assert event_types(api) == ["batch.completed"]


def test_progress_is_told_in_steps(api: ApiBench) -> None:
    items = [{"image_base64": encoded(PICTURES[0])} for _ in range(10)]
    batch = create(api, items)
    with transaction(api.engine) as connection:
        some = select(jobs.c.id).where(jobs.c.item_number <= 4)
        connection.execute(
            update(jobs)
            .where(jobs.c.id.in_(some))
            .values(status="failed", error_code="blurred", completed_at=_now(api))
        )

    follow(api)
    follow(api)

    assert event_types(api) == ["batch.progress"]
    assert api.get(f"/v1/batches/{batch['id']}").json["percent"] == 40.0  # type: ignore[index]


def _now(api: ApiBench) -> Any:
    return api.services.clock()


def test_a_canceled_batch_starts_nothing_more(api: ApiBench) -> None:
    batch = create(api)

    canceled = [api.call("POST", f"/v1/batches/{batch['id']}/cancel").json for _ in range(2)]
    follow(api)

    assert [told["counts"]["canceled"] for told in canceled] == [3, 3]  # type: ignore[index]
    assert api.get(f"/v1/batches/{batch['id']}").json["status"] == "canceled"  # type: ignore[index]
    assert event_types(api) == ["batch.canceled"]


@pytest.mark.parametrize(("only_retryable", "expected"), [(True, 1), (False, 3)])
def test_failed_items_are_tried_again(api: ApiBench, only_retryable: bool, expected: int) -> None:
    items = [{"image_base64": encoded(picture)} for picture in PICTURES[:3]] + [{"image_base64": encoded(b"no image")}]
    batch = create(api, items)
    end_all(api, batch["id"])
    with transaction(api.engine) as connection:
        connection.execute(update(jobs).where(jobs.c.item_number == 1).values(error_code="provider_failed"))
    follow(api)

    answer = api.call("POST", f"/v1/batches/{batch['id']}/retry", json={"only_retryable": only_retryable}).json

    assert answer["retried"] == expected  # type: ignore[index]
    told = answer["batch"]  # type: ignore[index]
    assert (told["status"], told["counts"]["queued"], told["counts"]["total"]) == ("running", expected, 4)


@pytest.mark.parametrize(("billing", "cost"), [(Billing.FREE, "0.00"), (Billing.POSTPAID, "0.10")])
def test_a_dry_run_tells_what_it_may_cost(api: ApiBench, redis_client: Redis, billing: Billing, cost: str) -> None:
    make_account(api.engine, api.settings, "http://provider.invalid", billing=billing)
    items = [{"image_base64": encoded(picture)} for picture in PICTURES[:2]]

    told = create(api, items, 200, dry_run=True)

    assert (told["calls"], told["cost_at_most"]) == (2, cost)
    assert told["estimated_completion_at"] is not None


def test_a_retry_that_is_no_json_is_refused(api: ApiBench) -> None:
    batch = create(api)

    answer = api.call("POST", f"/v1/batches/{batch['id']}/retry", data=b"{", content_type="application/json")

    assert (answer.status_code, answer.json["code"]) == (400, "bad_request")  # type: ignore[index]


def test_a_dry_run_keeps_nothing_and_tells_what_would_be(api: ApiBench) -> None:
    items = [{"image_base64": encoded(picture)} for picture in (PICTURES[0], PICTURES[0], PICTURES[1], b"no image")]

    told = create(api, items, 200, dry_run=True)

    assert (told["items"], told["bad_items"], told["cache_hits"], told["calls"]) == (4, 1, 1, 2)
    assert told["by_document_type"] == {"id_card": 3}
    assert (told["bad"][0]["number"], told["bad"][0]["error"]["code"]) == (4, "image_format_unsupported")
    assert (api.count_jobs(), api.get("/v1/batches").json["data"]) == (0, [])  # type: ignore[index]


def test_batches_are_listed_newest_first_in_pages(api: ApiBench) -> None:
    made = [create(api, [], name=str(number))["id"] for number in range(3)]

    first = api.get("/v1/batches", query_string={"limit": 2}).json
    second = api.get("/v1/batches", query_string={"limit": 2, "after": first["next"]}).json  # type: ignore[index]

    assert [batch["id"] for page in (first, second) for batch in page["data"]] == made[::-1]  # type: ignore[index]
    assert second["next"] is None  # type: ignore[index]


def test_items_are_filtered_and_paged(api: ApiBench) -> None:
    items = [{"image_base64": encoded(picture)} for picture in (*PICTURES, b"no image", b"none either")]
    batch = create(api, items)

    failed = items_of(api, batch["id"], status="failed,expired")
    page = api.get(f"/v1/batches/{batch['id']}/items", query_string={"limit": 4}).json

    assert [item["number"] for item in failed] == [5, 6]
    assert page["next"] == 4  # type: ignore[index]
    assert [item["number"] for item in items_of(api, batch["id"], after=4)] == [5, 6]


def test_one_item_is_tried_again_and_its_batch_runs_again(api: ApiBench) -> None:
    batch = create(api)
    end_all(api, batch["id"])
    follow(api)
    first, *_ = items_of(api, batch["id"])

    retried = [api.call("POST", f"/v1/jobs/{first['job']['id']}/retry") for _ in range(2)]

    assert [answer.json["status"] for answer in retried] == ["queued", "queued"]  # type: ignore[index]
    assert retried[0].json["error"] is None  # type: ignore[index]
    told = api.get(f"/v1/batches/{batch['id']}").json
    assert (told["status"], told["counts"]["queued"]) == ("running", 1)  # type: ignore[index]


@pytest.mark.parametrize("change", [{"status": "canceled"}, {"status": "failed", "image_key": None}])
def test_what_has_no_image_or_was_called_off_is_not_tried_again(api: ApiBench, change: dict[str, Any]) -> None:
    job_id = api.submitted_id()
    with transaction(api.engine) as connection:
        connection.execute(update(jobs).values(**change, completed_at=_now(api)))

    answer = api.call("POST", f"/v1/jobs/{job_id}/retry")

    assert (answer.status_code, answer.json["code"]) == (409, "job_not_retryable")  # type: ignore[index]


Told = tuple[str, str, Any]


@contextmanager
def following(api: ApiBench, batch_id: str, **headers: str) -> Iterator[Iterator[Told]]:
    """Name, id and data of each event, as it comes."""
    answer = api.get(f"/v1/batches/{batch_id}/events", headers=headers)
    try:
        assert (answer.status_code, answer.content_type) == (200, "text/event-stream")
        yield _told(answer.iter_encoded())
    finally:
        answer.close()


def _told(pieces: Iterable[bytes]) -> Iterator[Told]:
    for piece in pieces:
        lines = dict(line.partition(": ")[::2] for line in piece.decode().splitlines() if line)
        if "event" in lines:
            yield lines["event"], lines["id"], json.loads(lines["data"])


def test_a_batch_is_followed_to_its_end_and_from_where_one_was(api: ApiBench) -> None:
    batch = create(api)

    with following(api, batch["id"]) as events_told:
        told = [next(events_told)]
        end_all(api, batch["id"])
        told.append(next(events_told))
        follow(api)
        told.append(next(events_told))
        assert next(events_told, None) is None
    with following(api, batch["id"], **{"Last-Event-ID": told[-1][1]}) as events_told:
        again = list(events_told)

    assert [event for event, _, _ in told] == ["progress", "progress", "completed"]
    assert [data["counts"]["failed"] for _, _, data in told] == [0, 3, 3]
    assert [event for event, _, _ in again] == ["completed"]


def test_what_was_heard_before_is_not_told_again(api: ApiBench) -> None:
    batch = create(api)
    with following(api, batch["id"]) as events_told:
        _, seen, _ = next(events_told)

    with following(api, batch["id"], **{"Last-Event-ID": seen}) as events_told:
        end_all(api, batch["id"])
        _, _, data = next(events_told)

    assert data["counts"]["failed"] == 3


def test_no_more_streams_than_there_are_threads_for(api: ApiBench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batch_events, "_open", threading.BoundedSemaphore(1))
    batch = create(api)
    end_all(api, batch["id"])
    follow(api)
    assert batch_events._open.acquire(blocking=False)

    refused = api.get(f"/v1/batches/{batch['id']}/events")
    batch_events._open.release()

    assert (refused.status_code, refused.headers["Retry-After"]) == (503, "5")
    for _ in range(3):
        with following(api, batch["id"]) as events_told:
            assert len(list(events_told)) == 1
