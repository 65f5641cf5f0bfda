"""What the Python client promises its callers."""

import io
import json
from datetime import timedelta
from email.message import Message
from email.parser import BytesParser
from pathlib import Path

import httpx
import pytest

from kazheng import (
    ApiError,
    ApiUnreachableError,
    AuthenticationError,
    JobFailedError,
    ResultNotReadyError,
    WaitTimeoutError,
)
from tests.unit.client.api_double import ScriptedApi, answer, job_json, problem


def form_of(request: httpx.Request) -> dict[str, bytes]:
    head = f"Content-Type: {request.headers['Content-Type']}\r\n\r\n".encode()
    whole: Message = BytesParser().parsebytes(head + request.content)
    parts = [part for part in whole.walk() if not part.is_multipart()]
    named = {str(part.get_param("name", header="content-disposition")): part for part in parts}
    return {name: bytes(part.get_payload(decode=True) or b"") for name, part in named.items()}


def keys_of(api: ScriptedApi) -> set[str]:
    return {request.headers["Idempotency-Key"] for request in api.requests}


def test_submission_carries_key_image_and_options(tmp_path: Path) -> None:
    picture = tmp_path / "zhang-san.jpg"
    picture.write_bytes(b"bytes of a picture")
    api = ScriptedApi([answer(202, job_json())])

    job = api.client().submit(
        picture,
        document_type="id_card",
        options={"side": "back"},
        lane="bulk",
        client_reference_id="order-7",
        metadata={"shop": "北京"},
        expires_in=timedelta(minutes=2),
    )

    request = api.requests[0]
    form = form_of(request)
    assert job.id == "job_1"
    assert request.headers["Authorization"] == "Bearer kz_test"
    assert form["image"] == b"bytes of a picture"
    assert json.loads(form["options"]) == {"side": "back"}
    assert json.loads(form["metadata"]) == {"shop": "北京"}
    assert (form["document_type"], form["lane"], form["expires_in"]) == (b"id_card", b"bulk", b"120")
    assert form["client_reference_id"] == b"order-7"


def test_file_name_stays_with_the_caller(tmp_path: Path) -> None:
    picture = tmp_path / "zhang-san.jpg"
    picture.write_bytes(b"bytes")
    api = ScriptedApi([answer(202, job_json())])

    api.client().submit(picture, document_type="id_card")

    assert b"zhang-san" not in api.requests[0].content


@pytest.mark.parametrize("image", [b"bytes", io.BytesIO(b"bytes")])
def test_bytes_and_open_files_are_taken_as_they_are(image: bytes | io.BytesIO) -> None:
    api = ScriptedApi([answer(202, job_json())])

    api.client().submit(image, document_type="bank_card")

    assert form_of(api.requests[0])["image"] == b"bytes"


@pytest.mark.parametrize(
    "passing",
    [
        httpx.ConnectError("refused"),
        httpx.ReadTimeout("no answer"),  # it may have arrived: only the key makes a second try safe
        httpx.RemoteProtocolError("cut off"),
        answer(429),
        answer(502),
        answer(503),
        answer(504),
        problem(409, "idempotency_key_in_progress"),  # the try before is still being served
    ],
)
def test_submission_is_repeated_under_one_idempotency_key(passing: httpx.Response | Exception) -> None:
    api = ScriptedApi([passing, passing, answer(202, job_json())])

    job = api.client().submit(io.BytesIO(b"bytes"), document_type="id_card")

    assert job.id == "job_1"
    assert len(api.requests) == 3
    assert len(keys_of(api)) == 1
    assert {form_of(request)["image"] for request in api.requests} == {b"bytes"}


def test_two_submissions_have_two_keys_and_a_given_key_is_used() -> None:
    api = ScriptedApi([answer(202, job_json())])
    client = api.client()

    client.submit(b"bytes", document_type="id_card")
    client.submit(b"bytes", document_type="id_card")
    client.submit(b"bytes", document_type="id_card", idempotency_key="mine")

    assert len(keys_of(api)) == 3
    assert "mine" in keys_of(api)


@pytest.mark.parametrize("status", [400, 404, 409, 413, 415, 422, 500])
def test_what_would_fail_again_is_not_repeated(status: int) -> None:
    api = ScriptedApi([problem(status, "some_code")])

    with pytest.raises(ApiError) as caught:
        api.client().submit(b"bytes", document_type="id_card")

    assert len(api.requests) == 1
    assert caught.value.status == status


def test_retries_are_bounded_and_back_off() -> None:
    api = ScriptedApi([httpx.ConnectError("refused")])

    with pytest.raises(ApiUnreachableError) as caught:
        api.client(max_retries=4).submit(b"bytes", document_type="id_card", idempotency_key="mine")

    assert len(api.requests) == 5
    assert api.clock.naps == [0.25, 0.5, 1.0, 2.0]
    assert caught.value.idempotency_key == "mine"


def test_retry_after_decides_the_pause() -> None:
    api = ScriptedApi([answer(429, Retry_After="7"), answer(503, Retry_After="3"), answer(200, job_json())])

    api.client().get("job_1")

    assert api.clock.naps == [7.0, 3.0]


def test_senseless_retry_after_is_ignored() -> None:
    api = ScriptedApi([answer(503, Retry_After="soon"), answer(200, job_json())])

    api.client().get("job_1")

    assert api.clock.naps == [0.25]


def test_problem_becomes_an_error_with_its_members() -> None:
    errors = [{"pointer": "/options/side", "detail": "must be one of: front, back"}]
    api = ScriptedApi([problem(422, "invalid_request", errors=errors, retryable=False)])

    with pytest.raises(ApiError) as caught:
        api.client().submit(b"bytes", document_type="id_card", options={"side": "left"})

    error = caught.value
    assert (error.code, error.detail, error.status) == ("invalid_request", "A sentence.", 422)
    assert error.request_id == "req_1"
    assert error.errors[0].pointer == "/options/side"


def test_refused_key_has_an_error_of_its_own_that_does_not_show_the_key() -> None:
    api = ScriptedApi([problem(401, "unauthenticated")])

    with pytest.raises(AuthenticationError) as caught:
        api.client().get("job_1")

    assert "kz_test" not in str(caught.value)


@pytest.mark.parametrize("body", [b"<html>Welcome to nginx</html>", b"[]", b'{"hello": "world"}', b""])
def test_answer_of_something_else_is_an_api_error(body: bytes) -> None:
    api = ScriptedApi([httpx.Response(200, content=body)])

    with pytest.raises(ApiError) as caught:
        api.client().get("job_1")

    assert caught.value.code == "unexpected_answer"


def test_error_page_of_a_proxy_is_an_api_error() -> None:
    api = ScriptedApi([httpx.Response(413, content=b"<html>Too large</html>")])

    with pytest.raises(ApiError) as caught:
        api.client().submit(b"bytes", document_type="id_card")

    assert (caught.value.code, caught.value.status) == ("http_413", 413)


def test_wait_polls_until_the_job_is_final() -> None:
    api = ScriptedApi(
        [
            answer(200, job_json("queued"), Retry_After="2"),
            answer(200, job_json("processing")),
            answer(200, job_json("succeeded")),
        ]
    )

    job = api.client().wait("job_1")

    assert job.has_succeeded
    assert api.paths == ["GET /v1/jobs/job_1?wait=20"] * 3
    assert api.clock.naps == [2.0, 1.0]


def test_wait_is_bounded_and_names_the_job() -> None:
    api = ScriptedApi([answer(200, job_json("processing"), Retry_After="4")])

    with pytest.raises(WaitTimeoutError) as caught:
        api.client().wait("job_1", timeout=10)

    assert caught.value.job_id == "job_1"
    assert "job_1" in str(caught.value)
    assert caught.value.status == "processing"
    assert api.clock.now == 1010.0


def test_wait_never_holds_a_poll_beyond_its_own_bound() -> None:
    api = ScriptedApi([answer(200, job_json("queued"), Retry_After="9")])

    with pytest.raises(WaitTimeoutError):
        api.client().wait("job_1", timeout=12)

    assert [request.url.params.get("wait") for request in api.requests] == ["12", "3", None]


def test_wait_ends_in_time_although_the_api_is_away() -> None:
    api = ScriptedApi([answer(503, Retry_After="8")])

    with pytest.raises(WaitTimeoutError) as caught:
        api.client().wait("job_1", timeout=20)

    assert caught.value.job_id == "job_1"
    assert api.clock.now <= 1020.0


def test_final_job_is_not_asked_for_again() -> None:
    api = ScriptedApi([answer(202, job_json("succeeded"))])
    client = api.client()
    job = client.submit(b"bytes", document_type="id_card")

    assert client.wait(job) is job
    assert len(api.requests) == 1


def test_failed_job_is_returned_by_wait_and_raised_when_its_result_is_wanted() -> None:
    error = {"code": "wrong_side", "detail": "Turn it over.", "retryable": False}
    api = ScriptedApi([answer(200, job_json("failed", error=error))])

    job = api.client().wait("job_1")

    with pytest.raises(JobFailedError) as caught:
        job.require_result()
    assert (caught.value.job_id, caught.value.code) == ("job_1", "wrong_side")


def test_list_follows_the_cursor_through_all_pages() -> None:
    api = ScriptedApi(
        [
            answer(200, {"data": [job_json(id="job_3"), job_json(id="job_2")], "next": "cursor/2"}),
            answer(200, {"data": [job_json(id="job_1")], "next": None}),
        ]
    )

    jobs = list(api.client().list(status="failed", ids=["job_1", "job_2", "job_3"], page_size=2))

    assert [job.id for job in jobs] == ["job_3", "job_2", "job_1"]
    first, second = (request.url.params for request in api.requests)
    assert dict(first) == {"status": "failed", "ids": "job_1,job_2,job_3", "limit": "2"}
    assert dict(second) == dict(first) | {"after": "cursor/2"}


def test_list_fetches_a_page_when_it_is_needed() -> None:
    api = ScriptedApi([answer(200, {"data": [job_json(id="job_2")], "next": "more"})])

    next(iter(api.client().list()))

    assert len(api.requests) == 1


def test_result_is_typed() -> None:
    body = {
        "fields": {"name": {"value": "测样丽", "label": "姓名"}},
        "checks": [{"code": "expiry", "status": "passed"}],
    }
    api = ScriptedApi([answer(200, body)])

    result = api.client().result("job_1", include=("geometry", "raw"))

    assert result.fields["name"].value == "测样丽"
    assert result.checks[0].code == "expiry"
    assert dict(api.requests[0].url.params) == {"include": "geometry,raw"}


def test_result_of_an_unfinished_job_is_not_ready() -> None:
    api = ScriptedApi([answer(202, job_json("queued"), Retry_After="3")])

    with pytest.raises(ResultNotReadyError) as caught:
        api.client().result("job_1")

    assert caught.value.retry_after_seconds == 3.0


def test_result_of_a_failed_job_says_why_there_is_none() -> None:
    error = {"code": "blurred", "detail": "Hold still.", "retryable": False}
    api = ScriptedApi([problem(409, "result_not_available"), answer(200, job_json("failed", error=error))])

    with pytest.raises(JobFailedError) as caught:
        api.client().result("job_1")

    assert caught.value.code == "blurred"


def test_erased_result_is_an_api_error() -> None:
    api = ScriptedApi([problem(410, "erased")])

    with pytest.raises(ApiError) as caught:
        api.client().result("job_1")

    assert caught.value.code == "erased"


def test_canceling_twice_is_no_error() -> None:
    api = ScriptedApi([problem(409, "job_not_cancelable"), answer(200, job_json("canceled"))])

    assert api.client().cancel("job_1").status == "canceled"
    assert api.paths == ["POST /v1/jobs/job_1/cancel", "GET /v1/jobs/job_1"]


def test_canceling_what_has_started_is_refused() -> None:
    api = ScriptedApi([problem(409, "job_not_cancelable"), answer(200, job_json("processing"))])

    with pytest.raises(ApiError) as caught:
        api.client().cancel("job_1")

    assert caught.value.code == "job_not_cancelable"


def test_delete_erases_a_job() -> None:
    api = ScriptedApi([httpx.Response(204)])

    api.client().delete("job_1")

    assert api.paths == ["DELETE /v1/jobs/job_1"]


def test_id_can_not_reach_another_path() -> None:
    api = ScriptedApi([answer(200, job_json())])

    api.client().get("../../metrics?x=1")

    assert api.paths == ["GET /v1/jobs/..%2F..%2Fmetrics%3Fx%3D1"]


def test_environment_is_not_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv("KAZHENG_API_KEY", "kz_other")
    api = ScriptedApi([answer(200, job_json())])

    api.client().get("job_1")

    assert api.requests[0].headers["Authorization"] == "Bearer kz_test"
