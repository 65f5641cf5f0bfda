"""`generated.env` in the home: what `kazheng up` made up for this machine, so that no one has to.

`shared.settings` reads it last, so whatever the user sets in the environment or in `.env` wins; such names are left
out of it. Whoever can read it can do everything: its mode is 0600. `KAZHENG_SECRET_KEY` is in it and nowhere else:
without it, stored account secrets cannot be opened again.
"""

import re
import secrets
from collections.abc import Mapping
from pathlib import Path

from cryptography.fernet import Fernet
from dotenv import dotenv_values

from kazheng.stack.files import make_private_folder, write_private
from shared.settings import GENERATED_FILE, Settings

_HEADER = "# Written by `kazheng up` for this machine. Set a name in the environment or in .env to override it.\n"
# What needs no quoting in an env file, for whoever reads it.
_PLAIN = re.compile(r"[\w:/?@%&=+.,~\-\[\]]*", re.ASCII)


def read_generated(home: Path) -> dict[str, str]:
    """What was made up so far; empty before the first start."""
    path = home / GENERATED_FILE
    return {k: v for k, v in dotenv_values(path, interpolate=False).items() if v is not None} if path.exists() else {}


def remember(home: Path, name: str, value: str) -> None:
    """Keep one more value for later starts and other commands, such as the first API key.

    Raises:
        ValueError: the value needs quoting, which nothing made up here does.
    """
    _write(home, {**read_generated(home), name: value})


def generate(home: Path, given: Settings, *, database_url: str | None, redis_url: str | None) -> None:
    """Make up what the user did not set, keep what was made up before, drop what the user sets by now.

    Args:
        given: what the user set, read without the generated file.
        database_url: address of the embedded PostgreSQL, or None when the user's own is used.
        redis_url: address of the embedded Valkey, or None when the user's own is used.
    """
    before = read_generated(home)
    values: dict[str, str | None] = {
        "KAZHENG_DATABASE_URL": database_url,
        "KAZHENG_REDIS_URL": redis_url,
        "KAZHENG_SECRET_KEY": None
        if given.secret_key
        else before.get("KAZHENG_SECRET_KEY") or Fernet.generate_key().decode(),
        "KAZHENG_FLOWER_PASSWORD": None
        if given.flower_password
        else before.get("KAZHENG_FLOWER_PASSWORD") or secrets.token_urlsafe(12),
        # Not remembered: a home may be moved.
        "KAZHENG_METRICS_DIR": None if given.metrics_dir else str((home / "metrics").resolve()),
    }
    _write(home, {name: value for name, value in {**before, **values}.items() if value is not None})


def _write(home: Path, values: Mapping[str, str]) -> None:
    make_private_folder(home)
    lines = []
    for name, value in values.items():
        if any(part in value for part in ("\n", "'", "\\", "${")):
            raise ValueError(f"{name} has a quote, a line break, a backslash or ${{ in it")
        lines.append(f"{name}={value}\n" if _PLAIN.fullmatch(value) else f"{name}='{value}'\n")
    text = _HEADER + "".join(lines)
    path = home / GENERATED_FILE
    if not path.exists() or path.read_text(encoding="utf-8") != text:
        write_private(path, text)
    path.chmod(0o600)
