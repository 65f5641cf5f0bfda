"""The API in this process, on real servers, as one client sees it."""

import io
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flask.testing import FlaskClient
from sqlalchemy import Engine, func, select, update
from werkzeug.test import TestResponse

from api.app import create_app
from api.services import Services, services_of
from shared.clock import utc_now
from shared.database.engine import transaction
from shared.database.jobs import claim_job, fail_job, succeed_job
from shared.database.tables import idempotency_keys, jobs
from shared.domain.job import JobErrorCode
from shared.settings import Settings
from tests.factories import make_client, make_picture

PICTURE = make_picture()
POLYGON = [[0.1, 0.2], [0.3, 0.2], [0.3, 0.4], [0.1, 0.4]]
FIELD = {
    "value": "测样丽", "text": "测样丽", "label": "姓名", "status": "read",
    "confidence": None, "polygon": POLYGON, "source": "provider",
}  # fmt: skip
RAW = {"words_result": {"姓名": {"words": "测样丽"}}}


@dataclass
class ApiBench:
    """Flask's test client with a key, and a look at what is kept."""

    http: FlaskClient
    engine: Engine
    settings: Settings
    services: Services
    client_id: str
    key: str

    def call(self, method: str, path: str, *, key: str | None = "", **request: Any) -> TestResponse:
        """One request; `key` None sends none, and "" the client's own."""
        headers = dict(request.pop("headers", {}))
        if key is not None:
            headers["Authorization"] = f"Bearer {key or self.key}"
        return self.http.open(path, method=method, headers=headers, **request)

    def get(self, path: str, **request: Any) -> TestResponse:
        return self.call("GET", path, **request)

    def submit(self, content: bytes = PICTURE, **request: Any) -> TestResponse:
        """Submit a picture as the body."""
        query = {"document_type": "id_card", **request.pop("query", {})}
        return self.call("POST", "/v1/jobs", data=content, content_type="image/jpeg", query_string=query, **request)

    def submitted_id(self, **request: Any) -> str:
        answer = self.submit(**request)
        assert answer.status_code == 202, answer.text
        return str(answer.json["id"])  # type: ignore[index]

    def count_jobs(self) -> int:
        with transaction(self.engine) as connection:
            return connection.execute(select(func.count()).select_from(jobs)).scalar_one()

    def count_keys(self) -> int:
        with transaction(self.engine) as connection:
            return connection.execute(select(func.count()).select_from(idempotency_keys)).scalar_one()

    def column(self, job_id: str, name: str) -> Any:
        with transaction(self.engine) as connection:
            return connection.execute(select(jobs.c[name]).where(jobs.c.id == job_id)).scalar_one()

    def age_key_locks(self) -> None:
        """As if every request in progress had stopped long ago."""
        with transaction(self.engine) as connection:
            connection.execute(update(idempotency_keys).values(locked_until=utc_now().replace(year=2020)))

    @property
    def images(self) -> list[Path]:
        """Files in the image store."""
        return [path for path in (self.settings.home / "images").rglob("*") if path.is_file()]

    def claim(self, job_id: str) -> None:
        with transaction(self.engine) as connection:
            assert claim_job(
                connection, job_id, token="t", worker="w", now=utc_now(), lease_until=utc_now().replace(year=2100)
            )

    def succeed(self, job_id: str) -> None:
        """As a worker ends a job well."""
        self.claim(job_id)
        with transaction(self.engine) as connection:
            assert succeed_job(
                connection,
                job_id,
                "t",
                now=utc_now(),
                result={
                    "job_id": job_id,
                    "fields": {"name": FIELD},
                    "checks": [],
                    "image": {"width": 640, "height": 400, "sha256": "0" * 64, "quality": None, "risk": None},
                    "provider": "baidu",
                    "account": "sandbox",
                    "upstream_log_id": "1790",
                    "raw": RAW,
                    "created_at": utc_now(),
                },
            )

    def fail(self, job_id: str, error: JobErrorCode = JobErrorCode.BLURRED) -> None:
        """As a worker ends a job badly."""
        self.claim(job_id)
        with transaction(self.engine) as connection:
            assert fail_job(connection, job_id, "t", error=error, now=utc_now(), count_failure=True)


@contextmanager
def running_api(settings: Settings, engine: Engine) -> Iterator[ApiBench]:
    """The API with one client."""
    app = create_app(settings)
    client_id, key = make_client(engine)
    services = services_of(app)
    try:
        yield ApiBench(app.test_client(), engine, settings, services, client_id, key)
    finally:
        services.close()


def form(content: bytes = PICTURE, **parts: Any) -> dict[str, Any]:
    """A multipart submission."""
    return {"data": {"document_type": "id_card", "image": (io.BytesIO(content), "card.jpg"), **parts}}
