"""The table of processes, and what the terminal shows of them."""

from pathlib import Path

import pytest

from kazheng.stack.logs import is_alarming, line_for_people
from kazheng.stack.postgres import EmbeddedPostgres
from kazheng.stack.processes import Process, table
from kazheng.stack.valkey import EmbeddedValkey
from shared.queues import QueueName
from shared.settings import Settings


def make_table(home: Path, **settings: object) -> dict[str, Process]:
    rows = table(
        Settings.model_validate({"flower_password": "hidden", **settings}),
        home,
        postgres=EmbeddedPostgres(home / "postgres", 1),
        valkey=EmbeddedValkey(home / "valkey", 2),
    )
    return {process.name: process for process in rows}


def test_every_queue_is_read_by_one_process(tmp_path: Path) -> None:
    rows = make_table(tmp_path).values()

    read = [q for p in rows if "-Q" in p.argv for q in p.argv[p.argv.index("-Q") + 1].split(",")]

    assert sorted(read) == sorted(QueueName)


def test_nothing_starts_before_what_it_needs_nor_stops_after_it(tmp_path: Path) -> None:
    rows = make_table(tmp_path)

    for process in rows.values():
        assert process.after <= rows.keys()
        for needed in process.after:
            ended = process.one_shot or rows[needed].one_shot
            assert ended or rows[needed].priority < process.priority
    assert [p.name for p in sorted(rows.values(), key=lambda p: -p.priority) if not p.one_shot] == [
        *("api", "beat", "worker", "bulk", "maintenance", "flower", "sandbox", "valkey", "postgres")
    ]


def test_sandbox_runs_only_without_a_baidu_account(tmp_path: Path) -> None:
    assert "sandbox" in make_table(tmp_path)
    assert "sandbox" not in make_table(tmp_path, baidu_api_key="an account")


def test_no_password_is_on_a_command_line(tmp_path: Path) -> None:
    rows = make_table(tmp_path)

    assert rows["flower"].environment == {"FLOWER_BASIC_AUTH": "kazheng:hidden"}
    assert not any("hidden" in word for process in rows.values() for word in process.argv)


@pytest.mark.parametrize(
    ("line", "alarming"),
    [
        ('{"event": "publish_failed", "level": "warning"}', True),
        ('{"event": "job_settled", "level": "info"}', False),
        ("[2026-11-23 08:00:00,000: WARNING/MainProcess] consumer: Connection lost", True),
        ("[2026-11-23 08:00:00,000: INFO/MainProcess] worker@host ready.", False),
        ("[2026-11-23 08:13:02 +0000] [14372] [ERROR] Shutting down: Master", True),
        ("[2026-11-23 08:13:02 +0000] [14372] [INFO] Listening at: http://127.0.0.1:8080", False),
        ("2026-11-23 08:00:00.000 UTC [6135] LOG:  database system is ready to accept connections", False),
        ("2026-11-23 08:00:00.000 UTC [6135] ERROR:  deadlock detected", True),
        ("[W 261123 08:00:00 inspector:44] Inspect method failed", True),
        ("6136:M 23 Nov 2026 08:00:00.000 # WARNING Memory overcommit must be enabled!", True),
        ("6136:M 23 Nov 2026 08:00:00.000 * Ready to accept connections tcp", False),
        # Says nothing, so it belongs to the line before: a traceback.
        ('  File "wsgi.py", line 1, in <module>', None),
    ],
)
def test_lines_of_every_program_are_told_apart(line: str, alarming: bool | None) -> None:
    assert is_alarming(line) is alarming


def test_structured_line_is_made_readable() -> None:
    line = '{"queue": "bulk", "event": "publish_failed", "level": "warning", "timestamp": "2026-11-23T08:00:01.5Z"}'

    assert line_for_people(line) == "08:00:01 warning publish_failed queue=bulk"
