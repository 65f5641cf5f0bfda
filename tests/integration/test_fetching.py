"""Images that a manifest names by their address: fetched by a worker, once, and never from a private place."""

import threading
from collections.abc import Iterator
from datetime import timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from ipaddress import IPv4Network
from typing import Any

import pytest
from redis import Redis
from sqlalchemy import Engine, select

from shared.database.engine import transaction
from shared.database.jobs import Job, claim_job
from shared.database.tables import jobs
from shared.domain.job import JobErrorCode, JobStatus, WaitingOn
from shared.settings import Settings
from shared.storage import ImageStore
from tests.factories import make_picture
from tests.fakes import FakeProvider
from tests.integration.recognition_bench import Bench

PICTURE = make_picture()
NO_IMAGE: dict[str, Any] = dict.fromkeys(
    ("image_key", "image_sha256", "image_bytes", "image_format", "image_width", "image_height")
)


@pytest.fixture
def host() -> Iterator[tuple[str, list[str]]]:
    """An address that serves by path, and the paths asked for."""
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            content = {"/card.jpg": PICTURE, "/page": b"<html>Hotlinks are not allowed</html>"}.get(self.path)
            self.send_response(404 if content is None else 200)
            self.send_header("Content-Length", str(len(content or b"")))
            self.end_headers()
            self.wfile.write(content or b"")

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}", asked
    server.shutdown()
    server.server_close()


@pytest.fixture
def bench(settings: Settings, engine: Engine, redis_client: Redis, store: ImageStore) -> Bench:
    allowed = {"outbound_allowed_networks": (IPv4Network("127.0.0.0/8"),), "outbound_allow_http": True}
    return Bench(settings.model_copy(update=allowed), engine, redis_client, store)


def named(bench: Bench, url: str, **changes: Any) -> Job:
    return bench.job(image_url=url, **NO_IMAGE, **changes)


def url_of(bench: Bench, job_id: str) -> str | None:
    with transaction(bench.engine) as connection:
        kept: str | None = connection.execute(select(jobs.c.image_url).where(jobs.c.id == job_id)).scalar_one()
    return kept


def test_it_is_fetched_and_then_read(bench: Bench, host: tuple[str, list[str]]) -> None:
    url, asked = host
    provider = FakeProvider()
    service, job = bench.service(provider), named(bench, f"{url}/card.jpg")

    service.run_attempt(job.id)
    fetched = bench.read(job.id)
    service.run_attempt(job.id)

    assert (fetched.status, fetched.image_bytes, fetched.failed_attempts) == (JobStatus.QUEUED, len(PICTURE), 0)
    assert bench.read(job.id).status is JobStatus.SUCCEEDED
    assert (asked, provider.bodies, url_of(bench, job.id)) == (["/card.jpg"], [PICTURE], None)


def test_equal_images_behind_two_addresses_are_paid_for_once(bench: Bench, host: tuple[str, list[str]]) -> None:
    provider = FakeProvider()
    service = bench.service(provider)
    made = [named(bench, f"{host[0]}/card.jpg", cache=True) for _ in range(2)]

    for job in made * 2:
        service.run_attempt(job.id)

    assert len(provider.calls) == 1
    assert {bench.read(job.id).status for job in made} == {JobStatus.SUCCEEDED}


@pytest.mark.parametrize(
    ("path", "code", "detail", "tries"),
    [
        ("/gone.jpg", JobErrorCode.IMAGE_URL_FAILED, "HTTP 404", 3),
        ("/page", JobErrorCode.IMAGE_FORMAT, "no image", 1),
    ],
)
def test_an_address_without_an_image_fails_its_job_and_says_why(
    bench: Bench, host: tuple[str, list[str]], path: str, code: JobErrorCode, detail: str, tries: int
) -> None:
    url, asked = host
    provider = FakeProvider()
    service, job = bench.service(provider), named(bench, url + path)

    for _ in range(4):
        service.run_attempt(job.id)
        bench.clock.forward(minutes=10)

    ended = bench.read(job.id)
    assert (ended.status, ended.error_code, ended.calls) == (JobStatus.FAILED, code, 0)
    assert detail in (ended.error_detail or "")
    assert url not in (ended.error_detail or "")
    assert (len(asked), provider.calls) == (tries, [])


def test_a_private_address_is_not_called(
    settings: Settings, engine: Engine, redis_client: Redis, store: ImageStore, host: tuple[str, list[str]]
) -> None:
    url, asked = host
    bench = Bench(settings.model_copy(update={"outbound_allow_http": True}), engine, redis_client, store)
    service, job = bench.service(FakeProvider()), named(bench, f"{url}/card.jpg")

    service.run_attempt(job.id)

    ended = bench.read(job.id)
    assert (ended.status, ended.error_code, asked) == (JobStatus.FAILED, JobErrorCode.IMAGE_URL_REFUSED, [])


def test_addresses_do_not_wait_for_one_another(bench: Bench, host: tuple[str, list[str]]) -> None:
    service = bench.service(FakeProvider())
    first, second = (named(bench, f"{host[0]}/card.jpg", cache=True) for _ in range(2))
    now = bench.clock()
    with transaction(bench.engine) as connection:
        claim_job(connection, first.id, token="t", worker="w", now=now, lease_until=now + timedelta(minutes=1))

    service.run_attempt(second.id)

    assert (bench.read(second.id).waiting_on, host[1]) == (WaitingOn.WORKER, ["/card.jpg"])
