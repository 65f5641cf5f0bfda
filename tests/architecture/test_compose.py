"""docker-compose.yml runs what `kazheng up` runs."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from kazheng.stack.processes import table
from shared.settings import Settings

ROOT = Path(__file__).parent.parent.parent


@pytest.fixture(scope="module")
def services() -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text(encoding="utf-8"))["services"]
    return loaded


# What may differ between one machine and containers: where to listen, and where to keep files.
_PLACES = ("--address=", "--port=", "-s")


def _comparable(command: list[str]) -> list[str]:
    kept = [word for word in command if not word.startswith(_PLACES)]
    return [word for word in kept if not word.endswith("/schedule")]


def test_every_process_has_its_service_with_the_same_command(services: dict[str, Any], tmp_path: Path) -> None:
    settings = Settings(database_url="postgresql://db/x", redis_url="redis://r/0", flower_password="x")

    processes = table(settings, tmp_path, postgres=None, valkey=None)

    assert {process.name for process in processes} <= set(services)
    for process in processes:
        assert _comparable(list(process.argv)) == _comparable(services[process.name]["command"]), process.name


def test_no_service_of_ours_runs_as_root_or_can_write_its_image(services: dict[str, Any]) -> None:
    ours = {name: service for name, service in services.items() if service["image"] == "kazheng"}

    assert "USER kazheng" in (ROOT / "Dockerfile").read_text(encoding="utf-8")
    assert all(service["read_only"] and service["cap_drop"] == ["ALL"] for service in ours.values())


def test_no_secret_is_baked_in(services: dict[str, Any]) -> None:
    names = ("POSTGRES_PASSWORD", "REDIS_PASSWORD", "FLOWER_PASSWORD", "KAZHENG_SECRET_KEY", "BAIDU_SECRET_KEY")
    text = (ROOT / "docker-compose.yml").read_text(encoding="utf-8")

    for name in names:
        assert f"${{{name}:-}}" in text or f"${{{name}:?" in text, name


def test_every_long_running_service_is_watched(services: dict[str, Any]) -> None:
    unwatched = {name for name, service in services.items() if "healthcheck" not in service}

    assert unwatched == {"migrate", "beat"}
