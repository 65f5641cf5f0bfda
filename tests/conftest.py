"""Real servers for the tests that need them: one PostgreSQL and one Valkey a run, emptied between tests."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cryptography.fernet import Fernet
from redis import Redis
from sqlalchemy import Engine, text

from kazheng.stack.postgres import running_postgres
from kazheng.stack.valkey import free_port, running_valkey
from shared.database.engine import make_engine
from shared.database.migrate import upgrade
from shared.database.tables import metadata
from shared.limits.connection import connect
from shared.settings import Settings
from shared.storage import ImageStore, make_store

SAMPLES = Path(__file__).parent.parent / "samples"


@pytest.fixture(scope="session")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """Addresses of an embedded PostgreSQL and Valkey: `database_url`, `redis_url`."""
    folder = tmp_path_factory.mktemp("servers")
    with (
        running_postgres(folder / "postgres", free_port(), durable=False) as database_url,
        running_valkey(folder / "valkey", free_port(), durable=False) as redis_url,
    ):
        yield {"database_url": database_url, "redis_url": redis_url}


@pytest.fixture(scope="session")
def _migrated(servers: dict[str, str]) -> None:
    engine = make_engine(Settings(database_url=servers["database_url"]), application="migrate", pool_size=1)
    upgrade(engine)
    engine.dispose()


@pytest.fixture
def settings(servers: dict[str, str], tmp_path: Path) -> Settings:
    """Settings of one test: its own home, the shared servers."""
    return Settings(
        home=tmp_path / "home",
        database_url=servers["database_url"],
        redis_url=servers["redis_url"],
        secret_key=Fernet.generate_key().decode(),
    )


@pytest.fixture
def engine(settings: Settings, _migrated: None) -> Iterator[Engine]:
    """A migrated database without rows."""
    engine = make_engine(settings, application="tests", pool_size=5)
    with engine.begin() as connection:
        names = ", ".join(table.name for table in metadata.sorted_tables)
        connection.execute(text(f"TRUNCATE {names} CASCADE"))
    yield engine
    engine.dispose()


@pytest.fixture
def redis_client(settings: Settings) -> Iterator[Redis]:
    """An empty Valkey."""
    client = connect(settings)
    client.flushall()
    yield client
    client.close()


@pytest.fixture
def store(settings: Settings) -> ImageStore:
    """An image store in the test's home."""
    return make_store(settings)


@pytest.fixture(scope="session")
def samples() -> list[dict[str, Any]]:
    """The sample pictures: `file`, `document_type`, `options`, `fields`."""
    loaded: list[dict[str, Any]] = json.loads((SAMPLES / "expected.json").read_text(encoding="utf-8"))
    return loaded
