"""The lines in which jobs wait, and how they are taken from there.

A queued job is in one of three places, each with a partial index of its own:

- ready: nothing is to be waited for but its turn (`not_before` null, no message on its way);
- parked: not before a time (`not_before`);
- sent: a message is on its way (`published_at`), or was lost.

Feeding takes ready jobs in turns: one of each client, and of each client one of each of its batches, oldest first. What
a turn costs does not depend on how many jobs wait: the index is entered once for each client and batch that gets one.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection, and_, func, or_, select, text, update

from shared.database.engine import commit_without_waiting
from shared.database.history import JobEvent, remembering
from shared.database.jobs import Job
from shared.database.tables import jobs
from shared.domain.job import JobStatus, Lane, WaitingOn

FURTHEST_POSITION = 1_000


@dataclass(frozen=True)
class Ready:
    """A job that may be sent."""

    id: str
    client_id: str
    batch_id: str


def count_ahead(connection: Connection, job: Job) -> int:
    """Queued jobs of its endpoint and lane accepted before this one; counts to FURTHEST_POSITION and no further."""
    ahead = (
        select(jobs.c.id)
        .where(
            jobs.c.status == JobStatus.QUEUED,
            jobs.c.endpoint == job.endpoint,
            jobs.c.lane == job.lane,
            jobs.c.id < job.id,
        )
        .limit(FURTHEST_POSITION)
        .subquery()
    )
    return connection.execute(select(func.count()).select_from(ahead)).scalar_one()


def count_queued(connection: Connection) -> dict[tuple[str, Lane], int]:
    """Queued jobs by endpoint and lane, all of them: for people, not for every request."""
    statement = (
        select(jobs.c.endpoint, jobs.c.lane, func.count())
        .where(jobs.c.status == JobStatus.QUEUED)
        .group_by(jobs.c.endpoint, jobs.c.lane)
    )
    return {(endpoint, Lane(lane)): count for endpoint, lane, count in connection.execute(statement)}


def count_outstanding(connection: Connection, live_workers: Sequence[str]) -> dict[tuple[str, Lane], int]:
    """Jobs by endpoint and lane that were sent and are not finished; few, for feeding keeps them so.

    Args:
        live_workers: claims of others are not counted: a dead worker's would hold up the line until they run out.
    """
    sent = select(jobs.c.endpoint, jobs.c.lane).where(
        jobs.c.status == JobStatus.QUEUED, jobs.c.published_at.is_not(None)
    )
    processing = select(jobs.c.endpoint, jobs.c.lane).where(
        jobs.c.status == JobStatus.PROCESSING, jobs.c.claimed_by.in_(live_workers)
    )
    both = sent.union_all(processing).subquery()
    statement = select(both.c.endpoint, both.c.lane, func.count()).group_by(both.c.endpoint, both.c.lane)
    return {(endpoint, Lane(lane)): count for endpoint, lane, count in connection.execute(statement)}


# Written so that only the order of ix_jobs_ready serves them: for less, the planner would walk another index, past
# the jobs of other clients, or past the archive.
_READY = text(
    """
    SELECT endpoint, lane FROM unnest(CAST(:endpoints AS text[])) AS endpoint
    CROSS JOIN unnest(CAST(:lanes AS text[])) AS lane
    CROSS JOIN LATERAL (
        SELECT FROM jobs
        WHERE status = 'queued' AND published_at IS NULL AND not_before IS NULL
          AND jobs.lane = lane.lane AND jobs.endpoint = endpoint.endpoint
        ORDER BY client_id, batch_id, id LIMIT 1) AS first
    """
)


def find_ready(connection: Connection, endpoints: Sequence[str]) -> list[tuple[str, Lane]]:
    """Which of these endpoints have ready jobs, in which lane; people's first."""
    given = {"endpoints": list(endpoints), "lanes": [lane.value for lane in Lane]}
    found = [(row.endpoint, Lane(row.lane)) for row in connection.execute(_READY, given)]
    return sorted(found, key=lambda line: line[1] is Lane.BULK)


# The next clients, or batches, that have something ready: each step enters the index behind the one found before.
_CLIENTS = text(
    """
    WITH RECURSIVE turn(client_id, n) AS (
        (SELECT client_id, 1 FROM jobs
         WHERE status = 'queued' AND published_at IS NULL AND not_before IS NULL
           AND lane = :lane AND endpoint = :endpoint AND client_id > :after
         ORDER BY client_id, batch_id, id LIMIT 1)
        UNION ALL
        (SELECT following.client_id, turn.n + 1 FROM turn CROSS JOIN LATERAL (
            SELECT client_id FROM jobs
            WHERE status = 'queued' AND published_at IS NULL AND not_before IS NULL
              AND lane = :lane AND endpoint = :endpoint AND client_id > turn.client_id
            ORDER BY client_id, batch_id, id LIMIT 1) AS following
         WHERE turn.n < :most)
    )
    SELECT client_id FROM turn
    """
)
_BATCHES = text(
    """
    WITH RECURSIVE turn(batch_id, n) AS (
        (SELECT batch_id, 1 FROM jobs
         WHERE status = 'queued' AND published_at IS NULL AND not_before IS NULL
           AND lane = :lane AND endpoint = :endpoint AND client_id = :client_id AND batch_id > :after
         ORDER BY batch_id, id LIMIT 1)
        UNION ALL
        (SELECT following.batch_id, turn.n + 1 FROM turn CROSS JOIN LATERAL (
            SELECT batch_id FROM jobs
            WHERE status = 'queued' AND published_at IS NULL AND not_before IS NULL
              AND lane = :lane AND endpoint = :endpoint AND client_id = :client_id AND batch_id > turn.batch_id
            ORDER BY batch_id, id LIMIT 1) AS following
         WHERE turn.n < :most)
    )
    SELECT batch_id FROM turn
    """
)
_JOBS = text(
    """
    SELECT id FROM jobs
    WHERE status = 'queued' AND published_at IS NULL AND not_before IS NULL
      AND lane = :lane AND endpoint = :endpoint
      AND client_id BETWEEN :client_id AND :client_id AND batch_id BETWEEN :batch_id AND :batch_id
    ORDER BY client_id, batch_id, id LIMIT :most
    """
)


def take_turns(
    connection: Connection, lane: Lane, endpoint: str, *, most: int, last_turns: Mapping[str, str]
) -> list[Ready]:
    """Ready jobs in the order of turns, at most so many.

    Args:
        last_turns: whose turn was the last: under "" the client, under a client's id its batch.
    """
    place = {"lane": lane.value, "endpoint": endpoint}
    clients = _in_turn(connection, _CLIENTS, place, last_turns.get(""), most)
    if not clients:
        return []
    shares = _shares(most, len(clients))
    lines = [
        _take_from_client(connection, place, client_id, share, last_turns.get(client_id))
        for client_id, share in zip(clients, shares, strict=True)
    ]
    taken = _deal(lines)
    # Others had less than their share: whoever has more takes it.
    if len(taken) < most and any(len(line) == share for line, share in zip(lines, shares, strict=True)):
        lines = [
            _take_from_client(connection, place, client_id, most, last_turns.get(client_id)) for client_id in clients
        ]
        taken = _deal(lines)
    return taken[:most]


def _take_from_client(
    connection: Connection, place: Mapping[str, str], client_id: str, most: int, last_batch: str | None
) -> list[Ready]:
    whose = {**place, "client_id": client_id}
    batches = _in_turn(connection, _BATCHES, whose, last_batch, most)
    lines = []
    for batch_id in batches:
        found = connection.execute(_JOBS, {**whose, "batch_id": batch_id, "most": -(-most // len(batches)) + 1})
        lines.append([Ready(job_id, client_id, batch_id) for job_id in found.scalars()])
    return _deal(lines)[:most]


def _in_turn(
    connection: Connection, statement: object, place: Mapping[str, str], last: str | None, most: int
) -> list[str]:
    """Those behind the last one, then from the first on."""
    after = last if last is not None else ""
    found = list(connection.execute(statement, {**place, "after": after, "most": most}).scalars())  # type: ignore[call-overload]
    if last is not None and len(found) < most:
        again = connection.execute(statement, {**place, "after": "", "most": most}).scalars()  # type: ignore[call-overload]
        found.extend(name for name in again if name <= last)
    return found[:most]


def _shares(whole: int, parts: int) -> list[int]:
    return [whole // parts + (number < whole % parts) for number in range(parts)]


def _deal(lines: Sequence[Sequence[Ready]]) -> list[Ready]:
    """The first of each line, then the second of each."""
    longest = max(map(len, lines), default=0)
    return [line[place] for place in range(longest) for line in lines if place < len(line)]


def mark_published(connection: Connection, job_ids: Sequence[str], now: datetime) -> None:
    """Remember that messages are on their way. Lost remembrance costs a doubled message, no more.

    Args:
        now: when the jobs were looked up. A worker may have taken one and put it back since, to wait for a later time:
            that job needs another message then, and is left alone.
    """
    commit_without_waiting(connection)
    still_due = or_(jobs.c.not_before.is_(None), jobs.c.not_before <= now)
    values = {"published_at": now, "history": remembering(JobEvent.PUBLISHED, now)}
    connection.execute(update(jobs).where(jobs.c.id.in_(job_ids), still_due).values(values))


def remember_first_message(connection: Connection, job_id: str, now: datetime) -> None:
    """Remember that a new job's first message is on its way, unless a worker has been quicker.

    A worker may even have put the job back in line by now: then its `published_at` is no business of intake any more.
    """
    commit_without_waiting(connection)
    where = and_(jobs.c.id == job_id, jobs.c.claim_count == 0)
    values = {"published_at": now, "history": remembering(JobEvent.PUBLISHED, now)}
    connection.execute(update(jobs).where(where).values(values))


def unpark_due(connection: Connection, now: datetime, *, most: int) -> int:
    """Make parked jobs ready whose time has come, oldest first; how many."""
    due = (
        select(jobs.c.id)
        .where(jobs.c.status == JobStatus.QUEUED, jobs.c.not_before.is_not(None), jobs.c.not_before <= now)
        .order_by(jobs.c.not_before, jobs.c.id)
        .limit(most)
        .with_for_update(skip_locked=True)
        .scalar_subquery()
    )
    values = {"not_before": None, "published_at": None, "waiting_on": WaitingOn.WORKER}
    return connection.execute(update(jobs).where(jobs.c.id.in_(due)).values(values)).rowcount
