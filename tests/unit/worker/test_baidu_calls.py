"""Calls to a provider that answers, stumbles, hangs up, or is no provider at all."""

import base64
import gzip
import json
import logging.config
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs

import pytest

from shared.domain.documents import DOCUMENT_TYPES
from shared.domain.errors import ProviderError
from shared.domain.job import JobErrorCode
from shared.domain.retry import FailureKind
from shared.log import QUIET_LOGGERS
from worker.providers.baidu import BaiduProvider
from worker.providers.baidu_errors import ERRORS, row_for
from worker.providers.protocol import Credentials, PreparedImage

DOCUMENT = DOCUMENT_TYPES["id_card"]
OPTIONS = DOCUMENT.validate_options({"detect_risk": True})
IMAGE = PreparedImage(bytes(range(256)) * 3, 100, 100)
TOKEN, SECRET = "24.token-of-nobody", "secret-of-nobody"


@contextmanager
def upstream(answer: Callable[[BaseHTTPRequestHandler], None]) -> Iterator[tuple[str, list[tuple[str, bytes]]]]:
    seen: list[tuple[str, bytes]] = []

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            seen.append((self.path, self.rfile.read(int(self.headers["Content-Length"]))))
            answer(self)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", seen
    finally:
        server.shutdown()
        server.server_close()


def says(
    body: bytes, status: int = 200, *, length: int | None = None, **headers: str
) -> Callable[[BaseHTTPRequestHandler], None]:
    def answer(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(status)
        for name, value in {"Content-Length": str(length or len(body)), "Connection": "close", **headers}.items():
            handler.send_header(name, value)
        handler.end_headers()
        handler.wfile.write(body)

    return answer


def provider(deadline: float = 5.0) -> BaiduProvider:
    return BaiduProvider(connect_timeout=1, read_timeout=2, deadline=deadline)


def for_ever() -> float:
    return float("inf")


def call(base_url: str, deadline: float = 5.0, safe_until: Callable[[], float] = for_ever) -> ProviderError:
    baidu = provider(deadline)
    body = baidu.encode(DOCUMENT, OPTIONS, IMAGE)
    with pytest.raises(ProviderError) as caught:
        baidu.recognize(base_url, TOKEN, DOCUMENT, OPTIONS, body, IMAGE, safe_until=safe_until)
    assert TOKEN not in str(caught.value)
    assert caught.value.__cause__ is None  # the cause would quote the address, and with it the token
    return caught.value


def test_the_image_arrives_byte_for_byte() -> None:
    with upstream(says(b'{"error_code": 216633}')) as (url, seen):
        call(url)

    path, body = seen[0]
    form = {name: found[0] for name, found in parse_qs(body.decode()).items()}
    assert path == f"/rest/2.0/ocr/v1/idcard?access_token={TOKEN}"
    assert base64.b64decode(form.pop("image"), validate=True) == IMAGE.content
    assert form == {"id_card_side": "front", "detect_risk": "true"}


# Code, kind, what the client is told.
@pytest.mark.parametrize(
    ("code", "kind", "error"),
    [
        (1, FailureKind.RETRY_SOON, "provider_failed"),
        (4, FailureKind.OVERLOADED, "provider_failed"),
        (6, FailureKind.MISCONFIGURED, "provider_misconfigured"),
        (14, FailureKind.MISCONFIGURED, "provider_misconfigured"),
        (17, FailureKind.QUOTA_USED_UP, "provider_failed"),
        (18, FailureKind.THROTTLED, "provider_failed"),
        (19, FailureKind.TOTAL_USED_UP, "provider_failed"),
        (100, FailureKind.REFRESH_TOKEN, "provider_misconfigured"),
        (110, FailureKind.REFRESH_TOKEN, "provider_misconfigured"),
        (111, FailureKind.REFRESH_TOKEN, "provider_misconfigured"),
        (216100, FailureKind.BAD_INPUT, "request_rejected"),
        (216201, FailureKind.BAD_INPUT, "image_rejected"),
        (216633, FailureKind.BAD_INPUT, "not_an_id_card"),
        (282000, FailureKind.RETRY_SOON, "provider_failed"),
        (282102, FailureKind.BAD_INPUT, "not_an_id_card"),  # target not found: the type we asked for
        (216555, FailureKind.BAD_INPUT, "request_rejected"),  # unknown, among those about the request
        (289999, FailureKind.RETRY_SOON, "provider_failed"),  # unknown
    ],
)
def test_every_code_asks_for_something(code: int, kind: FailureKind, error: str) -> None:
    answer = {"error_code": code, "error_msg": "said by the vendor", "log_id": "179"}

    with upstream(says(json.dumps(answer).encode())) as (url, _):
        failure = call(url)

    assert (failure.kind, failure.error_code, failure.upstream_code) == (kind, error, str(code))
    assert failure.upstream_log_id == "179"


def test_unknown_codes_are_not_tried_for_ever() -> None:
    assert row_for(999_999).max_attempts == 2
    assert all(code > 0 for code in ERRORS)


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        (says(b"<html>bad gateway</html>", 502), FailureKind.RETRY_SOON),
        (says(b"<html>too large</html>", 413), FailureKind.BAD_INPUT),
        (says(b""), FailureKind.RETRY_SOON),
        (says(b"[1, 2]"), FailureKind.RETRY_SOON),
        (says(b'{"error_code": "odd"}'), FailureKind.RETRY_SOON),
        (says(b"", 302, Location="http://127.0.0.1:9/elsewhere"), FailureKind.RETRY_SOON),
        (says(b'{"half', length=500), FailureKind.RETRY_SOON),
        (lambda handler: handler.connection.close(), FailureKind.RETRY_SOON),
    ],
    ids=["html", "413", "empty", "list", "odd code", "redirect", "half a body", "hangs up"],
)
def test_what_is_no_answer_is_told_from_one(
    answer: Callable[[BaseHTTPRequestHandler], None], kind: FailureKind
) -> None:
    with upstream(answer) as (url, seen):
        failure = call(url)

    assert failure.kind is kind
    assert len(seen) == 1  # nothing is sent again behind our back


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # the peer is cut off in the middle
def test_headers_that_drip_are_given_up() -> None:
    def drip(handler: BaseHTTPRequestHandler) -> None:
        handler.wfile.write(b"HTTP/1.1 200 OK\r\n")
        while True:
            time.sleep(0.05)
            handler.wfile.write(b"X-Slow: 1\r\n")

    with upstream(drip) as (url, _):
        failure = call(url, deadline=0.2)

    assert (failure.kind, failure.upstream_code, failure.answered) == (FailureKind.RETRY_SOON, "no_end", False)


def test_a_call_ends_before_the_job_may_be_somebody_elses() -> None:
    with upstream(lambda _: time.sleep(5)) as (url, seen):
        failure = call(url, safe_until=lambda: float("-inf") if seen else float("inf"))

    assert (failure.kind, failure.called, failure.answered) == (FailureKind.INTERRUPTED, True, False)


def test_no_call_is_begun_for_a_job_that_may_be_somebody_elses() -> None:
    with upstream(says(b"{}")) as (url, seen):
        failure = call(url, safe_until=lambda: 0.0)

    assert (failure.kind, failure.called, seen) == (FailureKind.INTERRUPTED, False, [])


@pytest.mark.parametrize("size", [1, 70_000])  # less than one read, more than one
@pytest.mark.parametrize("framing", [("Content-Length", "1000000"), ("Transfer-Encoding", "chunked")])
def test_an_answer_that_drips_is_given_up(size: int, framing: tuple[str, str]) -> None:
    def drip(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        handler.send_header(*framing)
        handler.end_headers()
        drop = b"{" * size
        for _ in range(100):
            try:
                handler.wfile.write(b"%x\r\n%s\r\n" % (size, drop) if framing[1] == "chunked" else drop)
            except OSError:
                return
            time.sleep(0.05)

    with upstream(drip) as (url, _):
        failure = call(url, deadline=0.2)

    assert failure.upstream_code == "no_end"


def test_an_answer_with_odd_headers_brings_no_token_into_the_log(caplog: pytest.LogCaptureFixture) -> None:
    def odd(handler: BaseHTTPRequestHandler) -> None:
        handler.wfile.write(b"HTTP/1.1 200 OK\r\nno colon here\r\nConnection: close\r\n\r\n{}")
        handler.close_connection = True

    logging.config.dictConfig({"version": 1, "disable_existing_loggers": False, "loggers": QUIET_LOGGERS})
    with upstream(odd) as (url, _):
        failure = call(url)

    assert TOKEN not in caplog.text
    assert TOKEN not in "".join(traceback.format_exception(failure))


def test_a_compressed_answer_is_read() -> None:
    headers: dict[str, Any] = {"Content-Encoding": "gzip"}

    with upstream(says(gzip.compress(b'{"error_code": 18}'), **headers)) as (url, _):
        failure = call(url)

    assert failure.upstream_code == "18"


def test_nobody_there_was_not_called() -> None:
    failure = call("http://127.0.0.1:1")

    assert (failure.kind, failure.called, failure.answered) == (FailureKind.UNREACHABLE, False, False)


def test_no_proxy_of_the_environment_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")

    with upstream(says(b'{"error_code": 18}')) as (url, seen):
        call(url)

    assert len(seen) == 1


def test_a_token_is_fetched() -> None:
    answer = {"access_token": "24.fresh", "expires_in": 2592000}

    with upstream(says(json.dumps(answer).encode())) as (url, seen):
        token = provider().fetch_token(Credentials(url, "key", SECRET))

    assert token == ("24.fresh", 2_592_000.0)
    assert parse_qs(seen[0][0].split("?")[1])["grant_type"] == ["client_credentials"]


@pytest.mark.parametrize("life", [None, "soon", -1, [1]])
def test_a_token_without_a_sensible_life_lives_thirty_days(life: object) -> None:
    answer = {"access_token": "24.fresh", "expires_in": life}

    with upstream(says(json.dumps(answer).encode())) as (url, _):
        token = provider().fetch_token(Credentials(url, "key", SECRET))

    assert token == ("24.fresh", 2_592_000.0)


@pytest.mark.parametrize(
    ("answer", "kind", "code"),
    [
        (
            says(b'{"error": "invalid_client", "error_description": "unknown client id"}', 401),
            FailureKind.MISCONFIGURED,
            JobErrorCode.PROVIDER_MISCONFIGURED,
        ),
        (says(b"oops", 500), FailureKind.RETRY_SOON, JobErrorCode.PROVIDER_FAILED),
        (says(b"{}"), FailureKind.RETRY_SOON, JobErrorCode.PROVIDER_FAILED),
    ],
)
def test_a_token_that_is_refused_gives_no_secret_away(
    answer: Callable[[BaseHTTPRequestHandler], None], kind: FailureKind, code: JobErrorCode
) -> None:
    with upstream(answer) as (url, _), pytest.raises(ProviderError) as caught:
        provider().fetch_token(Credentials(url, "key", SECRET))

    assert (caught.value.kind, caught.value.error_code) == (kind, code)
    assert SECRET not in str(caught.value)
