"""Runs the `kazheng` command in this process, with the settings of one test and no others."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from sqlalchemy import Engine

from kazheng.commands.main import main
from shared.settings import Settings

Kazheng = Callable[..., Result]


def command_runner(settings: Settings, engine: Engine, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Kazheng:
    """The command on migrated, empty tables, run in a folder of its own."""
    assert settings.redis_url
    for name in list(os.environ):
        if name.startswith(("KAZHENG_", "BAIDU_")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("KAZHENG_HOME", str(settings.home))
    monkeypatch.setenv("KAZHENG_DATABASE_URL", engine.url.set(drivername="postgresql").render_as_string(False))
    monkeypatch.setenv("KAZHENG_REDIS_URL", settings.redis_url.get_secret_value())
    monkeypatch.setenv("KAZHENG_SECRET_KEY", settings.require_secret_key())
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.chdir(folder)
    return lambda *words, **options: CliRunner().invoke(main, words, **options)
