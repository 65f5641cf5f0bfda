"""Submitting a job and following it to its end."""

import base64
import hashlib
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from redis import Redis
from sqlalchemy import Engine

from shared.clock import utc_now
from shared.database.clients import create_key, list_keys, revoke_key
from shared.database.engine import transaction
from shared.domain.documents import DOCUMENT_TYPES
from shared.domain.job import JobErrorCode
from shared.ids import is_id, new_id
from shared.settings import Settings
from tests.factories import make_account, make_client
from tests.integration.api_tools import PICTURE, POLYGON, RAW, ApiBench, form, running_api


@pytest.fixture
def api(settings: Settings, engine: Engine, redis_client: Redis) -> Iterator[ApiBench]:
    make_account(engine, settings, "http://provider.invalid")
    with running_api(settings, engine) as bench:
        yield bench


ENCODED = base64.b64encode(PICTURE).decode()
FIELDS = {"document_type": "id_card", "options": {"side": "back"}}
QUERY = "document_type=id_card&options.side=back"


@pytest.mark.parametrize(
    "request_",
    [
        lambda: form(options='{"side": "back"}'),
        lambda: {"json": {**FIELDS, "image_base64": ENCODED}},
        lambda: {"json": {**FIELDS, "image_base64": f"data:image/jpeg;base64,{ENCODED}"}},
        lambda: {"data": PICTURE, "content_type": "image/jpeg", "query_string": QUERY},
    ],
    ids=["multipart", "json", "json with data prefix", "raw"],
)
def test_accepted_means_image_and_job_are_kept(
    api: ApiBench, redis_client: Redis, request_: Callable[[], dict[str, Any]]
) -> None:
    answer = api.call("POST", "/v1/jobs", **request_())

    job = answer.json
    assert answer.status_code == 202
    assert job is not None
    assert is_id(job["id"], "job")
    assert (job["object"], job["status"], job["waiting_on"]) == ("job", "queued", "worker")
    assert job["options"]["side"] == "back"
    assert (answer.headers["Location"], answer.headers["Retry-After"]) == (f"/v1/jobs/{job['id']}", "1")
    assert [path.read_bytes() for path in api.images] == [PICTURE]
    assert api.column(job["id"], "image_sha256") == hashlib.sha256(PICTURE).hexdigest()
    assert redis_client.llen("interactive") == 1
    assert api.column(job["id"], "published_at") is not None


def test_a_job_comes_back_as_it_was_sent(api: ApiBench) -> None:
    query = {"lane": "bulk", "client_reference_id": "0012", "metadata.desk": "7", "expires_in": "60"}

    job_id = api.submitted_id(query=query)

    job = api.get(f"/v1/jobs/{job_id}").json
    assert job is not None
    assert (job["lane"], job["client_reference_id"], job["metadata"]) == ("bulk", "0012", {"desk": "7"})
    assert (job["result"], job["error"], job["batch_id"], job["attempts"]) == (None, None, None, 0)
    assert job["queue"]["position"] == 1
    assert job["billing"] == {"calls": 0, "billed": 0, "cache_hit": False, "cache_source": None}
    assert (api.column(job_id, "expires_at") - api.column(job_id, "created_at")).total_seconds() == 60


def test_a_bulk_job_waits_in_postgres(api: ApiBench, redis_client: Redis) -> None:
    job_id = api.submitted_id(query={"lane": "bulk"})

    assert redis_client.llen("bulk") == 0
    assert api.column(job_id, "published_at") is None


def test_the_place_in_the_queue_is_counted_by_lane(api: ApiBench) -> None:
    lanes = ["interactive", "bulk", "interactive"]

    positions = [api.submit(query={"lane": lane}).json["queue"]["position"] for lane in lanes]  # type: ignore[index]

    assert positions == [1, 1, 2]


def test_a_succeeded_job_brings_its_result_without_geometry(api: ApiBench) -> None:
    job_id = api.submitted_id()
    api.succeed(job_id)

    answer = api.get(f"/v1/jobs/{job_id}")

    job = answer.json
    assert job is not None
    assert (job["status"], job["queue"], "Retry-After" in answer.headers) == ("succeeded", None, False)
    assert job["result"]["fields"]["name"]["value"] == "测样丽"
    assert "polygon" not in job["result"]["fields"]["name"]
    assert "raw" not in job["result"]
    assert job["timings_ms"]["total"] >= job["timings_ms"]["queue"] >= 0


@pytest.mark.parametrize(
    ("include", "has_geometry", "has_raw"),
    [("", False, False), ("?include=geometry", True, False), ("?include=raw", False, True),
     ("?include=geometry,raw", True, True)],
)  # fmt: skip
def test_geometry_and_raw_come_when_asked_for(api: ApiBench, include: str, has_geometry: bool, has_raw: bool) -> None:
    job_id = api.submitted_id()
    api.succeed(job_id)

    result = api.get(f"/v1/jobs/{job_id}/result{include}").json

    assert result is not None
    assert result["fields"]["name"].get("polygon") == (POLYGON if has_geometry else None)
    assert result.get("raw") == (RAW if has_raw else None)


def test_a_result_that_is_not_there_yet_is_a_202(api: ApiBench) -> None:
    job_id = api.submitted_id()

    answer = api.get(f"/v1/jobs/{job_id}/result")

    assert (answer.status_code, answer.headers["Retry-After"]) == (202, "1")


def test_a_failed_job_has_an_error_and_no_result(api: ApiBench) -> None:
    job_id = api.submitted_id()
    api.fail(job_id, JobErrorCode.BLURRED)

    job = api.get(f"/v1/jobs/{job_id}").json
    answer = api.get(f"/v1/jobs/{job_id}/result")

    assert job is not None
    assert (job["error"]["code"], job["error"]["retryable"], job["error"]["billed"]) == ("blurred", False, False)
    problem = answer.json
    assert problem is not None
    assert (answer.status_code, problem["code"]) == (409, "result_not_available")
    assert problem["job_error"]["code"] == "blurred"


def test_an_unchanged_job_is_a_304(api: ApiBench) -> None:
    job_id = api.submitted_id()
    tag = api.get(f"/v1/jobs/{job_id}").headers["ETag"]

    unchanged = api.get(f"/v1/jobs/{job_id}", headers={"If-None-Match": tag})
    api.fail(job_id)
    changed = api.get(f"/v1/jobs/{job_id}", headers={"If-None-Match": tag})

    assert (unchanged.status_code, unchanged.data) == (304, b"")
    assert (changed.status_code, changed.headers["ETag"] != tag) == (200, True)


def test_canceling_a_queued_job_twice_is_no_error(api: ApiBench) -> None:
    job_id = api.submitted_id()

    answers = [api.call("POST", f"/v1/jobs/{job_id}/cancel") for _ in range(2)]

    assert [(a.status_code, a.json["status"]) for a in answers] == [(200, "canceled")] * 2  # type: ignore[index]
    assert api.get(f"/v1/jobs/{job_id}/result").status_code == 409


@pytest.mark.parametrize("end", ["claim", "succeed", "fail"])
def test_a_job_that_has_started_is_not_cancelable(api: ApiBench, end: str) -> None:
    job_id = api.submitted_id()
    getattr(api, end)(job_id)

    answer = api.call("POST", f"/v1/jobs/{job_id}/cancel")

    assert (answer.status_code, answer.json["code"]) == (409, "job_not_cancelable")  # type: ignore[index]


@pytest.mark.parametrize("end", [None, "claim", "succeed", "fail"])
def test_erasing_leaves_a_tombstone_and_nothing_else(api: ApiBench, end: str | None) -> None:
    job_id = api.submitted_id(query={"client_reference_id": "zhang", "metadata.desk": "7"})
    if end is not None:
        getattr(api, end)(job_id)

    answers = [api.call("DELETE", f"/v1/jobs/{job_id}") for _ in range(2)]

    tombstone = api.get(f"/v1/jobs/{job_id}").json
    assert [answer.status_code for answer in answers] == [204, 204]
    assert api.images == []
    assert tombstone is not None
    assert (tombstone["result"], tombstone["client_reference_id"], tombstone["metadata"]) == (None, None, {})
    assert tombstone["links"]["image"] is None
    assert api.get(f"/v1/jobs/{job_id}/result").status_code == 410
    assert api.get(f"/v1/jobs/{job_id}/image").status_code == 410
    assert tombstone["status"] in ("canceled", "succeeded", "failed")


def test_the_image_comes_back_as_a_download(api: ApiBench) -> None:
    job_id = api.submitted_id()

    answer = api.get(f"/v1/jobs/{job_id}/image")

    assert answer.data == PICTURE
    assert answer.headers["Content-Type"] == "image/jpeg"
    assert answer.headers["Content-Disposition"] == f'attachment; filename="{job_id}.jpeg"'
    assert (answer.headers["Cache-Control"], answer.headers["X-Content-Type-Options"]) == ("no-store", "nosniff")


def test_a_lost_image_is_told_as_such(api: ApiBench) -> None:
    job_id = api.submitted_id()
    api.images[0].write_bytes(b"altered")

    answer = api.get(f"/v1/jobs/{job_id}/image")

    assert (answer.status_code, answer.json["code"]) == (500, "image_lost")  # type: ignore[index]


def test_a_list_is_read_page_by_page_newest_first(api: ApiBench) -> None:
    made = [api.submitted_id() for _ in range(5)]
    path, seen, pages = "/v1/jobs?limit=2", [], 0

    while path:
        page = api.get(path).json
        assert page is not None
        seen += [job["id"] for job in page["data"]]
        pages += 1
        path = f"/v1/jobs?limit=2&after={page['next']}" if page["next"] else ""

    assert (seen, pages) == (made[::-1], 3)


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ("status=succeeded", [1]),
        ("status=queued", [2, 0]),
        ("document_type=bank_card", [2]),
        ("client_reference_id=a", [0]),
        ("ids={0},{2}", [2, 0]),
        ("ids={1}&status=queued", []),
        ("", [2, 1, 0]),
    ],
)
def test_a_list_is_filtered(api: ApiBench, query: str, found: list[int]) -> None:
    made = [
        api.submitted_id(query={"client_reference_id": "a"}),
        api.submitted_id(),
        api.submitted_id(query={"document_type": "bank_card"}),
    ]
    api.succeed(made[1])

    page = api.get("/v1/jobs?" + query.format(*made)).json

    assert page is not None
    assert [job["id"] for job in page["data"]] == [made[number] for number in found]
    assert [job["result"] is not None for job in page["data"]] == [number == 1 for number in found]


@pytest.mark.parametrize(
    ("query", "pointer"),
    [
        ("status=done", "/status"), ("document_type=visa", "/document_type"), ("limit=0", "/limit"),
        ("limit=201", "/limit"), ("limit=x", "/limit"), ("after=1", "/after"), ("ids=1", "/ids"),
        ("ids=" + ",".join([new_id("job")] * 101), "/ids"), ("batch_id=1", "/batch_id"), ("limit=1&limit=2", "/limit"),
    ],
)  # fmt: skip
def test_a_wrong_filter_is_named(api: ApiBench, query: str, pointer: str) -> None:
    answer = api.get(f"/v1/jobs?{query}")

    assert answer.json is not None
    assert (answer.status_code, [error["pointer"] for error in answer.json["errors"]]) == (422, [pointer])


@pytest.mark.parametrize("path", ["?wait=61", "?wait=-1", "?wait=soon", "?include=raw", "/result?include=all"])
def test_a_wrong_query_of_a_job_is_refused(api: ApiBench, path: str) -> None:
    job_id = api.submitted_id()

    assert api.get(f"/v1/jobs/{job_id}{path}").status_code == 422


ROUTES = [("GET", ""), ("GET", "/result"), ("GET", "/image"), ("POST", "/cancel"), ("DELETE", "")]


@pytest.mark.parametrize(("method", "end"), ROUTES)
def test_another_clients_job_is_not_told_from_none(api: ApiBench, method: str, end: str) -> None:
    job_id = api.submitted_id()
    _, other = make_client(api.engine, "other")

    foreign = api.call(method, f"/v1/jobs/{job_id}{end}", key=other)
    unknown = api.call(method, f"/v1/jobs/{new_id('job')}{end}", key=other)
    nonsense = api.call(method, f"/v1/jobs/nonsense{end}", key=other)

    assert {answer.status_code for answer in (foreign, unknown, nonsense)} == {404}
    assert len({answer.json["code"] + answer.json["detail"] for answer in (foreign, unknown, nonsense)}) == 1  # type: ignore[index]
    assert api.get(f"/v1/jobs/{job_id}").json["status"] == "queued"  # type: ignore[index]
    assert len(api.images) == 1


def test_a_list_shows_the_clients_own_jobs_only(api: ApiBench) -> None:
    job_id = api.submitted_id()
    _, other = make_client(api.engine, "other")

    page = api.get(f"/v1/jobs?ids={job_id}", key=other).json

    assert page == {"data": [], "next": None}


@pytest.mark.parametrize(
    "headers",
    [{}, {"Authorization": "Bearer kz_wrong"}, {"Authorization": "Basic a2V5"}, {"Authorization": "Bearer "}],
    ids=["none", "wrong", "other scheme", "empty"],
)
def test_every_route_but_the_open_ones_wants_a_key(api: ApiBench, headers: dict[str, str]) -> None:
    rules = [rule for rule in api.http.application.url_map.iter_rules() if rule.rule.startswith("/v1/")]

    for rule in rules:
        (method,) = (rule.methods or set()) - {"HEAD"}
        answer = api.call(method, rule.rule.replace("<job_id>", new_id("job")), key=None, headers=headers)
        assert (answer.status_code, answer.headers["WWW-Authenticate"]) == (401, 'Bearer realm="kazheng"')
    assert rules


def test_a_revoked_key_is_refused_at_once(api: ApiBench) -> None:
    with transaction(api.engine) as connection:
        key = create_key(connection, client="tests", name="second")
    before = api.get("/v1/jobs", key=key).status_code

    with transaction(api.engine) as connection:
        revoke_key(connection, list_keys(connection)[-1].id, utc_now())
    after = api.get("/v1/jobs", key=key)

    assert (before, after.status_code, after.json["code"]) == (200, 401, "unauthenticated")  # type: ignore[index]
    assert api.get("/v1/jobs").status_code == 200


def test_document_types_are_listed_without_the_vendors_words(api: ApiBench) -> None:
    answer = api.get("/v1/document-types")

    assert answer.json is not None
    assert [row["name"] for row in answer.json["data"]] == list(DOCUMENT_TYPES)
    assert set(answer.json["data"][0]["fields"]) == {"front", "back"}
    assert "id_card_side" not in answer.text


def test_a_preferred_wait_ends_with_the_finished_job(api: ApiBench, redis_client: Redis) -> None:
    def work() -> None:
        while not (waiting := redis_client.llen("interactive")):
            pass
        assert waiting == 1
        page = api.services.engine
        with transaction(page) as connection:
            job_id = connection.exec_driver_sql("SELECT id FROM jobs").scalar_one()
        api.succeed(job_id)
        api.services.announce_final(job_id)

    worker = threading.Thread(target=work)
    worker.start()
    answer = api.submit(headers={"Prefer": "respond-async, wait=30"})
    worker.join()

    assert answer.json is not None
    assert (answer.status_code, answer.json["status"]) == (200, "succeeded")
    assert answer.headers["Preference-Applied"] == "wait=30"


def test_a_preferred_wait_that_is_too_short_is_no_error(api: ApiBench) -> None:
    answer = api.submit(headers={"Prefer": "wait=1"})

    assert (answer.status_code, answer.headers["Retry-After"]) == (202, "1")


@pytest.mark.parametrize("preference", ["wait=soon", "await=1", "return=minimal", ""])
def test_a_preference_that_makes_no_sense_is_none(api: ApiBench, preference: str) -> None:
    answer = api.submit(headers={"Prefer": preference})

    assert (answer.status_code, "Preference-Applied" in answer.headers) == (202, False)
