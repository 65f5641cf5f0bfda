"""The embedded servers and what is made up for them."""

from pathlib import Path

import psycopg2
import pytest
import redis
from cryptography.fernet import Fernet
from redis.backoff import NoBackoff
from redis.retry import Retry

from kazheng.stack.errors import StackError
from kazheng.stack.generated import generate, read_generated, remember
from kazheng.stack.postgres import EmbeddedPostgres, running_postgres
from kazheng.stack.valkey import free_port, running_valkey
from shared.settings import Settings
from tests.integration.stack_tools import NOTHING_SET, mode


def test_postgres_keeps_its_data_over_a_restart(tmp_path: Path) -> None:
    with running_postgres(tmp_path / "postgres", durable=False) as url:
        connection = psycopg2.connect(url)
        with connection, connection.cursor() as cursor:
            cursor.execute("CREATE TABLE person (name text)")
            cursor.execute("INSERT INTO person VALUES ('王小明')")
        connection.close()

    with running_postgres(tmp_path / "postgres", durable=False) as url:
        connection = psycopg2.connect(url)
        with connection, connection.cursor() as cursor:
            cursor.execute("SELECT name FROM person")
            rows = cursor.fetchall()
        connection.close()

    assert rows == [("王小明",)]


def test_postgres_wants_the_password_and_gives_no_superuser(tmp_path: Path) -> None:
    with running_postgres(tmp_path / "postgres", durable=False) as url:
        connection = psycopg2.connect(url)
        with connection, connection.cursor() as cursor:
            cursor.execute("SELECT rolsuper FROM pg_roles WHERE rolname = current_user")
            superuser = cursor.fetchone()
        connection.close()

        with pytest.raises(psycopg2.OperationalError, match="password"):
            psycopg2.connect(url.replace("://kazheng:", "://kazheng:x"))

    assert superuser == (False,)


def test_postgres_folder_is_private(tmp_path: Path) -> None:
    server = EmbeddedPostgres(tmp_path / "postgres", free_port(), durable=False)

    server.prepare()

    assert mode(tmp_path / "postgres" / "password") == 0o600
    assert mode(tmp_path / "postgres" / "data") == 0o700
    assert mode(tmp_path / "postgres") & 0o066 == 0  # others may at most pass through
    assert server.url.split(":")[2].split("@")[0] not in " ".join(server.command)


def test_start_cut_short_leaves_no_half_cluster(tmp_path: Path) -> None:
    server = EmbeddedPostgres(tmp_path / "postgres", free_port(), durable=False)
    (tmp_path / "postgres" / "data.new" / "base").mkdir(parents=True)

    server.prepare()

    assert (tmp_path / "postgres" / "data" / "PG_VERSION").read_text().strip() == "18"
    assert not (tmp_path / "postgres" / "data.new").exists()


def test_cluster_of_another_version_is_refused(tmp_path: Path) -> None:
    server = EmbeddedPostgres(tmp_path / "postgres", free_port(), durable=False)
    server.prepare()
    (tmp_path / "postgres" / "data" / "PG_VERSION").write_text("16\n")

    with pytest.raises(StackError, match=r"made by PostgreSQL 16.*KAZHENG_DATABASE_URL"):
        server.prepare()


def test_valkey_keeps_its_data_over_a_restart_and_forgets_nothing_when_full(tmp_path: Path) -> None:
    with running_valkey(tmp_path / "valkey") as url, redis.Redis.from_url(url) as client:
        client.set("card", "1")

    with running_valkey(tmp_path / "valkey") as url, redis.Redis.from_url(url) as client:
        assert client.get("card") == b"1"
        assert client.config_get("maxmemory-policy") == {"maxmemory-policy": "noeviction"}
        assert client.config_get("appendonly") == {"appendonly": "yes"}


def test_valkey_wants_the_password(tmp_path: Path) -> None:
    with running_valkey(tmp_path / "valkey") as url:
        port = int(url.split(":")[-1].split("/")[0])

        with redis.Redis(port=port, retry=Retry(NoBackoff(), 0)) as stranger, pytest.raises(redis.AuthenticationError):
            stranger.ping()

    assert mode(tmp_path / "valkey" / "valkey.conf") == 0o600


# What is made up


def make_up(home: Path, given: Settings) -> None:
    generate(
        home, given, database_url="postgresql://kazheng:x@127.0.0.1:1/kazheng", redis_url="redis://:x@127.0.0.1:2/0"
    )


def test_generated_file_is_private_and_stable(tmp_path: Path) -> None:
    make_up(tmp_path, NOTHING_SET)
    first = read_generated(tmp_path)
    make_up(tmp_path, NOTHING_SET)

    assert read_generated(tmp_path) == first
    assert mode(tmp_path / "generated.env") == 0o600
    Fernet(first["KAZHENG_SECRET_KEY"])
    assert set(first) == {
        "KAZHENG_DATABASE_URL",
        "KAZHENG_REDIS_URL",
        "KAZHENG_SECRET_KEY",
        "KAZHENG_FLOWER_PASSWORD",
        "KAZHENG_METRICS_DIR",
    }


def test_nothing_is_made_up_that_the_user_set(tmp_path: Path) -> None:
    make_up(tmp_path, NOTHING_SET)
    given = Settings.model_validate(
        {"secret_key": Fernet.generate_key().decode(), "flower_password": "mine", "metrics_dir": tmp_path}
    )

    generate(tmp_path, given, database_url=None, redis_url=None)

    assert not read_generated(tmp_path).keys() & {
        "KAZHENG_SECRET_KEY",
        "KAZHENG_FLOWER_PASSWORD",
        "KAZHENG_METRICS_DIR",
    }


def test_remembered_value_is_kept_and_read_by_the_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("KAZHENG_HOME", str(tmp_path / "a home 家"))
    make_up(tmp_path / "a home 家", NOTHING_SET)

    remember(tmp_path / "a home 家", "KAZHENG_API_KEY", "kz_abc-_1")
    make_up(tmp_path / "a home 家", NOTHING_SET)

    settings = Settings.from_env()
    assert settings.api_key is not None
    assert settings.api_key.get_secret_value() == "kz_abc-_1"
    assert settings.metrics_dir == tmp_path / "a home 家" / "metrics"
