"""The hot statements of deliveries read indexes: a million that were taken cost those that wait nothing."""

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import Connection, Engine, text

from shared.clock import utc_now
from shared.database import deliveries, delivery_log, endpoints, events, health
from shared.database.deliveries import Ended, Portion
from shared.database.engine import transaction
from shared.domain.webhook import Outcome
from tests.factories import make_client
from tests.integration.plan_tools import plans_of

NOW = utc_now()
ENDPOINT, JOB = "whe_" + "7".rjust(26, "0"), "job_" + "207".rjust(26, "0")
_FILL = (
    "INSERT INTO clients (id, name) SELECT 'cli_' || n, 'client ' || n FROM generate_series(0, 99) AS n",
    (
        "INSERT INTO webhook_endpoints (id, client_id, kind, url, payload, created_at, succeeded_at)"
        " SELECT 'whe_' || lpad(n::text, 26, '0'), 'cli_' || n % 100, 'registered', 'https://a.example/', 'thin',"
        " now(), now() FROM generate_series(0, 199) AS n"
    ),
    (
        "INSERT INTO events (id, client_id, type, data, job_id, position, created_at)"
        " SELECT 'evt_' || lpad(n::text, 26, '0'), 'cli_' || n % 100, 'job.succeeded', '{}',"
        " 'job_' || lpad(n::text, 26, '0'), CASE WHEN n < 19900 THEN n END, now() FROM generate_series(1, 20000) AS n"
    ),
    (
        "INSERT INTO deliveries (id, endpoint_id, event_id, job_id, status, next_attempt_at, created_at, claim_token,"
        " lease_until)"
        " SELECT 'dlv_' || lpad(n::text, 26, '0'), 'whe_' || lpad((n % 200)::text, 26, '0'),"
        " 'evt_' || lpad(n::text, 26, '0'), 'job_' || lpad(n::text, 26, '0'), s, now(), now(),"
        " CASE WHEN s = 'sending' THEN n::text END, CASE WHEN s = 'sending' THEN now() + interval '1 hour' END"
        " FROM (SELECT n, CASE WHEN n % 200 = 7 AND n % 3 = 0 THEN 'pending' WHEN n % 601 = 0 THEN 'sending'"
        " ELSE 'succeeded' END AS s FROM generate_series(1, 19900) AS n) AS rows"
    ),
)


def _claim(connection: Connection) -> Portion:
    portion = deliveries.claim_portion(
        connection, ENDPOINT, token="t", now=NOW + timedelta(minutes=9), lease_until=NOW + timedelta(hours=1), most=20,
        at_a_time=4,
    )  # fmt: skip
    assert portion is not None
    return portion


def _settle(connection: Connection) -> None:
    portion = _claim(connection)
    assert deliveries.still_held(connection, portion, portion.deliveries[0].id)
    ended = [Ended(one, Outcome(500, 9, "x"), "{}", 0.0) for one in portion.deliveries]
    deliveries.settle(connection, portion, ended, NOW, disable_after=timedelta(days=5))
    deliveries.hand_back(connection, portion)


def _recover(connection: Connection) -> None:
    endpoint = endpoints.get_endpoint(connection, ENDPOINT, client_id="cli_7")
    assert endpoint is not None
    delivery_log.recover_failed(connection, endpoint, since=NOW, until=NOW, now=NOW)


STATEMENTS: dict[str, tuple[str, Callable[[Connection], Any]]] = {
    "due": ("deliveries", lambda c: deliveries.find_due(c, NOW + timedelta(minutes=9), most=200)),
    "lost": ("deliveries", lambda c: deliveries.take_back_lost(c, NOW + timedelta(hours=2))),
    "claim": ("deliveries", _claim),
    "settle": ("deliveries", _settle),
    "log": ("deliveries", lambda c: delivery_log.list_deliveries(c, ENDPOINT, limit=50)),
    "of a job": ("deliveries", lambda c: delivery_log.deliveries_of_job(c, JOB, most=20)),
    "erase": ("deliveries", lambda c: deliveries.forget_deliveries(c, JOB, client_id="cli_7", now=NOW)),
    "recover": ("deliveries", _recover),
    "ages": ("deliveries", lambda c: health.read_ages(c, NOW)),
    "new": ("events", lambda c: events.place_events(c, NOW, most=50)),
    "pull": ("events", lambda c: events.list_events(c, "cli_7", after=15_000, limit=50)),
    "latest": ("events", lambda c: events.last_position(c, "cli_7")),
    "oldest": ("events", lambda c: health.read_ages(c, NOW)),
}


@pytest.fixture
def filled(engine: Engine) -> Engine:
    make_client(engine)
    with transaction(engine) as connection:
        for statement in _FILL:
            connection.execute(text(statement))
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text("VACUUM ANALYZE deliveries, events, webhook_endpoints"))
    return engine


@pytest.mark.parametrize("name", STATEMENTS)
def test_it_does_not_walk_the_table(filled: Engine, name: str) -> None:
    table, act = STATEMENTS[name]

    plans = plans_of(filled, act, table)

    assert plans
    for statement, plan in plans:
        assert f"Seq Scan on {table}" not in plan, f"{statement}\n{plan}"
