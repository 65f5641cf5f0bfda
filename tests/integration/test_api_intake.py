"""What intake promises when something fails in the middle, and what an idempotency key is good for."""

import threading
from collections.abc import Iterator
from typing import Any

import pytest
from pydantic import SecretStr
from redis import Redis
from sqlalchemy import Engine, event
from sqlalchemy.exc import OperationalError

from kazheng.stack.valkey import free_port
from shared.domain.errors import StorageFullError, StorageUnavailableError
from shared.queues import Publisher
from shared.settings import Settings
from tests.factories import make_picture
from tests.integration.api_tools import PICTURE, ApiBench, running_api

KEY = {"Idempotency-Key": "order-7"}


@pytest.fixture
def api(settings: Settings, engine: Engine, redis_client: Redis) -> Iterator[ApiBench]:
    with running_api(settings, engine) as bench:
        yield bench


def outage(*_: Any) -> None:
    raise OperationalError("", None, Exception("the server is away"))


def test_without_a_broker_it_is_still_a_202(settings: Settings, engine: Engine) -> None:
    away = settings.model_copy(update={"redis_url": SecretStr(f"redis://127.0.0.1:{free_port()}/0")})

    with running_api(away, engine) as api:
        answers = [api.submit() for _ in range(3)]

        assert [answer.status_code for answer in answers] == [202] * 3
        assert (api.count_jobs(), len(api.images)) == (3, 3)
        assert api.column(answers[0].json["id"], "published_at") is None  # type: ignore[index]


def test_bytes_are_kept_before_the_row(api: ApiBench, monkeypatch: pytest.MonkeyPatch) -> None:
    rows_at_put: list[int] = []
    put = api.services.store.put

    def note_rows(key: str, content: bytes) -> None:
        rows_at_put.append(api.count_jobs())
        put(key, content)

    monkeypatch.setattr(api.services.store, "put", note_rows)

    api.submitted_id()

    assert rows_at_put == [0]


@pytest.mark.parametrize(("error", "status"), [(StorageFullError, 507), (StorageUnavailableError, 503)])
def test_without_a_store_nothing_is_accepted(
    api: ApiBench, monkeypatch: pytest.MonkeyPatch, error: type[StorageFullError], status: int
) -> None:
    def fail(*_: Any) -> None:
        raise error("No room.")

    monkeypatch.setattr(api.services.store, "put", fail)

    answer = api.submit(headers=KEY)

    assert (answer.status_code, answer.json["retryable"], "Retry-After" in answer.headers) == (status, True, True)  # type: ignore[index]
    assert (api.count_jobs(), api.count_keys()) == (0, 0)


def test_a_row_that_is_not_written_leaves_no_image_and_no_key(api: ApiBench) -> None:
    def refuse_insert(_c: Any, _cursor: Any, statement: str, *_: Any) -> None:
        if statement.startswith("INSERT INTO jobs"):
            outage()

    event.listen(api.services.engine, "before_cursor_execute", refuse_insert)
    failed = api.submit(headers=KEY)
    event.remove(api.services.engine, "before_cursor_execute", refuse_insert)
    again = api.submit(headers=KEY)

    assert (failed.status_code, failed.json["code"]) == (503, "database_unavailable")  # type: ignore[index]
    assert (again.status_code, "Idempotent-Replayed" in again.headers) == (202, False)
    assert (api.count_jobs(), len(api.images)) == (1, 1)


@pytest.mark.parametrize("happened", [True, False], ids=["committed all the same", "not committed"])
def test_a_commit_without_an_answer_keeps_the_image(api: ApiBench, happened: bool) -> None:
    engine = api.services.engine

    def lose_answer(connection: Any) -> None:
        if connection.info.pop("inserted", False):
            if happened:
                connection.connection.commit()
            outage()

    def notice_insert(connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        if statement.startswith("INSERT INTO jobs"):
            connection.info["inserted"] = True

    event.listen(engine, "before_cursor_execute", notice_insert)
    event.listen(engine, "commit", lose_answer)
    answer = api.submit(headers=KEY)
    event.remove(engine, "before_cursor_execute", notice_insert)
    event.remove(engine, "commit", lose_answer)

    assert answer.status_code == 503
    assert (api.count_jobs(), len(api.images)) == (int(happened), 1)
    assert api.count_keys() == 1
    again = api.submit(headers=KEY)
    assert again.status_code == (202 if happened else 409)
    assert again.headers.get("Idempotent-Replayed") == ("true" if happened else None)


def test_a_message_that_is_not_remembered_changes_nothing(api: ApiBench, redis_client: Redis) -> None:
    def refuse_update(_c: Any, _cursor: Any, statement: str, *_: Any) -> None:
        if statement.startswith("UPDATE jobs SET published_at"):
            outage()

    event.listen(api.services.engine, "before_cursor_execute", refuse_update)
    answer = api.submit()
    event.remove(api.services.engine, "before_cursor_execute", refuse_update)

    assert answer.status_code == 202
    assert redis_client.llen("interactive") == 1


def test_a_worker_quicker_than_intake_is_not_written_over(api: ApiBench, monkeypatch: pytest.MonkeyPatch) -> None:
    publish = Publisher.publish_job

    def publish_and_work(publisher: Publisher, job_id: str, lane: str) -> bool:
        api.claim(job_id)
        return publish(publisher, job_id, lane)

    monkeypatch.setattr(Publisher, "publish_job", publish_and_work)

    job_id = api.submitted_id()

    assert api.column(job_id, "published_at") is None


def test_the_same_key_and_request_give_the_first_job(api: ApiBench, redis_client: Redis) -> None:
    first, again = api.submit(headers=KEY), api.submit(headers=KEY)

    assert (again.status_code, again.headers["Idempotent-Replayed"]) == (202, "true")
    assert "Idempotent-Replayed" not in first.headers
    assert again.json["id"] == first.json["id"]  # type: ignore[index]
    assert (api.count_jobs(), len(api.images), redis_client.llen("interactive")) == (1, 1, 1)


@pytest.mark.parametrize(
    "other",
    [
        {"content": make_picture((641, 400))},
        {"query": {"document_type": "bank_card"}},
        {"query": {"options.side": "back"}},
        {"query": {"lane": "bulk"}},
        {"query": {"client_reference_id": "a"}},
        {"query": {"metadata.desk": "7"}},
        {"query": {"expires_in": "60"}},
    ],
)
def test_the_same_key_for_another_request_is_refused(api: ApiBench, other: dict[str, Any]) -> None:
    api.submit(headers=KEY)

    answer = api.submit(headers=KEY, **other)

    assert (answer.status_code, answer.json["code"]) == (422, "idempotency_key_reused")  # type: ignore[index]
    assert (api.count_jobs(), len(api.images)) == (1, 1)


def test_keys_of_two_clients_have_nothing_to_do_with_each_other(api: ApiBench) -> None:
    from tests.factories import make_client

    _, other = make_client(api.engine, "other")

    answers = [api.submit(headers=KEY), api.submit(headers=KEY, key=other)]

    assert [answer.status_code for answer in answers] == [202, 202]
    assert api.count_jobs() == 2


def test_while_the_first_request_runs_the_second_is_told_to_come_back(
    api: ApiBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    storing, may_go_on = threading.Event(), threading.Event()
    put = api.services.store.put

    def slow_put(key: str, content: bytes) -> None:
        storing.set()
        assert may_go_on.wait(30)
        put(key, content)

    monkeypatch.setattr(api.services.store, "put", slow_put)
    answers: list[Any] = []
    first = threading.Thread(target=lambda: answers.append(api.submit(headers=KEY)))
    first.start()
    assert storing.wait(30)

    second = api.submit(headers=KEY)
    may_go_on.set()
    first.join()

    assert (second.status_code, second.json["code"]) == (409, "idempotency_key_in_progress")  # type: ignore[index]
    assert second.headers["Retry-After"] == "1"
    assert answers[0].status_code == 202
    assert api.count_jobs() == 1


def test_many_requests_with_one_key_make_one_job(api: ApiBench) -> None:
    answers: list[Any] = []
    threads = [threading.Thread(target=lambda: answers.append(api.submit(headers=KEY))) for _ in range(8)]

    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert {answer.status_code for answer in answers} <= {202, 409}
    assert len({answer.json["id"] for answer in answers if answer.status_code == 202}) == 1
    assert (api.count_jobs(), len(api.images)) == (1, 1)


def test_a_key_whose_request_never_ended_comes_free(api: ApiBench, monkeypatch: pytest.MonkeyPatch) -> None:
    class ProcessKilled(BaseException):
        pass

    def die(*_: Any) -> None:
        raise ProcessKilled

    with monkeypatch.context() as patch:
        patch.setattr(api.services.store, "put", die)
        with pytest.raises(ProcessKilled):
            api.submit(headers=KEY)
    locked = api.submit(headers=KEY).status_code
    api.age_key_locks()
    after = api.submit(headers=KEY).status_code

    assert (locked, after, api.count_jobs()) == (409, 202, 1)


def test_a_fetched_image_is_kept_like_any_other(api: ApiBench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("api.intake.fetch_image", lambda *_, **__: PICTURE)
    body = {"document_type": "id_card", "image_url": "https://pictures.example/card.jpg"}

    answers = [api.call("POST", "/v1/jobs", json=body, headers=KEY) for _ in range(2)]

    assert [answer.status_code for answer in answers] == [202, 202]
    assert [path.read_bytes() for path in api.images] == [PICTURE]


def test_a_failed_fetch_gives_the_key_back(api: ApiBench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("api.intake.fetch_image", lambda *_, **__: b"a page that says 404")
    body = {"document_type": "id_card", "image_url": "https://pictures.example/card.jpg"}

    answer = api.call("POST", "/v1/jobs", json=body, headers=KEY)

    assert (answer.status_code, answer.json["code"]) == (422, "image_format_unsupported")  # type: ignore[index]
    assert (api.count_keys(), api.images) == (0, [])


def test_in_a_flood_people_s_jobs_wait_in_postgres(api: ApiBench, redis_client: Redis) -> None:
    redis_client.rpush("interactive", *["a message"] * 500)

    job_id = api.submitted_id()

    assert redis_client.llen("interactive") == 500
    assert api.column(job_id, "published_at") is None
