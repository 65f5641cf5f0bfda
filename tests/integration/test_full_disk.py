"""A disk that is really full: nothing is kept by halves, and there is room again once something is erased."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

_MOUNT = 'mount -t tmpfs -o size=1m tmpfs "$1" && exec "$2" -c "$3" "$1"'
_FILL = """
import json, sys
from pathlib import Path
from shared.domain.errors import StorageFullError, StorageUnavailableError
from shared.settings import Settings
from shared.storage import make_store

folder = Path(sys.argv[1])
store = make_store(Settings(home=folder))
kept, told = [], []
for number in range(20):
    try:
        store.put(f"2026/11/23/job_{number}", bytes(150_000))
        kept.append(number)
    except (StorageFullError, StorageUnavailableError) as error:
        told.append(type(error).__name__)
files = sorted(file.stat().st_size for file in (folder / "images").rglob("*") if file.is_file())
for number in kept:
    store.delete(f"2026/11/23/job_{number}")
store.check()
print(json.dumps({"kept": kept, "told": told, "files": files}))
"""


def unshare() -> list[str]:
    """The command before another that gives it a namespace in which it may mount."""
    command = shutil.which("unshare")
    if command is None or subprocess.run([command, "-rm", "true"], check=False, capture_output=True).returncode:
        pytest.skip("this machine lets nobody mount a small disk")
    return [command, "-rm", "sh", "-c", _MOUNT, "sh"]


def test_a_full_disk_is_told_and_keeps_nothing_by_halves(tmp_path: Path) -> None:
    command = [*unshare(), str(tmp_path), sys.executable, _FILL]

    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=60)

    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    assert said["kept"] == [0, 1, 2, 3, 4, 5]
    assert said["told"] == ["StorageFullError"] * 14
    assert said["files"] == [150_000] * 6
