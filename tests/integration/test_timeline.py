"""A job's timeline: the whole story, in order, without content."""

from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
from redis import Redis
from sqlalchemy import Engine, insert, update

from shared.clock import utc_now
from shared.database.engine import transaction
from shared.database.health import find_troubles
from shared.database.recovery import SWEEP, find_abandoned, note_chore, take_back
from shared.database.tables import attempts, jobs
from shared.domain.job import JobErrorCode
from shared.ids import new_id
from shared.settings import Settings
from tests.factories import make_account
from tests.integration.api_tools import ApiBench, running_api


@pytest.fixture
def api(settings: Settings, engine: Engine, redis_client: Redis) -> Iterator[ApiBench]:
    with running_api(settings, engine) as bench:
        yield bench


def events(api: ApiBench, job_id: str) -> list[dict[str, Any]]:
    answer = api.get(f"/v1/jobs/{job_id}/timeline")
    assert answer.status_code == 200, answer.text
    told: list[dict[str, Any]] = answer.json["data"]  # type: ignore[index]
    return told


def call(api: ApiBench, settings: Settings, job_id: str, number: int, outcome: str | None) -> None:
    account_id = make_account(api.engine, settings, "http://provider.invalid") if number == 1 else None
    with transaction(api.engine) as connection:
        if account_id is None:
            account_id = connection.execute(attempts.select()).first().account_id  # type: ignore[union-attr]
        values = {"id": new_id("att"), "job_id": job_id, "number": number, "account_id": account_id}
        values |= {"endpoint": "idcard", "quota_day": utc_now().date(), "throttle_ms": 3, "started_at": utc_now()}
        ended = {"outcome": outcome, "ended_at": utc_now(), "upstream_ms": 5, "billed": True} if outcome else {}
        connection.execute(insert(attempts).values(**values, **ended))


def lose_worker(api: ApiBench, *, crashed: bool = False, poisons: bool = False) -> None:
    later = utc_now().replace(year=2200)
    with transaction(api.engine) as connection:
        (job,) = find_abandoned(connection, later, most=9)
        connection.execute(update(jobs).where(jobs.c.id == job.id).values(lease_until=utc_now() - timedelta(seconds=1)))
        assert take_back(connection, job, utc_now(), crashed=crashed, poisons=poisons)


def test_a_job_tells_its_whole_story(api: ApiBench, settings: Settings) -> None:
    job_id = api.submitted_id()
    api.claim(job_id)
    call(api, settings, job_id, 1, None)
    lose_worker(api)
    call(api, settings, job_id, 2, "succeeded")
    api.succeed(job_id)

    told = events(api, job_id)

    assert [event["event"] for event in told] == [
        "accepted",
        "published",
        "claimed",
        "called",
        "worker_lost",
        "called",
        "answered",
        "claimed",
        "succeeded",
    ]
    assert [event.get("repeated_after_crash") for event in told if event["event"] == "called"] == [None, True]
    assert [event["billed"] for event in told if event["event"] == "answered"] == [True]


def test_poison_shows_in_the_timeline_and_to_the_operator(api: ApiBench) -> None:
    job_id = api.submitted_id()
    api.claim(job_id)
    lose_worker(api, crashed=True, poisons=True)

    told = events(api, job_id)
    with transaction(api.engine) as connection:
        note_chore(connection, SWEEP, utc_now())
        troubles = find_troubles(connection, utc_now())

    assert told[-1]["event"] == "failed"
    assert told[-1]["error_code"] == JobErrorCode.POISONED
    assert [event["while_preparing"] for event in told if event["event"] == "worker_lost"] == [True]
    assert [trouble.what for trouble in troubles] == ["poisoned jobs"]


def test_a_message_that_nobody_takes_is_named(api: ApiBench) -> None:
    job_id = api.submitted_id()
    with transaction(api.engine) as connection:
        note_chore(connection, SWEEP, utc_now())
        before = find_troubles(connection, utc_now())
        long_ago = utc_now() - timedelta(minutes=5)
        connection.execute(update(jobs).where(jobs.c.id == job_id).values(published_at=long_ago))
        after = find_troubles(connection, utc_now())

    assert (before, [trouble.what for trouble in after]) == ([], ["messages"])


def test_another_clients_timeline_is_not_told_from_none(api: ApiBench) -> None:
    assert api.get("/v1/jobs/job_01j00000000000000000000000/timeline").status_code == 404
