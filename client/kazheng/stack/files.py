"""Small private files: written whole or not at all, readable by their owner only."""

import os
from pathlib import Path

from kazheng.stack.errors import StackError


def write_private(path: Path, text: str) -> None:
    """Replace a file in one step; its mode is 0600 before the first byte is in it, and it survives a power cut."""
    fresh = path.with_name(f"{path.name}.{os.getpid()}.new")
    fresh.unlink(missing_ok=True)
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        fresh.replace(path)
    except BaseException:
        fresh.unlink(missing_ok=True)
        raise
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def make_private_folder(path: Path) -> Path:
    """Create a folder nobody else may enter; one that exists keeps its mode.

    Raises:
        StackError: it cannot be created or written.
    """
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise _not_writable(path, error.strerror) from error
    if not os.access(path, os.W_OK | os.X_OK):
        raise _not_writable(path, "permission denied")
    return path


def _not_writable(path: Path, reason: str | None) -> StackError:
    return StackError(
        f"The folder {path} cannot be written ({reason or 'unknown reason'}). Make it writable for this user,"
        " or name another place with KAZHENG_HOME."
    )
