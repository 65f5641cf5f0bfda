"""Held polls: woken by Redis, by Postgres without it, bounded, and out of the way of whoever brings an image."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from redis import Redis
from redis.exceptions import ConnectionError as RedisConnectionError
from sqlalchemy import Engine

from api.waiting import FinalWatch
from kazheng.stack.valkey import free_port
from shared.limits.connection import connect
from shared.limits.keys import FINAL_CHANNEL
from shared.settings import Settings
from tests.factories import make_account, make_client, make_job, make_picture
from tests.integration.api_tools import ApiBench, running_api


@pytest.fixture
def api(settings: Settings, engine: Engine, redis_client: Redis) -> Iterator[ApiBench]:
    make_account(engine, settings, "http://provider.invalid")
    with running_api(settings, engine) as bench:
        yield bench


@contextmanager
def held(watch: FinalWatch, job_id: str) -> Iterator["Future[bool]"]:
    """A poll that is being held; its future says whether it was given a place."""
    begun = threading.Event()

    def poll() -> bool:
        with watch.watch(job_id) as place:
            begun.set()
            if place is not None:
                place.wait(60)
            return place is not None

    with ThreadPoolExecutor(1) as pool:
        future = pool.submit(poll)
        assert begun.wait(30)
        yield future


def until(condition: Callable[[], Any], seconds: float = 30) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "nothing happened"
        time.sleep(0.02)


def no_redis() -> Redis:
    raise RedisConnectionError("away")


def test_word_from_a_worker_ends_the_wait(settings: Settings, engine: Engine, redis_client: Redis) -> None:
    watch = FinalWatch(engine, lambda: connect(settings), capacity=2)

    with held(watch, "job_not_in_the_database") as future:
        # Again and again: it is not known when the listener has begun to listen.
        until(lambda: [redis_client.publish(FINAL_CHANNEL, "job_not_in_the_database")] and future.done())
        was_held = future.result(30)
    watch.close()

    assert was_held


def test_without_redis_the_database_ends_the_wait(api: ApiBench, engine: Engine) -> None:
    job = make_job(engine, api.client_id)
    watch = FinalWatch(engine, no_redis, capacity=2)

    with held(watch, job.id) as future:
        api.fail(job.id)
        was_held = future.result(30)
    watch.close()

    assert was_held


def test_all_waiting_jobs_are_asked_for_in_one_statement(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[set[str]] = []

    def note_question(_connection: object, job_ids: list[str]) -> set[str]:
        asked.append(set(job_ids))
        return {"job_1", "job_2"} if len(job_ids) == 2 else set()

    monkeypatch.setattr("api.waiting.final_ids", note_question)
    watch = FinalWatch(engine, no_redis, capacity=5)

    with held(watch, "job_1") as one, held(watch, "job_2") as two, held(watch, "job_2") as three:
        results = [future.result(30) for future in (one, two, three)]
    watch.close()

    assert results == [True, True, True]
    assert {"job_1", "job_2"} in asked


def test_redis_coming_back_is_noticed(settings: Settings, engine: Engine, redis_client: Redis) -> None:
    tries: list[int] = []

    def connect_at_the_second_try() -> Redis:
        tries.append(1)
        return no_redis() if len(tries) == 1 else connect(settings)

    watch = FinalWatch(engine, connect_at_the_second_try, capacity=2)

    with held(watch, "job_1") as future:
        until(lambda: [redis_client.publish(FINAL_CHANNEL, "job_1")] and future.done())
        assert future.result(30)
    watch.close()

    assert len(tries) == 2


def test_no_more_polls_are_held_than_there_is_room_for(engine: Engine) -> None:
    watch = FinalWatch(engine, no_redis, capacity=1)

    with held(watch, "job_1") as first:
        with watch.watch("job_2") as second:
            assert second is None
        watch.close()
        assert first.result(30)


def test_a_place_is_given_back(engine: Engine) -> None:
    watch = FinalWatch(engine, no_redis, capacity=1)

    for _ in range(3):
        with watch.watch("job_1") as place:
            assert place is not None
    watch.close()


def test_a_stopping_process_holds_nothing(engine: Engine) -> None:
    watch = FinalWatch(engine, no_redis, capacity=2)

    with held(watch, "job_1") as future:
        watch.stop()
        assert future.result(30)
    with watch.watch("job_1") as place:
        assert place is None


def test_a_poll_without_room_is_answered_with_the_job_as_it_is(settings: Settings, engine: Engine) -> None:
    make_account(engine, settings, "http://provider.invalid")
    with running_api(settings.model_copy(update={"api_poll_threads": 1}), engine) as api:
        job_id = api.submitted_id()
        with api.services.final_watch.watch(job_id):
            answer = api.get(f"/v1/jobs/{job_id}?wait=60")

    assert answer.json is not None
    assert (answer.status_code, answer.json["status"], answer.headers["Retry-After"]) == (200, "queued", "1")


def test_a_waiting_poll_holds_no_database_connection(api: ApiBench) -> None:
    job_id = api.submitted_id()
    pool: Any = api.services.engine.pool

    with ThreadPoolExecutor(1) as threads:
        poll = threads.submit(lambda: api.http.application.test_client().get(
            f"/v1/jobs/{job_id}?wait=60", headers={"Authorization": f"Bearer {api.key}"}
        ))  # fmt: skip
        until(lambda: api.services.final_watch._watches.get(job_id))
        until(lambda: pool.checkedout() == 0)
        api.call("POST", f"/v1/jobs/{job_id}/cancel")
        answer = poll.result(30)

    assert answer.json is not None
    assert answer.json["status"] == "canceled"


@contextmanager
def running_gunicorn(settings: Settings, folder: Path) -> Iterator[tuple[str, "subprocess.Popen[bytes]"]]:
    """The API as it runs in production; its address and its main process."""
    assert settings.database_url
    assert settings.redis_url
    port = free_port()
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("KAZHENG_", "BAIDU_"))}
    environment |= {
        "KAZHENG_HOME": str(settings.home),
        "KAZHENG_DATABASE_URL": settings.database_url.get_secret_value(),
        "KAZHENG_REDIS_URL": settings.redis_url.get_secret_value(),
        "KAZHENG_SECRET_KEY": settings.require_secret_key(),
        "KAZHENG_API_PORT": str(port),
        "KAZHENG_API_WORKERS": "2",
    }
    folder.mkdir(exist_ok=True)
    with (folder / "gunicorn.log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "gunicorn", "-c", "python:api.gunicorn_conf", "api.wsgi:app"],
            env=environment, cwd=folder, stdout=log, stderr=log,
        )  # fmt: skip
        try:
            url = f"http://127.0.0.1:{port}"
            until(lambda: process.poll() is None and _is_ready(url), 60)
            yield url, process
        finally:
            process.terminate()
            process.wait(60)


def _is_ready(url: str) -> bool:
    try:
        return httpx.get(f"{url}/readyz", timeout=5, trust_env=False).is_success
    except httpx.TransportError:
        return False


@pytest.mark.slow
def test_two_hundred_held_polls_leave_room_for_images(
    settings: Settings, engine: Engine, redis_client: Redis, tmp_path: Path
) -> None:
    client_id, key = make_client(engine)
    watched = make_job(engine, client_id)
    limits = httpx.Limits(max_connections=300)
    with (
        running_gunicorn(settings, tmp_path / "gunicorn") as (url, process),
        httpx.Client(
            base_url=url, headers={"Authorization": f"Bearer {key}"}, timeout=90, limits=limits, trust_env=False
        ) as http,
        ThreadPoolExecutor(200) as threads,
    ):
        polls = [threads.submit(http.get, f"/v1/jobs/{watched.id}?wait=60") for _ in range(200)]
        until(lambda: redis_client.pubsub_numsub(FINAL_CHANNEL)[0][1] >= 1)
        files = {"image": ("image", make_picture(), "image/jpeg")}
        answers = [http.post("/v1/jobs", data={"document_type": "id_card"}, files=files) for _ in range(20)]
        still_held = sum(not poll.done() for poll in polls)
        process.send_signal(signal.SIGTERM)
        ended = [poll.result(60) for poll in polls]

    assert [answer.status_code for answer in answers] == [202] * 20
    assert still_held > 100
    assert {answer.status_code for answer in ended} == {200}
    assert {answer.json()["status"] for answer in ended} == {"queued"}
    log = (tmp_path / "gunicorn" / "gunicorn.log").read_text()
    assert '"route": "/v1/jobs"' in log
    assert "wait=60" not in log
