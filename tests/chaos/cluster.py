"""A whole Kazheng of real processes that can be killed one by one, before the scripted sandbox."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import httpx
from cryptography.fernet import Fernet
from redis import Redis
from sqlalchemy import Engine

from benchmarks.scripted import ScriptedSandbox, running_sandbox
from kazheng.stack.postgres import EmbeddedPostgres
from kazheng.stack.valkey import EmbeddedValkey, free_port
from shared.clock import utc_now
from shared.database.accounts import save_account
from shared.database.clients import create_key, find_client
from shared.database.endpoints import ensure_secret, insert_endpoint
from shared.database.engine import make_engine, transaction
from shared.database.migrate import upgrade
from shared.domain.quota import Billing
from shared.domain.webhook import Payload
from shared.limits import keys
from shared.limits.connection import connect
from shared.settings import Settings
from tests.chaos.proxy import Mode, Proxy
from tests.receivers import Receiver, receiver

QPS = 20.0
WORKERS = ("worker0", "worker1")
BEHIND_LINKS = ("api", "worker0")
"""The processes that reach Postgres and Redis by links that can be broken; all reach the vendor by one."""
JUMPING = "worker1"
"""The worker whose clock is off by the seconds in `Cluster.clock_file`."""
_BIN = Path(sys.executable).parent


class Cluster:
    """Servers and processes by name: postgres, valkey, api, worker0, worker1, maintenance, beat."""

    def __init__(self, folder: Path, sandbox: ScriptedSandbox, *, lease_seconds: int, app: str) -> None:
        """Write configurations; nothing runs yet."""
        self._app = app
        self.folder = folder
        self.clock_file = folder / "clock"
        self.sandbox = sandbox
        self.lease_seconds = lease_seconds
        self._postgres = EmbeddedPostgres(folder / "postgres", free_port())
        self._valkey = EmbeddedValkey(folder / "valkey", free_port(), durable=False)
        self._postgres.prepare()
        self._valkey.prepare()
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        self.links = {
            name: Proxy(urlsplit(url).port or 0)
            for name, url in {
                "postgres": self._postgres.url,
                "redis": self._valkey.url,
                "vendor": sandbox.url,
            }.items()
        }
        port = free_port()
        self.api_url = f"http://127.0.0.1:{port}"
        self.settings = Settings(
            home=folder / "home",
            database_url=self._postgres.url,
            redis_url=self._valkey.url,
            secret_key=Fernet.generate_key().decode(),
            api_port=port,
            lease_seconds=lease_seconds,
            connect_timeout_seconds=2,
            read_timeout_seconds=4,
            call_deadline_seconds=6,
        )
        given = self.settings.model_dump(exclude_unset=True, exclude={"database_url", "redis_url", "secret_key"})
        secrets = {"secret_key": self.settings.require_secret_key()}
        urls = {"database_url": self._postgres.url, "redis_url": self._valkey.url}
        more: dict[str, object] = {"task_events": False, "api_workers": 1, "api_threads": 16, "api_poll_threads": 4}
        more |= {"outbound_allowed_networks": "127.0.0.0/8", "outbound_allow_http": True, "webhook_timeout_seconds": 2}
        self._environment = os.environ | {
            f"KAZHENG_{name.upper()}": str(value) for name, value in {**given, **secrets, **urls, **more}.items()
        }
        self._environment["CHAOS_CLOCK"] = str(self.clock_file)
        self._behind_links = {
            "KAZHENG_DATABASE_URL": _through(self._postgres.url, self.links["postgres"].port),
            "KAZHENG_REDIS_URL": _through(self._valkey.url, self.links["redis"].port),
        }
        self.api_key = ""
        self.engine: Engine = make_engine(self.settings, application="chaos", pool_size=3)
        self.redis: Redis = connect(self.settings)

    def start_all(self, told: Receiver) -> None:
        """Start everything, the servers first; the receiver is told of every job's end."""
        self.told = told
        self.start("postgres", "valkey")
        upgrade(self.engine)
        with transaction(self.engine) as connection:
            self.api_key = create_key(connection, client="chaos", name="chaos")
            client_id = find_client(connection, self.api_key) or ""
            endpoint = insert_endpoint(connection, client_id, utc_now(), url=told.url, payload=Payload.THIN)
            ensure_secret(connection, endpoint.id, self.settings.require_secret_key())
            save_account(
                connection,
                name="chaos",
                provider="baidu",
                base_url=_through(self.sandbox.url, self.links["vendor"].port),
                api_key="sandbox-api-key",
                secret="sandbox-secret-key",
                default_qps=QPS,
                billing=Billing.POSTPAID,
                secret_key=self.settings.require_secret_key(),
            )
        self.start("api", *WORKERS, "maintenance", "beat")
        wait_until(lambda: int(str(self.redis.zcard(keys.WORKERS))) > len(WORKERS), 60)

    def start(self, *names: str) -> None:
        """Start processes; servers, and the API, are waited for."""
        for name in names:
            options = self._postgres._process_options() if name == "postgres" else {}
            log = (self.folder / f"{name}.log").open("ab")
            self._processes[name] = subprocess.Popen(
                self._command(name),
                env=self._environment | (self._behind_links if name in BEHIND_LINKS else {}),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                **options,
            )
            log.close()
            wait_until(lambda name=name: self._is_ready(name), 60)

    def _command(self, name: str) -> Sequence[str]:
        celery = (
            str(_BIN / "celery"),
            "-A",
            "tests.chaos.jumping" if name == JUMPING and self._app == "worker.main" else self._app,
        )
        if name == "postgres":
            return self._postgres.command
        if name == "valkey":
            return self._valkey.command
        if name == "api":
            return (str(_BIN / "gunicorn"), "-c", "python:api.gunicorn_conf", "api.wsgi:app")
        if name == "beat":
            return (*celery, "beat", "-s", str(self.folder / "schedule"), "--pidfile=")
        threads, queues = ("12", "maintenance,webhooks") if name == "maintenance" else ("16", "interactive,bulk")
        return (*celery, "worker", "-P", "threads", "-c", threads, "-Q", queues, "-n", f"{name}@%h", "--without-mingle")

    def _is_ready(self, name: str) -> bool:
        if name == "postgres":
            return self._postgres.is_ready()
        if name == "valkey":
            return self._valkey.is_ready()
        if name == "api":
            try:
                return httpx.get(f"{self.api_url}/livez", trust_env=False).is_success
            except httpx.HTTPError:
                return False
        return True

    def end(self, name: str, how: signal.Signals = signal.SIGKILL) -> None:
        """End a process and all of its children, and wait until it is gone."""
        process = self._processes[name]
        if how is signal.SIGKILL:
            os.killpg(process.pid, how)
        else:
            process.send_signal(how)
        # Celery's beat cleans up inside of its signal handler, and now and then waits there for itself for ever.
        process.wait(10 if name == "beat" else 60)
        del self._processes[name]

    def restart(self, name: str, how: signal.Signals = signal.SIGKILL, *, away_seconds: float = 0.0) -> None:
        """End a process, and start it again."""
        self.end(name, how)
        time.sleep(away_seconds)
        self.start(name)

    def break_link(self, name: str, mode: Mode, seconds: float) -> None:
        """Break a link for so long."""
        self.links[name].set(mode)
        time.sleep(seconds)
        self.links[name].set(Mode.PASS)

    def broker_content(self) -> str:
        """All that stands in Redis at the moment, keys and values."""
        readers: dict[str, Callable[[str], object]] = {
            "string": self.redis.get,
            "hash": self.redis.hgetall,
            "set": self.redis.smembers,
            "list": lambda key: self.redis.lrange(key, 0, -1),
            "zset": lambda key: self.redis.zrange(key, 0, -1, withscores=True),
        }
        found = []
        for key in map(str, self.redis.scan_iter("*")):
            kind = str(self.redis.type(key))
            found.append(f"{key}={readers[kind](key) if kind in readers else kind}")
        return "\n".join(found)

    def revive(self) -> int:
        """Start the processes that have died, as a supervisor would; how many."""
        dead = [name for name, process in self._processes.items() if process.poll() is not None]
        self.start(*dead)
        return len(dead)

    def stop_all(self) -> None:
        """End whatever runs, in good order."""
        for name in ("beat", "maintenance", *WORKERS, "api"):
            if name in self._processes:
                self._processes[name].send_signal(signal.SIGTERM)
        for name in ("beat", "maintenance", *WORKERS, "api", "valkey", "postgres"):
            if name in self._processes:
                try:
                    self.end(name, signal.SIGINT if name == "postgres" else signal.SIGTERM)
                except subprocess.TimeoutExpired:
                    self.end(name)
        for link in self.links.values():
            link.close()
        self.redis.close()
        self.engine.dispose()

    def logs(self) -> str:
        """All that our own processes wrote so far."""
        ours = ("api", *WORKERS, "maintenance", "beat")
        return "".join((self.folder / f"{name}.log").read_text("utf-8", errors="replace") for name in ours)


def _through(url: str, port: int) -> str:
    """The same address, by the port of a link."""
    return url.replace(f":{urlsplit(url).port}", f":{port}", 1)


def wait_until(claim: object, seconds: float) -> None:
    """Wait for something to come true.

    Raises:
        TimeoutError: it did not.
    """
    end = time.monotonic() + seconds
    while not claim():  # type: ignore[operator]
        if time.monotonic() > end:
            raise TimeoutError
        time.sleep(0.1)


@contextmanager
def running_cluster(folder: Path, *, lease_seconds: int, app: str = "worker.main") -> Iterator[Cluster]:
    """Run one for the length of a `with` block."""
    account = {"qps": QPS, "window": "sliding"}
    script = {"accounts": [account], "latency": {"median_seconds": 0.3, "p95_seconds": 0.8}}
    with running_sandbox(**script) as sandbox, receiver() as told:
        cluster = Cluster(folder, sandbox, lease_seconds=lease_seconds, app=app)
        try:
            cluster.start_all(told)
            yield cluster
        finally:
            cluster.stop_all()
