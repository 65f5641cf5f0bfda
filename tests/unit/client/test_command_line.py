"""The `kazheng` command itself: help, errors, and the commands that need no server."""

import os
import subprocess
import sys
from pathlib import Path

import click
import pytest
from click.testing import CliRunner
from cryptography.fernet import Fernet

from kazheng.commands.main import main


@pytest.fixture(autouse=True)
def bare_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No setting of the developer's own reaches a test."""
    for name in list(os.environ):
        if name.startswith(("KAZHENG_", "BAIDU_")):
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)


def commands() -> list[tuple[str, ...]]:
    """Every command with its group, as typed."""
    context = click.Context(main)
    found: list[tuple[str, ...]] = []
    for name in main.list_commands(context):
        command = main.get_command(context, name)
        found.append((name,))
        if isinstance(command, click.Group):
            found += [(name, child) for child in command.commands]
    return found


@pytest.mark.parametrize("words", commands(), ids=" ".join)
def test_every_command_explains_itself(words: tuple[str, ...]) -> None:
    result = CliRunner().invoke(main, [*words, "--help"])

    assert result.exit_code == 0
    assert f"Usage: main {' '.join(words)}" in result.output


def test_help_names_every_command_and_gives_examples() -> None:
    result = CliRunner().invoke(main, ["--help"])

    assert result.exit_code == 0
    assert "kazheng submit card.jpg --type id_card" in result.output
    for name in main.list_commands(click.Context(main)):
        assert f"\n  {name} " in result.output


def test_help_loads_no_subcommand() -> None:
    code = (
        "import sys; from click.testing import CliRunner; from kazheng.commands.main import main;"
        "CliRunner().invoke(main, ['--help']);"
        "print(*{m.split('.')[0] for m in sys.modules} & {'sqlalchemy', 'celery', 'httpx', 'rich', 'shared'})"
    )

    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout

    assert printed.strip() == ""


def test_version_is_told() -> None:
    result = CliRunner().invoke(main, ["--version"])

    assert result.output.startswith("kazheng 0.")


def test_unknown_command_is_a_usage_error() -> None:
    assert CliRunner().invoke(main, ["recognise"]).exit_code == 2


def test_wrong_settings_are_one_paragraph_that_names_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KAZHENG_API_PORT", "0")
    monkeypatch.setenv("KAZHENG_WORKER_THREADS", "many")

    result = CliRunner().invoke(main, ["keys", "list"])

    assert result.exit_code == 2
    assert "KAZHENG_API_PORT" in result.output
    assert "KAZHENG_WORKER_THREADS" in result.output
    assert "Traceback" not in result.output


@pytest.mark.parametrize(
    ("variables", "told"),
    [
        ({}, "KAZHENG_DATABASE_URL is not set"),
        ({"KAZHENG_DATABASE_URL": "nonsense"}, "no address of a database"),
        ({"KAZHENG_DATABASE_URL": "postgresql://u:hidden@127.0.0.1:1/x"}, "The database does not answer"),
    ],
)
def test_missing_database_is_explained(monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], told: str) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)

    result = CliRunner().invoke(main, ["keys", "list"])

    assert result.exit_code == 2
    assert told in result.output
    assert "hidden" not in result.output


def test_migration_without_a_database_is_explained_without_its_password(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KAZHENG_DATABASE_URL", "postgresql://u:hidden@127.0.0.1:1/x")
    monkeypatch.setenv("KAZHENG_SECRET_KEY", Fernet.generate_key().decode())

    result = CliRunner().invoke(main, ["migrate"])

    assert result.exit_code == 2
    assert "The database does not answer" in result.output
    assert "hidden" not in result.output


def test_defect_of_ours_keeps_its_stack_trace(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> bytes:
        raise RuntimeError("a defect")

    monkeypatch.setattr(Fernet, "generate_key", fail)

    result = CliRunner().invoke(main, ["keys", "generate-secret"])

    assert isinstance(result.exception, RuntimeError)


def test_generated_secret_can_seal() -> None:
    result = CliRunner().invoke(main, ["keys", "generate-secret"])

    assert Fernet(result.output.strip())


def test_sandbox_becomes_gunicorn(monkeypatch: pytest.MonkeyPatch) -> None:
    executed: list[list[str]] = []
    monkeypatch.setattr(os, "execv", lambda _path, argv: executed.append(argv))

    result = CliRunner().invoke(main, ["sandbox"])

    assert result.exit_code == 0
    assert executed == [[sys.executable, "-m", "gunicorn", "-c", "python:sandbox.gunicorn_conf", "sandbox.wsgi:app"]]


def test_doctor_with_nothing_set_says_what_to_do() -> None:
    result = CliRunner().invoke(main, ["doctor"], terminal_width=200)

    assert result.exit_code == 1
    for word in ("KAZHENG_SECRET_KEY", "KAZHENG_DATABASE_URL", "KAZHENG_REDIS_URL", "generate-secret"):
        assert word in result.output


def test_doctor_with_unreadable_settings_says_which(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KAZHENG_API_PORT", "0")

    result = CliRunner().invoke(main, ["doctor", "--json"])

    assert result.exit_code == 1
    assert "KAZHENG_API_PORT" in result.output
