"""Every process of the stack on one machine, with its exact command.

docker-compose.yml runs the same commands; only addresses differ. Programs are named as in a shell and looked up beside
the running Python first, so that nothing depends on an activated environment.
"""

import socket
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType

import httpx
from celery import Celery
from kombu.exceptions import OperationalError

from kazheng.addresses import local_url
from kazheng.stack.postgres import EmbeddedPostgres
from kazheng.stack.valkey import EmbeddedValkey
from shared.queues import QueueName
from shared.settings import Settings

# In the order of how they stop: intake first, so that nothing new comes in; then what makes and does work; then what
# these lean on. The number becomes supervisord's priority, which stops the highest first and equals together.
_STOPS_LAST, _DATABASE_CLIENT, _SANDBOX, _FLOWER, _WORKERS, _BEAT, _API = range(1, 8)

# Each lane has workers of its own: jobs that wait for their turn in bulk hold no thread that a person needs.
_INTERACTIVE_QUEUES = (QueueName.INTERACTIVE,)
_BULK_QUEUES = (QueueName.BULK,)
_MAINTENANCE_THREADS = 4
_MAINTENANCE_QUEUES = (QueueName.WEBHOOKS, QueueName.MAINTENANCE)


@dataclass(frozen=True)
class Port:
    """A port a process listens on, and how the user can choose another."""

    host: str
    number: int
    setting: str


@dataclass(frozen=True)
class Process:
    """One process, or one command that must end well before others start."""

    name: str
    title: str
    """For people."""
    argv: tuple[str, ...]
    priority: int
    """Higher ones stop first, equal ones together."""
    after: frozenset[str] = frozenset()
    """Names of those that must be ready before this one starts; names not in the table do not matter."""
    is_ready: Callable[[], bool] | None = None
    """None: ready once it has run for `settle_seconds`."""
    one_shot: bool = False
    """A command that must end with 0; it is not supervised."""
    port: Port | None = None
    environment: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    """Variables it reads; all processes get them, so their names must not clash."""
    user: str | None = None
    """Runs as this system user instead of the present one."""
    directory: Path | None = None
    stop_signal: str = "TERM"
    stop_seconds: int = 10
    """How long it may take to end before it is killed."""
    guards_data: bool = False
    """True: not killed when the user loses patience with a stop."""
    settle_seconds: int = 1
    ready_seconds: int = 60
    """How long it may take to get ready."""

    @property
    def command(self) -> list[str]:
        """What is executed."""
        beside = Path(sys.executable).parent / self.argv[0]
        return [str(beside) if beside.exists() else self.argv[0], *self.argv[1:]]


def table(
    settings: Settings, home: Path, *, postgres: EmbeddedPostgres | None, valkey: EmbeddedValkey | None
) -> list[Process]:
    """All processes for these settings.

    Args:
        postgres: None when the user's own server is used.
        valkey: None when the user's own server is used.
    """
    servers = frozenset({"migrate", "valkey"})
    return [
        *([_postgres(postgres)] if postgres else []),
        *([_valkey(valkey)] if valkey else []),
        Process(
            name="migrate",
            title="database tables",
            argv=("kazheng", "migrate"),
            priority=_STOPS_LAST,
            after=frozenset({"postgres"}),
            one_shot=True,
            ready_seconds=600,
        ),
        *([] if settings.baidu_api_key else [_sandbox(settings)]),
        Process(
            name="api",
            title="API",
            argv=("gunicorn", "-c", "python:api.gunicorn_conf", "api.wsgi:app"),
            priority=_API,
            after=servers,
            is_ready=lambda: _answers_ok(settings.api_host, settings.api_port, "/readyz"),
            port=Port(settings.api_host, settings.api_port, "KAZHENG_API_PORT"),
            stop_seconds=40,
        ),
        # The sandbox first: jobs left from the last time would spend attempts on a closed door.
        _worker(settings, "worker", "worker", settings.worker_threads, _INTERACTIVE_QUEUES, servers | {"sandbox"}),
        _worker(settings, "bulk", "bulk worker", settings.worker_threads, _BULK_QUEUES, servers | {"sandbox"}),
        # Deliveries leave some threads to the periodic tasks.
        _worker(
            settings,
            "maintenance",
            "maintenance worker",
            settings.webhook_threads + _MAINTENANCE_THREADS,
            _MAINTENANCE_QUEUES,
            servers,
        ),
        Process(
            name="beat",
            title="beat",
            argv=("celery", "-A", "worker.main", "beat", "-s", str(home / "beat" / "schedule"), "--pidfile="),
            priority=_BEAT,
            after=servers,
            settle_seconds=2,
        ),
        _flower(settings, servers),
    ]


def _postgres(server: EmbeddedPostgres) -> Process:
    return Process(
        name="postgres",
        title="PostgreSQL",
        argv=tuple(server.command),
        priority=_STOPS_LAST,
        is_ready=server.is_ready,
        port=Port("127.0.0.1", server.port, "KAZHENG_POSTGRES_PORT"),
        user=server.user,
        directory=server.folder.resolve(),
        guards_data=True,
        stop_signal="INT",  # fast shutdown; TERM would wait for every client to leave
        stop_seconds=60,
    )


def _valkey(server: EmbeddedValkey) -> Process:
    return Process(
        name="valkey",
        title="Valkey",
        argv=tuple(server.command),
        priority=_DATABASE_CLIENT,
        is_ready=server.is_ready,
        port=Port("127.0.0.1", server.port, "KAZHENG_VALKEY_PORT"),
        guards_data=True,
        stop_seconds=30,
    )


def _sandbox(settings: Settings) -> Process:
    return Process(
        name="sandbox",
        title="sandbox",
        argv=("gunicorn", "-c", "python:sandbox.gunicorn_conf", "sandbox.wsgi:app"),
        priority=_SANDBOX,
        is_ready=lambda: _answers_ok(settings.sandbox_host, settings.sandbox_port, "/healthz"),
        port=Port(settings.sandbox_host, settings.sandbox_port, "KAZHENG_SANDBOX_PORT"),
        stop_seconds=20,
        ready_seconds=120,  # it loads its models first
    )


def _worker(
    settings: Settings, name: str, title: str, threads: int, queues: tuple[QueueName, ...], after: frozenset[str]
) -> Process:
    node = f"{name}@{socket.gethostname()}"
    return Process(
        name=name,
        title=title,
        argv=(
            *("celery", "-A", "worker.main", "worker", "-P", "threads", "-c", str(threads)),
            *("-Q", ",".join(queues), "-n", f"{name}@%h", "--without-mingle", "--without-gossip"),
            *(("-E",) if settings.task_events else ()),
        ),
        priority=_WORKERS,
        after=after,
        is_ready=lambda: _worker_answers(settings, node),
        stop_seconds=60,  # the jobs it holds are finished: one call takes up to KAZHENG_CALL_DEADLINE_SECONDS
        settle_seconds=2,
    )


def _flower(settings: Settings, after: frozenset[str]) -> Process:
    password = settings.flower_password.get_secret_value() if settings.flower_password else ""
    return Process(
        name="flower",
        title="Flower",
        argv=(
            *("celery", "-A", "worker.main", "flower", "--address=127.0.0.1", f"--port={settings.flower_port}"),
            *("--read_only=True", "--persistent=False", "--max_tasks=10000", "--purge_offline_workers=300"),
            # Flower would switch events on in workers that were started without them.
            f"--enable_events={settings.task_events}",
        ),
        # Everybody on the machine may read arguments, but only the same user the environment.
        environment=MappingProxyType({"FLOWER_BASIC_AUTH": f"{settings.flower_user}:{password}"}),
        priority=_FLOWER,
        after=after,
        is_ready=lambda: _answers_ok("127.0.0.1", settings.flower_port, "/healthcheck"),
        port=Port("127.0.0.1", settings.flower_port, "KAZHENG_FLOWER_PORT"),
    )


def _answers_ok(host: str, port: int, path: str) -> bool:
    try:
        # A proxy set for the outside world has no way to this machine's own servers.
        return httpx.get(local_url(host, port) + path, timeout=2, trust_env=False).is_success
    except httpx.HTTPError:
        return False


def _worker_answers(settings: Settings, node: str) -> bool:
    """Whether the worker reads its queues: it answers a ping from the same place it takes its tasks."""
    app = Celery("kazheng", broker=settings.require_redis_url(), set_as_current=False)
    try:
        return bool(app.control.ping(destination=[node], timeout=0.3, limit=1))
    except (OperationalError, OSError):
        return False
    finally:
        app.close()
