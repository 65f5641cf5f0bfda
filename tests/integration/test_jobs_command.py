"""`kazheng jobs`: an operator's hand on waiting jobs, and on no others."""

from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, select, update

from shared.clock import utc_now
from shared.database.engine import transaction
from shared.database.jobs import cancel_job, claim_job
from shared.database.tables import jobs
from shared.domain.job import JobErrorCode, JobStatus, WaitingOn
from shared.settings import Settings
from tests.factories import make_client, make_job
from tests.integration.command_runner import Kazheng, command_runner


@pytest.fixture
def kazheng(settings: Settings, engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Kazheng:
    """Runs the command with the settings of the test, in an empty folder."""
    return command_runner(settings, engine, tmp_path, monkeypatch)


def read(engine: Engine, job_id: str) -> Any:
    with transaction(engine) as connection:
        return connection.execute(select(jobs).where(jobs.c.id == job_id)).one()


def test_parked_jobs_are_made_ready_and_others_left_alone(kazheng: Kazheng, engine: Engine) -> None:
    client_id, _ = make_client(engine)
    parked, running, ended = (make_job(engine, client_id).id for _ in range(3))
    now = utc_now()
    with transaction(engine) as connection:
        later = {"not_before": now + timedelta(days=1), "waiting_on": WaitingOn.RETRY_BACKOFF}
        connection.execute(update(jobs).where(jobs.c.id == parked).values(later))
        claim_job(connection, running, token="t", worker="w", now=now, lease_until=now + timedelta(hours=1))
        cancel_job(connection, ended, client_id=client_id, now=now)

    said = kazheng("jobs", "requeue", "--all", "--yes")

    assert "1 requeued." in said.output
    row = read(engine, parked)
    assert (row.not_before, row.waiting_on, row.history[-1]["event"]) == (None, WaitingOn.WORKER, "requeued")
    assert [read(engine, job_id).status for job_id in (running, ended)] == [JobStatus.PROCESSING, JobStatus.CANCELED]


def test_jobs_are_failed_by_filter_and_only_after_a_yes(kazheng: Kazheng, engine: Engine) -> None:
    client_id, _ = make_client(engine)
    card, licence = make_job(engine, client_id), make_job(engine, client_id, document_type="business_license")

    asked = kazheng("jobs", "fail", "--type", "business_license", input="n\n")
    untouched = read(engine, licence.id).status
    done = kazheng("jobs", "fail", "--type", "business_license", input="y\n")

    assert (asked.exit_code, untouched) == (1, JobStatus.QUEUED)
    assert "1 failed." in done.output
    assert read(engine, licence.id).error_code == JobErrorCode.FAILED_BY_OPERATOR
    assert read(engine, card.id).status == JobStatus.QUEUED


@pytest.mark.parametrize("action", ["requeue", "fail"])
def test_without_saying_which_nothing_is_done(kazheng: Kazheng, engine: Engine, action: str) -> None:
    client_id, _ = make_client(engine)
    job = make_job(engine, client_id)

    said = kazheng("jobs", action, "--yes")

    assert said.exit_code == 2
    assert "--all" in said.output
    assert read(engine, job.id).status == JobStatus.QUEUED
