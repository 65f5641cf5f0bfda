"""Every move of a job starts from one state; a client sees and erases only its own."""

from datetime import datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import Engine, select, update
from sqlalchemy.exc import IntegrityError

from shared.clock import utc_now
from shared.database import jobs as rows
from shared.database.engine import transaction
from shared.database.jobs import Job, JobFilter
from shared.database.recovery import find_abandoned, take_back
from shared.database.tables import jobs, results
from shared.domain.job import JobErrorCode, JobStatus, WaitingOn
from tests.factories import make_client, make_job

LEASE = timedelta(minutes=2)


class Desk:
    """A client with its jobs, and the moves of one worker."""

    def __init__(self, engine: Engine, name: str = "tests") -> None:
        self.engine = engine
        self.client_id, _ = make_client(engine, name)
        self.now: datetime = utc_now() + timedelta(seconds=1)

    def job(self, **changes: Any) -> Job:
        return make_job(self.engine, self.client_id, **changes)

    def read(self, job_id: str) -> Job:
        with transaction(self.engine) as connection:
            job = rows.get_job(connection, job_id, client_id=self.client_id)
        assert job is not None
        return job

    def claim(self, job_id: str, token: str = "mine") -> Job | None:
        with transaction(self.engine) as connection:
            return rows.claim_job(
                connection, job_id, token=token, worker="tests", now=self.now, lease_until=self.now + LEASE
            )

    def release(self, job_id: str, token: str = "mine", *, until: datetime | None = None) -> bool:
        with transaction(self.engine) as connection:
            return rows.release_job(
                connection,
                job_id,
                token,
                waiting_on=WaitingOn.RETRY_BACKOFF,
                not_before=until or self.now,
                count_failure=True,
                now=self.now,
            )

    def lose_worker(self) -> None:
        """Let all leases run out, and take their jobs back."""
        self.now += LEASE + timedelta(seconds=1)
        with transaction(self.engine) as connection:
            for job in find_abandoned(connection, self.now, most=9):
                assert take_back(connection, job, self.now, crashed=False, poisons=False)

    def succeed(self, job_id: str, token: str = "mine") -> bool:
        with transaction(self.engine) as connection:
            empty: dict[str, Any] = {"fields": {}, "checks": [], "image": {}, "raw": {}}
            names = {"provider": "baidu", "account": "sandbox", "upstream_log_id": None, "created_at": self.now}
            return rows.succeed_job(
                connection, job_id, token, now=self.now, result={"job_id": job_id, **empty, **names}
            )

    def fail(self, job_id: str, token: str = "mine", error: JobErrorCode = JobErrorCode.BLURRED) -> bool:
        with transaction(self.engine) as connection:
            return rows.fail_job(connection, job_id, token, error=error, now=self.now, count_failure=True)

    def cancel(self, job_id: str) -> Job | None:
        with transaction(self.engine) as connection:
            return rows.cancel_job(connection, job_id, client_id=self.client_id, now=self.now)

    def erase(self, job_id: str) -> str | None:
        with transaction(self.engine) as connection:
            return rows.erase_job(connection, job_id, client_id=self.client_id, now=self.now)

    def list(self, wanted: JobFilter | None = None, *, limit: int = 10, after: str | None = None) -> list[str]:
        with transaction(self.engine) as connection:
            found = rows.list_jobs(connection, self.client_id, wanted or JobFilter(), limit=limit, after=after)
        return [job.id for job in found]

    def has_result(self, job_id: str) -> bool:
        with transaction(self.engine) as connection:
            return rows.get_result(connection, job_id) is not None


@pytest.fixture
def desk(engine: Engine) -> Desk:
    return Desk(engine)


def test_a_queued_job_is_claimed_once(desk: Desk) -> None:
    job = desk.job()

    first, second = desk.claim(job.id, "first"), desk.claim(job.id, "second")

    assert first is not None
    assert (first.status, first.claim_token, first.started_at) == (JobStatus.PROCESSING, "first", desk.now)
    assert second is None


def test_a_job_is_not_claimed_before_its_time(desk: Desk) -> None:
    job = desk.job()
    desk.claim(job.id)
    desk.release(job.id, until=desk.now + timedelta(seconds=1))

    early = desk.claim(job.id)
    desk.now += timedelta(seconds=1)

    assert early is None
    assert desk.claim(job.id) is not None


def test_only_the_sweeper_takes_a_claim_away(desk: Desk) -> None:
    job = desk.job()
    desk.claim(job.id, "first")
    desk.now += LEASE + timedelta(seconds=1)

    assert desk.claim(job.id, "second") is None
    assert desk.succeed(job.id, "first")


def test_a_job_whose_worker_was_lost_is_claimed_again_and_its_first_worker_shut_out(desk: Desk) -> None:
    job = desk.job()
    desk.claim(job.id, "first")
    desk.lose_worker()

    again = desk.claim(job.id, "second")

    assert again is not None
    assert again.claim_count == 2
    assert not desk.succeed(job.id, "first")
    assert not desk.fail(job.id, "first")
    assert not desk.release(job.id, "first")
    assert desk.succeed(job.id, "second")


def test_a_final_state_never_changes(desk: Desk) -> None:
    succeeded, failed, canceled = desk.job(), desk.job(), desk.job()
    desk.claim(succeeded.id)
    desk.succeed(succeeded.id)
    desk.claim(failed.id)
    desk.fail(failed.id)
    desk.cancel(canceled.id)
    before = [desk.read(job.id) for job in (succeeded, failed, canceled)]

    desk.now += 2 * LEASE
    for job in (succeeded, failed, canceled):
        assert desk.claim(job.id) is None
        assert desk.cancel(job.id) is None
        assert not desk.release(job.id)
        assert not desk.fail(job.id)

    assert [job.status for job in before] == [JobStatus.SUCCEEDED, JobStatus.FAILED, JobStatus.CANCELED]
    assert [desk.read(job.id) for job in (succeeded, failed, canceled)] == before


def test_a_started_job_is_not_canceled(desk: Desk) -> None:
    job = desk.job()
    desk.claim(job.id)

    assert desk.cancel(job.id) is None
    assert desk.read(job.id).status is JobStatus.PROCESSING


def test_an_expired_job_says_so_in_its_state(desk: Desk) -> None:
    job = desk.job()
    desk.claim(job.id)

    desk.fail(job.id, error=JobErrorCode.EXPIRED)

    assert (desk.read(job.id).status, desk.read(job.id).error_code) == (JobStatus.EXPIRED, "expired")


def test_every_visible_change_has_its_revision(desk: Desk) -> None:
    job = desk.job()

    desk.claim(job.id)
    desk.release(job.id)
    desk.claim(job.id)
    desk.succeed(job.id)
    desk.erase(job.id)

    assert desk.read(job.id).revision == job.revision + 5


@pytest.mark.parametrize(
    ("status", "token"),
    [
        (JobStatus.QUEUED, "somebody"),  # a claim without work
        (JobStatus.PROCESSING, None),  # work without a claim: nobody could settle it
        (JobStatus.SUCCEEDED, "somebody"),  # a claim that outlived its job
    ],
)
def test_only_a_job_in_processing_has_a_claim(desk: Desk, status: JobStatus, token: str | None) -> None:
    job = desk.job()
    statement = update(jobs).where(jobs.c.id == job.id).values(status=status, claim_token=token)

    with pytest.raises(IntegrityError, match="claimed_while_processing"), transaction(desk.engine) as connection:
        connection.execute(statement)


def test_lists_are_newest_first_and_go_on_after_the_last_one_seen(desk: Desk) -> None:
    made = [desk.job().id for _ in range(5)]

    first = desk.list(limit=2)
    second = desk.list(limit=2, after=first[-1])
    third = desk.list(limit=2, after=second[-1])

    assert first + second + third == made[::-1]
    assert desk.list(after=third[-1]) == []


def test_lists_are_filtered(desk: Desk) -> None:
    mine = desk.job(client_reference_id="order-1")
    bank = desk.job(document_type="bank_card")
    desk.cancel(mine.id)

    assert desk.list(JobFilter(status=JobStatus.CANCELED)) == [mine.id]
    assert desk.list(JobFilter(document_type="bank_card")) == [bank.id]
    assert desk.list(JobFilter(client_reference_id="order-1")) == [mine.id]
    assert desk.list(JobFilter(ids=(bank.id, "job_unknown"))) == [bank.id]
    assert desk.list(JobFilter(status=JobStatus.CANCELED, document_type="bank_card")) == []


def test_another_client_s_job_cannot_be_seen_canceled_or_erased(desk: Desk, engine: Engine) -> None:
    stranger = Desk(engine, "strangers")
    queued, ended = desk.job(), desk.job()
    desk.claim(ended.id)
    desk.succeed(ended.id)

    with transaction(engine) as connection:
        assert rows.get_job(connection, queued.id, client_id=stranger.client_id) is None
    assert stranger.list(JobFilter(ids=(queued.id,))) == []
    assert stranger.cancel(queued.id) is None
    assert stranger.erase(queued.id) is None
    assert stranger.erase(ended.id) is None
    assert desk.read(queued.id) == queued
    assert desk.read(ended.id).erased_at is None
    assert desk.has_result(ended.id)


def test_an_erased_job_leaves_a_tombstone_without_content(desk: Desk, engine: Engine) -> None:
    job = desk.job(client_reference_id="order-1", metadata={"desk": "7"})
    desk.claim(job.id)
    desk.succeed(job.id)

    key = desk.erase(job.id)

    tombstone = desk.read(job.id)
    assert key == job.image_key
    assert (tombstone.status, tombstone.erased_at) == (JobStatus.SUCCEEDED, desk.now)
    assert (tombstone.client_reference_id, tombstone.metadata) == (None, {})
    with transaction(engine) as connection:
        assert connection.execute(select(results.c.job_id)).all() == []


def test_erasing_twice_changes_nothing(desk: Desk, engine: Engine) -> None:
    job = desk.job()
    desk.erase(job.id)
    first = desk.read(job.id)

    cut_short = desk.erase(job.id)  # the image is still in the store: its name is given again
    with transaction(engine) as connection:
        rows.forget_image(connection, job.id)
    done = desk.erase(job.id)

    assert first.status is JobStatus.CANCELED
    assert (cut_short, done) == (job.image_key, None)
    assert desk.read(job.id).revision == first.revision
    assert desk.read(job.id).erased_at == first.erased_at


def test_erasing_takes_the_job_from_its_worker(desk: Desk) -> None:
    job = desk.job()
    desk.claim(job.id)

    desk.erase(job.id)

    assert not desk.succeed(job.id)
    assert not desk.has_result(job.id)
    assert desk.read(job.id).status is JobStatus.CANCELED


def test_held_polls_learn_which_jobs_are_final(desk: Desk) -> None:
    waiting, canceled = desk.job(), desk.job()
    desk.cancel(canceled.id)

    with transaction(desk.engine) as connection:
        assert rows.final_ids(connection, [waiting.id, canceled.id, "job_unknown"]) == {canceled.id}
