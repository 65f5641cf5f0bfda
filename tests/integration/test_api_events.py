"""Deliveries looked at and sent again, events pulled and made."""

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import Engine

from shared.settings import Settings
from tests.factories import make_client
from tests.integration.api_tools import ApiBench, running_api
from tests.integration.api_webhook_tools import call, deliver, path_of, place, register
from tests.integration.webhook_bench import open_to_loopback
from tests.receivers import receiver


@pytest.fixture
def api(settings: Settings, engine: Engine, redis_client: object) -> Iterator[ApiBench]:
    with running_api(open_to_loopback(settings), engine) as bench:
        yield bench


def test_events_of_others_are_neither_pulled_nor_delivered(api: ApiBench, engine: Engine) -> None:
    _, stranger = make_client(engine, "stranger")
    with receiver() as there:
        mine = register(api, there.url)
        theirs = call(api, "POST", "/v1/webhook-endpoints", 201, {"url": there.url}, key=stranger)
        call(api, "POST", f"/v1/jobs/{api.submitted_id()}/cancel")
        deliver(api, mine["id"])
        deliver(api, theirs["id"])

    assert len(there.seen) == 1
    assert call(api, "GET", "/v1/events", key=stranger)["data"] == []
    assert len(call(api, "GET", "/v1/events")["data"]) == 1


def test_deliveries_are_listed_filtered_and_sent_again(api: ApiBench) -> None:
    with receiver() as there:
        endpoint = register(api, there.url)
        ids = [api.submitted_id() for _ in range(3)]
        for job_id in ids:
            call(api, "POST", f"/v1/jobs/{job_id}/cancel")
        deliver(api, endpoint["id"])
        listed = path_of(endpoint, "deliveries")
        first = call(api, "GET", listed + "?limit=2")
        rest = call(api, "GET", f"{listed}?limit=2&after={first['next']}")
        found = [*first["data"], *rest["data"]]
        assert [one["job_id"] for one in found] == ids[::-1]
        assert rest["next"] is None
        assert call(api, "GET", f"{listed}?status=failed")["data"] == []
        assert call(api, "GET", f"{listed}?event_type=job.succeeded")["data"] == []
        (one,) = call(api, "GET", f"{listed}?job_id={ids[1]}")["data"]
        assert call(api, "GET", f"{listed}/{one['id']}") == one
        assert one["attempts"][0]["excerpt"] == "ok"

        again = call(api, "POST", f"{listed}/{one['id']}/resend")
        deliver(api, endpoint["id"])

    assert again["status"] == "pending"
    assert there.event_ids[3] == one["event_id"] == there.event_ids[1]


def test_recovering_brings_what_was_missed_and_nothing_twice(api: ApiBench) -> None:
    since = (datetime.now(UTC) - timedelta(hours=1)).isoformat()
    with receiver() as there:
        endpoint = register(api, there.url)
        call(api, "POST", f"/v1/jobs/{api.submitted_id()}/cancel")
        deliver(api, endpoint["id"])
        call(api, "POST", path_of(endpoint, "disable"))
        for _ in range(3):
            call(api, "POST", f"/v1/jobs/{api.submitted_id()}/cancel")
        assert deliver(api, endpoint["id"]) == 0
        refused = call(api, "POST", path_of(endpoint, "recover"), 409, {"since": since})
        assert refused["code"] == "endpoint_disabled"

        call(api, "POST", path_of(endpoint, "enable"))
        first = call(api, "POST", path_of(endpoint, "recover"), 202, {"since": since})
        second = call(api, "POST", path_of(endpoint, "recover"), 202, {"since": since})
        deliver(api, endpoint["id"])

    assert first == {"recovered": 3, "next": None}
    assert second["recovered"] == 0
    assert len(there.seen) == 4
    assert len(set(there.event_ids)) == 4


def test_a_recovery_cut_short_goes_on_where_it_was(api: ApiBench, monkeypatch: pytest.MonkeyPatch) -> None:
    for _ in range(5):
        call(api, "POST", f"/v1/jobs/{api.submitted_id()}/cancel")
    place(api)
    with receiver() as there:
        endpoint, numbers = register(api, there.url), []
        monkeypatch.setattr("api.routes.deliveries._AT_ONCE", 2)
        monkeypatch.setattr("api.routes.deliveries._LONGEST_SECONDS", -1)
        body = {"since": "2026-01-01T00:00:00Z"}
        while True:
            answer = call(api, "POST", path_of(endpoint, "recover"), 202, body)
            numbers.append(answer["recovered"])
            if answer["next"] is None:
                break
            body["after"] = answer["next"]
        deliver(api, endpoint["id"])

    assert numbers == [2, 2, 1, 0]
    assert len(set(there.event_ids)) == 5


def test_nothing_of_an_erased_job_is_sent_again(api: ApiBench) -> None:
    with receiver() as there:
        endpoint = register(api, there.url)
        job_id = api.submitted_id(query={"webhook_url": there.url})
        call(api, "POST", f"/v1/jobs/{job_id}/cancel")
        place(api)
        of_the_job = next(
            one["id"] for one in call(api, "GET", "/v1/webhook-endpoints")["data"] if one["kind"] != "registered"
        )
        deliver(api, endpoint["id"])
        deliver(api, of_the_job)
        call(api, "DELETE", f"/v1/jobs/{job_id}", 204)
        for endpoint_id in (endpoint["id"], of_the_job):
            path = f"/v1/webhook-endpoints/{endpoint_id}"
            (delivery,) = call(api, "GET", f"{path}/deliveries")["data"]
            problem = call(api, "POST", f"{path}/deliveries/{delivery['id']}/resend", 409)
            assert "erased" in problem["detail"]
            recovered = call(api, "POST", f"{path}/recover", 202, {"since": "2026-01-01T00:00:00Z"})
            assert recovered["recovered"] == 0
        late = register(api, there.url)
        recovered = call(api, "POST", path_of(late, "recover"), 202, {"since": "2026-01-01T00:00:00Z"})

    assert recovered["recovered"] == 0
    assert len(there.seen) == 2


@pytest.mark.parametrize("since", [None, "yesterday", "2026-11-23T00:00:00", 7.5])
def test_a_recovery_needs_a_moment_with_a_zone(api: ApiBench, since: Any) -> None:
    endpoint = register(api)
    if since == 7.5:
        since = True

    problem = call(api, "POST", path_of(endpoint, "recover"), 422, {"since": since})

    assert problem["errors"][0]["pointer"] == "/since"


def test_events_are_pulled_in_order_each_once(api: ApiBench) -> None:
    ids = [api.submitted_id() for _ in range(5)]
    seen, after = [], "latest"
    after = call(api, "GET", "/v1/events?after=latest")["next"]
    for job_id in ids:
        call(api, "POST", f"/v1/jobs/{job_id}/cancel")
        place(api)
    while page := call(api, "GET", f"/v1/events?after={after}&limit=2")["data"]:
        seen += page
        after = call(api, "GET", f"/v1/events?after={after}&limit=2")["next"]

    assert [event["data"]["job_id"] for event in seen] == ids
    assert call(api, "GET", f"/v1/events?after={after}") == {"data": [], "next": after}
    assert call(api, "GET", "/v1/events?types=batch.completed")["data"] == []
    for wrong in ("after=first", "types=job.dreamt", "limit=0", "payload=fat", "before=1"):
        call(api, "GET", f"/v1/events?{wrong}", 422)


def test_pulled_events_hold_the_fields_if_wanted(api: ApiBench) -> None:
    job_id = api.submitted_id()
    api.succeed(job_id)
    place(api)

    thin = call(api, "GET", "/v1/events")["data"]
    full = call(api, "GET", "/v1/events?payload=full")["data"]

    assert "fields" not in thin[0]["data"]
    assert full[0]["data"]["fields"]["name"]["value"] == "测样丽"
    assert "polygon" not in full[0]["data"]["fields"]["name"]


def test_an_event_can_be_made_to_try_receivers_with(api: ApiBench) -> None:
    with receiver() as there:
        endpoint = register(api, there.url, event_types=["job.succeeded", "quota.warning"])
        made = call(api, "POST", "/v1/events", 202, {"type": "job.succeeded"})
        call(api, "POST", "/v1/events", 202, {"type": "batch.completed"})
        call(api, "POST", "/v1/events", 202, {"type": "quota.warning"})
        deliver(api, endpoint["id"])

    assert there.event_ids[0] == made["id"]
    said = [json.loads(seen.body) for seen in there.seen]
    assert [event["type"] for event in said] == ["job.succeeded", "quota.warning"]
    assert all(event["data"]["test"] for event in said)
    call(api, "POST", "/v1/events", 422, {"type": "webhook.ping"})
    call(api, "POST", "/v1/events", 422, {"type": "quota.warning", "job_id": "job_" + "0" * 26})
    call(api, "POST", "/v1/events", 404, {"type": "job.failed", "job_id": "job_" + "0" * 26})
