"""Errors as problem documents."""

from collections.abc import Iterator

import pytest
from flask import Flask
from structlog.testing import capture_logs
from werkzeug.exceptions import BadGateway

from api.problems import RETRY_AFTER_SECONDS, STATUSES, register_problems
from api.request_log import register_request_log
from shared.domain import errors
from shared.domain.errors import (
    FieldError,
    IdempotencyInProgressError,
    ImageEncodingError,
    ImageFormatError,
    InvalidRequestError,
    KazhengError,
    StorageFullError,
    UnauthenticatedError,
    UnavailableError,
)


def subclasses(parent: type[KazhengError]) -> Iterator[type[KazhengError]]:
    for child in parent.__subclasses__():
        if child.__module__ == errors.__name__:
            yield child
            yield from subclasses(child)


def answer(error: Exception, **headers: str) -> tuple[int, dict[str, object], dict[str, str]]:
    app = Flask(__name__)
    register_request_log(app)
    register_problems(app)

    def fail() -> str:
        raise error

    app.add_url_rule("/fail", view_func=fail)
    response = app.test_client().get("/fail", headers=headers)
    return response.status_code, response.get_json(), dict(response.headers)


@pytest.mark.parametrize("error", [e for e in subclasses(KazhengError) if "code" in e.__dict__])
def test_every_error_with_a_code_has_a_row(error: type[KazhengError]) -> None:
    assert error in STATUSES


def test_codes_name_one_error_each() -> None:
    codes = [error.code for error in STATUSES]

    assert len(codes) == len(set(codes))


@pytest.mark.parametrize("error", [e for e in subclasses(UnavailableError) if "code" in e.__dict__])
def test_whoever_finds_us_unavailable_is_told_when_to_come_back(error: type[KazhengError]) -> None:
    assert RETRY_AFTER_SECONDS[error] > 0


def test_problem_says_what_is_wrong_where() -> None:
    wrong = InvalidRequestError([FieldError("/lane", "must be one of: interactive, bulk")])

    status, body, headers = answer(wrong, **{"X-Request-Id": "req-7"})

    assert (status, headers["Content-Type"]) == (422, "application/problem+json")
    assert body == {
        "type": "urn:kazheng:problem:invalid_request",
        "title": "Invalid request",
        "status": 422,
        "code": "invalid_request",
        "detail": "/lane: must be one of: interactive, bulk",
        "retryable": False,
        "request_id": "req-7",
        "errors": [{"pointer": "/lane", "detail": "must be one of: interactive, bulk"}],
    }


@pytest.mark.parametrize(
    ("error", "pointer"),
    [(ImageFormatError("No image."), "/image"), (ImageEncodingError("No base64."), "/image_base64")],
)
def test_a_bad_image_has_a_pointer_too(error: KazhengError, pointer: str) -> None:
    _, body, _ = answer(error)

    assert body["errors"] == [{"pointer": pointer, "detail": error.detail}]


@pytest.mark.parametrize(
    ("error", "status", "retry_after"),
    [
        (StorageFullError("Full."), 507, "60"),
        (IdempotencyInProgressError("Running."), 409, "1"),
    ],
)
def test_what_passes_is_told_to_be_repeated(error: KazhengError, status: int, retry_after: str) -> None:
    found, body, headers = answer(error)

    assert (found, body["retryable"], headers["Retry-After"]) == (status, True, retry_after)


def test_a_missing_key_is_answered_with_the_scheme_to_use() -> None:
    status, _, headers = answer(UnauthenticatedError("Send your API key."))

    assert (status, headers["WWW-Authenticate"]) == (401, 'Bearer realm="kazheng"')


def test_an_unknown_error_tells_nothing_to_the_client_and_all_to_the_log() -> None:
    error = RuntimeError("number 6222 0000")

    with capture_logs() as events:
        status, body, _ = answer(error)

    assert (status, body["code"], body["retryable"]) == (500, "internal_error", False)
    assert "6222" not in str(body)
    assert [event["exc_info"] for event in events if event["event"] == "request_crashed"] == [error]


def test_what_the_framework_refuses_is_a_problem_too() -> None:
    status, body, headers = answer(BadGateway("quoted from the request"))

    assert (status, headers["Content-Type"], body["code"]) == (502, "application/problem+json", "http_502")
    assert "quoted" not in str(body)


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [("GET", "/nowhere", 404, "not_found"), ("DELETE", "/fail", 405, "method_not_allowed")],
)
def test_wrong_address_and_wrong_method(method: str, path: str, status: int, code: str) -> None:
    app = Flask(__name__)
    register_request_log(app)
    register_problems(app)
    app.add_url_rule("/fail", view_func=lambda: "")

    response = app.test_client().open(path, method=method)

    assert (response.status_code, response.get_json()["code"]) == (status, code)
    assert ("Allow" in response.headers) is (status == 405)


@pytest.mark.parametrize("given", ["", "a b", "x" * 129, "name=张", "a;b"])
def test_a_request_id_that_could_hold_anything_is_replaced(given: str) -> None:
    app = Flask(__name__)
    register_request_log(app)
    app.add_url_rule("/", view_func=lambda: "")

    response = app.test_client().get("/", environ_overrides={"HTTP_X_REQUEST_ID": given.encode().decode("latin-1")})

    assert response.headers["X-Request-Id"].startswith("req_")


@pytest.mark.parametrize("given", ["a", "x" * 128, "trace-1.2_3"])
def test_an_acceptable_request_id_is_echoed(given: str) -> None:
    app = Flask(__name__)
    register_request_log(app)
    app.add_url_rule("/", view_func=lambda: "")

    response = app.test_client().get("/", headers={"X-Request-Id": given})

    assert response.headers["X-Request-Id"] == given


def test_the_log_line_holds_the_route_and_nothing_of_the_request() -> None:
    app = Flask(__name__)
    register_request_log(app)
    app.add_url_rule("/jobs/<job_id>", view_func=lambda job_id: "", methods=["POST"])

    with capture_logs() as events:
        app.test_client().post("/jobs/job_7?client_reference_id=zhang-san", data=b"6222 0000")

    (line,) = [event for event in events if event["event"] == "request"]
    assert (line["method"], line["route"], line["status"], line["bytes_in"]) == ("POST", "/jobs/<job_id>", 200, 9)
    assert not any(secret in str(line) for secret in ("zhang", "6222", "job_7"))
