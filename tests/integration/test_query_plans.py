"""The hot statements read indexes: none walks the whole table of jobs, whatever is in it."""

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import Connection, Engine, text

from shared.clock import utc_now
from shared.database import batches, exports, jobs, lines, recovery, twins
from shared.database.engine import transaction
from shared.database.jobs import Job, JobFilter
from shared.domain.job import JobStatus
from tests.factories import make_client
from tests.integration.plan_tools import plans_of

_ROWS = text(
    "INSERT INTO jobs (id, client_id, batch_id, item_number, document_type, endpoint, options, lane, status,"
    " claim_token, lease_until, error_code, client_reference_id, image_key, image_sha256, image_bytes, image_format,"
    " image_width, image_height, created_at, published_at)"
    " SELECT 'job_' || lpad(n::text, 26, '0'), :client_id, CASE WHEN n % 4 = 0 THEN 'bat_' || n % 200 ELSE '-' END, n,"
    " 'id_card', 'idcard', '{}', 'bulk', s, CASE WHEN s = 'processing' THEN n::text END, now(),"
    " CASE WHEN s = 'failed' THEN 'blurred' END, 'ref ' || n, 'key', md5(n::text), 1, 'JPEG', 1, 1, now(),"
    " CASE WHEN n % 7 = 0 THEN now() END"
    " FROM (SELECT n, CASE n % 20 WHEN 0 THEN 'queued' WHEN 1 THEN 'processing' WHEN 2 THEN 'failed'"
    " ELSE 'succeeded' END AS s FROM generate_series(1, 20000) AS n) AS rows"
)
NOW = utc_now()
CLIENT, BATCH, JOB = "the client", "bat_100", f"job_{100:026d}"


def _job(connection: Connection) -> Job:
    found = jobs.get_job(connection, JOB, client_id=CLIENT)
    assert found is not None
    return found


def _claim(connection: Connection) -> None:
    claimed = jobs.claim_job(connection, JOB, token="t", worker="w", now=NOW, lease_until=NOW)
    assert claimed is not None
    twins.find_twins(connection, claimed, answered_since=NOW)


STATEMENTS: dict[str, Callable[[Connection], Any]] = {
    "claim": _claim,
    "poll": lambda c: (_job(c), jobs.get_results(c, [JOB]), lines.count_ahead(c, _job(c))),
    "list": lambda c: jobs.list_jobs(c, CLIENT, JobFilter(), limit=50),
    "list by reference": lambda c: jobs.list_jobs(c, CLIENT, JobFilter(client_reference_id="ref 7"), limit=50),
    "held polls": lambda c: jobs.final_ids(c, [JOB]),
    "counts of a batch": lambda c: batches.count_items(c, BATCH),
    "items of a batch": lambda c: batches.list_items(c, BATCH, limit=100),
    "failed items": lambda c: batches.list_items(c, BATCH, statuses=[JobStatus.FAILED], limit=100),
    "what is there of a batch": lambda c: batches.known_numbers(c, BATCH, 1, 200),
    "cancel a batch": lambda c: batches.cancel_waiting(c, BATCH, NOW, most=100),
    "retry a batch": lambda c: batches.retry_failed(c, BATCH, NOW, only_retryable=False, most=100),
    "export": lambda c: (exports.document_types_of(c, BATCH), exports.read_export(c, BATCH, limit=500, after=0)),
    "lost messages": lambda c: recovery.find_lost(c, silent_since=NOW, most=200),
    "dead workers": lambda c: recovery.find_abandoned(c, NOW, most=200),
    "expiry": lambda c: recovery.expire_due(c, NOW, most=200),
    "erasures": lambda c: recovery.find_erasing(c, most=200),
    "renewal": lambda c: recovery.renew_leases(c, ["1", "2"], NOW + timedelta(seconds=9)),
    "parked": lambda c: lines.unpark_due(c, NOW, most=100),
    "on their way": lambda c: lines.count_outstanding(c, ["w"]),
    "all that waits": lines.count_queued,
}


@pytest.fixture
def filled(engine: Engine) -> Engine:
    client_id, _ = make_client(engine)
    with transaction(engine) as connection:
        connection.execute(_ROWS, {"client_id": client_id})
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text("VACUUM ANALYZE jobs"))
    return engine


@pytest.mark.parametrize("name", STATEMENTS)
def test_it_does_not_walk_the_table(filled: Engine, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    with transaction(filled) as connection:
        client_id = connection.execute(text("SELECT id FROM clients")).scalar_one()
    monkeypatch.setitem(globals(), "CLIENT", client_id)
    plans = plans_of(filled, STATEMENTS[name], "jobs")

    assert plans
    for statement, plan in plans:
        assert "Seq Scan on jobs" not in plan, f"{statement}\n{plan}"
