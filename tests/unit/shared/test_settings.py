"""Settings are read once, and everything wrong with them is said at once."""

from pathlib import Path

import pytest
from cryptography.fernet import Fernet
from pydantic import ValidationError

from shared.settings import GENERATED_FILE, Settings, SettingsError


@pytest.fixture(autouse=True)
def _empty_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for field in Settings.model_fields:
        monkeypatch.delenv(f"KAZHENG_{field.upper()}", raising=False)
    for name in ("BAIDU_API_KEY", "BAIDU_SECRET_KEY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)


def test_nothing_has_to_be_set(tmp_path: Path) -> None:
    settings = Settings.from_env()

    assert settings.images_url == (tmp_path / ".kazheng" / "images").as_uri()
    assert settings.baidu_qps == 2


def test_every_wrong_setting_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KAZHENG_API_PORT", "many")
    monkeypatch.setenv("KAZHENG_LOG_FORMAT", "xml")
    monkeypatch.setenv("KAZHENG_OUTBOUND_ALLOWED_NETWORKS", "10.0.0.0/8, here")
    monkeypatch.setenv("KAZHENG_LEASE_SECONDS", "1")

    with pytest.raises(SettingsError) as caught:
        Settings.from_env()

    for name in ("API_PORT", "LOG_FORMAT", "OUTBOUND_ALLOWED_NETWORKS", "LEASE_SECONDS"):
        assert f"KAZHENG_{name}" in str(caught.value), name


def test_a_malformed_secret_key_is_told_and_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KAZHENG_SECRET_KEY", "too-short-to-be-a-key")

    with pytest.raises(SettingsError, match="KAZHENG_SECRET_KEY") as caught:
        Settings.from_env()

    assert "too-short-to-be-a-key" not in str(caught.value)


def test_secrets_are_not_printed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KAZHENG_DATABASE_URL", "postgresql://u:hidden-1@db/x")
    monkeypatch.setenv("KAZHENG_SECRET_KEY", Fernet.generate_key().decode())
    monkeypatch.setenv("BAIDU_SECRET_KEY", "hidden-2")

    shown = repr(Settings.from_env())

    assert "hidden" not in shown
    assert Settings.from_env().require_secret_key() not in shown


def test_the_environment_wins_over_the_file_and_the_file_over_what_was_generated(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    home = tmp_path / "home"
    home.mkdir()
    (home / GENERATED_FILE).write_text("KAZHENG_API_PORT=1001\nKAZHENG_SANDBOX_PORT=1001\nKAZHENG_FLOWER_PORT=1001\n")
    (tmp_path / ".env").write_text("KAZHENG_HOME=home\nKAZHENG_API_PORT=1002\nKAZHENG_SANDBOX_PORT=1002\n")
    monkeypatch.setenv("KAZHENG_API_PORT", "1003")

    settings = Settings.from_env()

    assert (settings.api_port, settings.sandbox_port, settings.flower_port) == (1003, 1002, 1001)
    assert Settings.from_env(generated=False).flower_port == 5555


def test_what_is_set_to_nothing_is_not_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KAZHENG_SANDBOX_DAY_LIMIT", "")
    monkeypatch.setenv("BAIDU_API_KEY", "")

    settings = Settings.from_env()

    assert (settings.sandbox_day_limit, settings.baidu_api_key) == (None, None)


def test_baidu_s_own_names_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BAIDU_API_KEY", "key")
    monkeypatch.setenv("BAIDU_SECRET_KEY", "secret")

    settings = Settings.from_env()

    assert settings.baidu_api_key == "key"
    assert settings.baidu_secret_key is not None
    assert settings.baidu_secret_key.get_secret_value() == "secret"


def test_a_file_that_holds_no_certificates_is_told(tmp_path: Path) -> None:
    (tmp_path / "ca.pem").write_text("no certificate")

    for file in (tmp_path / "ca.pem", tmp_path / "missing.pem"):
        with pytest.raises(ValidationError, match="no file of certificates"):
            Settings(outbound_ca_file=file)


def test_settings_do_not_change_while_running() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        Settings().api_port = 1  # type: ignore[misc]


@pytest.mark.parametrize("scheme", ["postgres://", "postgresql://", "postgresql+psycopg2://"])
def test_every_spelling_of_postgres_is_taken(scheme: str) -> None:
    assert Settings(database_url=f"{scheme}u@db/x").require_database_url() == "postgresql+psycopg2://u@db/x"


@pytest.mark.parametrize("name", ["DATABASE_URL", "REDIS_URL", "SECRET_KEY"])
def test_what_is_needed_and_missing_is_named(name: str) -> None:
    with pytest.raises(SettingsError, match=f"KAZHENG_{name}"):
        getattr(Settings(), f"require_{name.lower()}")()
