"""What it costs to find the next jobs to feed, and what people look at, when a thousand wait, and when a million do."""

import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from sqlalchemy import Connection, text

from benchmarks.stack import print_machine
from kazheng.stack.postgres import running_postgres
from kazheng.stack.valkey import free_port
from shared.clock import utc_now
from shared.database.batches import count_items, list_items
from shared.database.engine import make_engine, transaction
from shared.database.jobs import JobFilter, claim_job, get_job, list_jobs
from shared.database.lines import count_outstanding, find_ready, take_turns, unpark_due
from shared.database.migrate import upgrade
from shared.database.recovery import find_lost
from shared.database.twins import find_twins
from shared.domain.job import Lane
from shared.settings import Settings

_FEW, _MANY = 1_000, 1_000_000
_ROUNDS = 200
_CLIENTS, _BATCHES = 10, 5
_JOB = f"job_{7:026d}"
_BATCH = "bat_alone"
_ROWS = text(
    "INSERT INTO jobs (id, client_id, batch_id, document_type, endpoint, options, lane, status, waiting_on, image_key,"
    " image_sha256, image_bytes, image_format, image_width, image_height, created_at, item_number)"
    " SELECT 'job_' || lpad(n::text, 26, '0'), 'cli_' || n % :clients, 'bat_' || n % (:clients * :batches), 'id_card',"
    " 'idcard', '{\"side\": \"front\"}', 'bulk', 'queued', 'worker', 'key', '', 1, 'JPEG', 1, 1, now(), n"
    " FROM generate_series(:first, :last) AS n"
)


def main() -> None:
    """Print the table."""
    print_machine()
    with (
        tempfile.TemporaryDirectory(prefix="kazheng-bench-") as folder,
        running_postgres(Path(folder) / "postgres", free_port()) as url,
    ):
        engine = make_engine(Settings(database_url=url), application="benchmark", pool_size=1)
        upgrade(engine)
        with transaction(engine) as connection:
            connection.execute(text("SET LOCAL statement_timeout = 0"))
            for number in range(_CLIENTS):
                connection.execute(text("INSERT INTO clients (id, name) VALUES (:id, :id)"), {"id": f"cli_{number}"})
        measured = []
        for first, last in ((1, _FEW), (_FEW + 1, _MANY)):
            with engine.connect() as connection:
                connection.execute(text("SET statement_timeout = 0"))
                connection.execute(_ROWS, {"first": first, "last": last, "clients": _CLIENTS, "batches": _BATCHES})
                if first == 1:  # a batch that does not grow with the others
                    alone = {"first": 2 * _MANY, "last": 2 * _MANY + 999, "clients": 1, "batches": 1}
                    connection.execute(_ROWS, alone)
                    connection.execute(
                        text("UPDATE jobs SET batch_id = :b WHERE batch_id = 'bat_0' AND item_number >= :n"),
                        {"b": _BATCH, "n": 2 * _MANY},
                    )
                connection.commit()
                connection.execution_options(isolation_level="AUTOCOMMIT").execute(text("VACUUM ANALYZE jobs"))
            with transaction(engine) as connection:
                measured.append({title: _median(connection, step) for title, step in _STEPS.items()})
        engine.dispose()
    print(f"| step, ms (median of {_ROUNDS}) | {_FEW:,} rows | {_MANY:,} rows | ratio |")
    print("| --- | --- | --- | --- |")
    for title in _STEPS:
        few, many = (one[title] for one in measured)
        print(f"| {title} | {few:.2f} | {many:.2f} | {many / few:.2f} |")


def _median(connection: Connection, step: Callable[[Connection], object]) -> float:
    took = []
    for _ in range(_ROUNDS):
        began = time.perf_counter()
        step(connection)
        took.append(1000 * (time.perf_counter() - began))
    return statistics.median(took)


def _claim_and_forget(connection: Connection) -> None:
    now = utc_now()
    with connection.begin_nested() as nested:
        claimed = claim_job(connection, _JOB, token="t", worker="w", now=now, lease_until=now)
        if claimed is None:
            raise RuntimeError("nothing was claimed")
        find_twins(connection, claimed, answered_since=now)
        nested.rollback()


_STEPS: dict[str, Callable[[Connection], object]] = {
    "which lines have ready jobs": lambda connection: find_ready(connection, ["idcard", "bankcard"]),
    "the next 20, of 10 clients in turn": lambda connection: take_turns(
        connection, Lane.BULK, "idcard", most=20, last_turns={"": "cli_3"}
    ),
    "the next one": lambda connection: take_turns(connection, Lane.BULK, "idcard", most=1, last_turns={"": "cli_3"}),
    "how many are on their way": lambda connection: count_outstanding(connection, ["a"]),
    "parked ones whose time has come": lambda connection: unpark_due(connection, utc_now(), most=500),
    "claim one": _claim_and_forget,
    "one job by its id": lambda connection: get_job(connection, _JOB, client_id="cli_7"),
    "50 jobs of a client, newest first": lambda connection: list_jobs(connection, "cli_3", JobFilter(), limit=50),
    "100 items of a batch": lambda connection: list_items(connection, _BATCH, limit=100, after=2 * _MANY + 400),
    "counts of a batch of 1 000 items": lambda connection: count_items(connection, _BATCH),
    "lost ones": lambda connection: find_lost(connection, silent_since=utc_now(), most=200),
}


if __name__ == "__main__":
    main()
