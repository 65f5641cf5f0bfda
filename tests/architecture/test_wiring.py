"""Names meet their other ends: tasks, queues, periodic work; and who reads the environment."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from shared.queues import LANE_QUEUES, TASK_QUEUES, QueueName, TaskName
from shared.settings import Settings
from worker.app import make_celery

ROOT = Path(__file__).parent.parent.parent
PACKAGES = ("api", "worker", "shared", "sandbox", "client/kazheng")


def sources() -> list[Path]:
    return [path for package in PACKAGES for path in (ROOT / package).rglob("*.py")]


@pytest.fixture
def celery_tasks() -> set[str]:
    app = make_celery(Settings(redis_url="redis://127.0.0.1:1/0"))
    app.loader.import_default_modules()
    return {name for name in app.tasks if not name.startswith("celery.")}


def test_every_task_name_has_a_task_and_every_task_a_name(celery_tasks: set[str]) -> None:
    assert celery_tasks == set(TaskName)


def test_every_periodic_task_exists() -> None:
    app = make_celery(Settings(redis_url="redis://127.0.0.1:1/0"))

    assert {entry["task"] for entry in app.conf.beat_schedule.values()} == {
        TaskName.SWEEP,
        TaskName.PURGE,
        TaskName.FOLLOW,
        TaskName.WATCH_QUOTAS,
    }


def test_every_queue_is_declared_and_every_lane_has_one() -> None:
    assert {queue.name for queue in TASK_QUEUES} == set(QueueName)
    assert set(LANE_QUEUES.values()) <= set(QueueName)


def test_only_the_settings_read_the_environment() -> None:
    # The stack hands its own environment on to the processes it starts.
    allowed = {"shared/settings.py"}
    readers = {
        str(path.relative_to(ROOT))
        for path in sources()
        if re.search(r"os\.(environ|getenv)", path.read_text(encoding="utf-8"))
    }

    assert {reader for reader in readers - allowed if not reader.startswith("client/kazheng/")} == set()


def test_every_file_can_be_read_in_one_sitting() -> None:
    long = {str(path): lines for path in sources() if (lines := len(path.read_text("utf-8").splitlines())) > 400}

    assert long == {}


def test_the_import_contracts_hold() -> None:
    command = [str(Path(sys.executable).parent / "lint-imports"), "--no-cache"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)

    assert done.returncode == 0, done.stdout
