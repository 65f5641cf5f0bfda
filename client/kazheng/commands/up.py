"""`kazheng up`, `kazheng down`, `kazheng status`: the whole stack on one machine."""

import importlib
import os
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from types import FrameType

import click
import psutil
from pydantic import SecretStr
from rich.console import Console
from rich.table import Table
from rich.text import Text

from kazheng.addresses import local_url
from kazheng.stack.control import UNREACHABLE, read_states
from kazheng.stack.errors import StackError
from kazheng.stack.files import make_private_folder
from kazheng.stack.generated import generate, remember
from kazheng.stack.lock import InstanceLock, holder
from kazheng.stack.logs import LogFollower
from kazheng.stack.postgres import EmbeddedPostgres
from kazheng.stack.processes import Process, table
from kazheng.stack.supervisor import Supervisor
from kazheng.stack.valkey import EmbeddedValkey
from shared.settings import Settings, SettingsError

_DOWN_SECONDS = 180


@click.command("up")
@click.option("--demo", is_flag=True, help="Recognize the sample pictures once everything runs.")
@click.option("--exit-after-demo", is_flag=True, help="Stop after the samples; exit code 1 if one failed.")
@click.option("--verbose", "-v", is_flag=True, help="Show all log lines, not only warnings and errors.")
def up(*, demo: bool, exit_after_demo: bool, verbose: bool) -> None:
    """Run everything on this machine until Ctrl-C: servers, API, workers, sandbox, Flower."""
    console = Console()
    try:
        passed = _Run(console, verbose=verbose).run(demo=demo or exit_after_demo, exit_after_demo=exit_after_demo)
    except (StackError, SettingsError) as error:
        _explain(error)
        sys.exit(1)
    sys.exit(0 if passed else 1)


@click.command("down")
def down() -> None:
    """Stop what `kazheng up` runs in this home, wherever it was started."""
    home = _home()
    found = holder(home)
    if found is None:
        click.echo(f"Nothing runs in {home}.")
        return
    # Once `up` itself is gone, supervisord stops everything on its own, and the number may be somebody else's.
    if found.up_pid and (not found.supervisord_pid or _parent(found.supervisord_pid) == found.up_pid):
        try:
            os.kill(found.up_pid, signal.SIGTERM)
        except ProcessLookupError:
            pass
        except PermissionError:
            _explain(StackError(f"`kazheng up` (pid {found.up_pid}) belongs to another user, who must stop it."))
            sys.exit(1)
    deadline = time.monotonic() + _DOWN_SECONDS
    with Console().status(f"Stopping what runs in {home}"):
        while holder(home):
            if time.monotonic() > deadline:
                _explain(StackError(f"It still stops after {_DOWN_SECONDS} seconds; see {home / 'logs'}."))
                sys.exit(1)
            time.sleep(0.1)
    click.echo("Stopped.")


@click.command("status")
def status() -> None:
    """Show what runs in this home; exit code 1 unless all of it does."""
    home = _home()
    if holder(home) is None:
        click.echo(f"Nothing runs in {home}. Start it with `kazheng up`.")
        sys.exit(1)
    try:
        states = read_states(home)
    except UNREACHABLE:
        click.echo(f"A `kazheng up` is starting or stopping in {home}.")
        sys.exit(1)
    rows = Table("process", "state", "pid", "for", "log", box=None, pad_edge=False)
    for state in states.values():
        age = f"{max(0, int(time.time()) - state.started_at)} s" if state.runs else ""
        color = "green" if state.state == "RUNNING" else "red"
        log = Text(str(home / "logs" / f"{state.name}.log"), overflow="fold")
        rows.add_row(state.name, Text(state.state.lower(), color), str(state.pid or ""), age, log)
    Console().print(rows)
    sys.exit(0 if all(state.state == "RUNNING" for state in states.values()) else 1)


class _StopRequestedError(BaseException):
    """Ctrl-C or a signal; derived like KeyboardInterrupt, so that nobody takes it for a failure of theirs."""


class _Interrupts:
    """The first Ctrl-C, SIGTERM or closed terminal unwinds what goes on; later ones are counted."""

    def __init__(self) -> None:
        self.count = 0
        self.unwinding = True
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, self._receive)

    def _receive(self, _number: int, _frame: FrameType | None) -> None:
        self.count += 1
        if self.unwinding:
            self.unwinding = False
            raise _StopRequestedError


class _Progress:
    """Shows what is being waited for, and a line for each that is done."""

    def __init__(self, console: Console, verb: str, logs: LogFollower | None) -> None:
        self._console = console
        self._verb = verb
        self._logs = logs
        self._status = console.status(verb)

    def __enter__(self) -> "_Progress":
        self._status.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._status.stop()
        if self._logs:
            self._logs.show_new()

    def waiting(self, titles: Sequence[str]) -> None:
        if titles:
            self._status.update(f"{self._verb} {', '.join(titles)}")
        if self._logs:
            self._logs.show_new()

    def done(self, title: str, seconds: float) -> None:
        self._console.print(f"  [green]✓[/] {title:<20} [dim]{seconds:5.1f} s[/]", highlight=False)


class _Run:
    """One `kazheng up`, from the lock to the last process stopped."""

    def __init__(self, console: Console, *, verbose: bool) -> None:
        self._console = console
        self._verbose = verbose
        self._interrupts = _Interrupts()

    def run(self, *, demo: bool, exit_after_demo: bool) -> bool:
        """Returns whether all went well: False when a sample failed, or the demo was cut short.

        Raises:
            StackError: it does not start, or broke down.
            SettingsError: a setting is wrong.
        """
        home = make_private_folder(_home())
        passed = not exit_after_demo
        try:
            with InstanceLock(home) as lock:
                began = time.monotonic()
                settings, processes = self._prepare(home)
                environment = _environment(home, settings)
                supervisor = Supervisor(home, processes, lock=lock, environment=environment)
                try:
                    self._start(supervisor, processes)
                    self._console.print(f"Started in {time.monotonic() - began:.1f} s.", highlight=False)
                    settings = self._ensure_key(home, settings)
                    if demo:
                        passed = bool(importlib.import_module("kazheng.commands.demo").run_demo(settings))
                    self._show_addresses(home, settings)
                    if not exit_after_demo:
                        passed = True  # a failed sample was shown; serving goes on, and ends well with Ctrl-C
                        self._serve(supervisor, processes)
                finally:
                    self._stop(supervisor)
        except _StopRequestedError:
            pass
        return passed

    def _prepare(self, home: Path) -> tuple[Settings, list[Process]]:
        given = Settings.from_env(generated=False)
        postgres = None if given.database_url else EmbeddedPostgres(home / "postgres", given.postgres_port)
        valkey = None if given.redis_url else EmbeddedValkey(home / "valkey", given.valkey_port)
        with self._console.status(f"Preparing {home}"):
            if postgres:
                for folder in postgres.prepare():
                    self._console.print(f"Let PostgreSQL's system user pass through {folder} (chmod o+x).")
            if valkey:
                valkey.prepare()
        generate(
            home,
            given,
            database_url=postgres.url if postgres else None,
            redis_url=valkey.url if valkey else None,
        )
        settings = Settings.from_env()
        return settings, table(settings, home, postgres=postgres, valkey=valkey)

    def _start(self, supervisor: Supervisor, processes: Sequence[Process]) -> None:
        logs = self._follow(supervisor, processes) if self._verbose else None
        with _Progress(self._console, "Starting", logs) as progress:
            supervisor.start(progress)

    def _ensure_key(self, home: Path, settings: Settings) -> Settings:
        """The settings with an API key for whoever started the stack."""
        key = importlib.import_module("kazheng.commands.keys").ensure_demo_key(settings)
        if settings.api_key is None or settings.api_key.get_secret_value() != key:
            remember(home, "KAZHENG_API_KEY", key)
        # A key in the environment that is not known here would win over the one just made.
        return Settings.from_env().model_copy(update={"api_key": SecretStr(key)})

    def _show_addresses(self, home: Path, settings: Settings) -> None:
        api = local_url(settings.api_host, settings.api_port)
        rows = [("API", api), ("API docs", f"{api}/docs")]
        password = settings.flower_password.get_secret_value() if settings.flower_password else ""
        flower = f"http://127.0.0.1:{settings.flower_port}  user {settings.flower_user}  password {password}"
        rows.append(("Flower", flower))
        if not settings.baidu_api_key:
            rows.append(("Sandbox", local_url(settings.sandbox_host, settings.sandbox_port)))
        if settings.api_key:
            rows.append(("API key", settings.api_key.get_secret_value()))
        rows.append(("Logs", str(home / "logs")))
        self._console.print()
        for name, value in rows:
            # Not wrapped, so that it can be copied whole.
            self._console.print(Text(f"  {name:<9} ", "bold") + Text(value), soft_wrap=True, highlight=False)
        self._console.print()

    def _serve(self, supervisor: Supervisor, processes: Sequence[Process]) -> None:
        shown = "All log lines" if self._verbose else "Warnings and errors"
        self._console.print(f"Serving. {shown} follow. Ctrl-C stops everything.\n", highlight=False)
        logs = self._follow(supervisor, processes)
        while True:
            for sentence in supervisor.check():
                self._console.print(Text(sentence, "yellow"), soft_wrap=True)
            for _ in range(5):
                logs.show_new()
                time.sleep(0.2)

    def _stop(self, supervisor: Supervisor) -> None:
        self._interrupts.unwinding = False
        if not supervisor.is_started:
            return
        received = self._interrupts.count
        began = time.monotonic()
        self._console.print("\nStopping; what is under way is finished first. Ctrl-C again hurries.", highlight=False)
        with _Progress(self._console, "Stopping", None) as progress:
            supervisor.stop(progress, lambda: self._interrupts.count > received)
        self._console.print(f"Stopped in {time.monotonic() - began:.1f} s.", highlight=False)

    def _follow(self, supervisor: Supervisor, processes: Sequence[Process]) -> LogFollower:
        paths = {process.name: supervisor.log_path(process.name) for process in processes}
        return LogFollower(paths, self._console, everything=self._verbose)


def _environment(home: Path, settings: Settings) -> dict[str, str]:
    """The environment of the children: this one, with what they must agree on."""
    metrics = make_private_folder(settings.metrics_dir or home / "metrics")
    for file in metrics.glob("*.db"):  # counts of processes that are gone
        file.unlink()
    inherited = os.environ  # noqa: TID251 - handed on, not read
    return {
        **inherited,
        "KAZHENG_HOME": str(home),
        "PROMETHEUS_MULTIPROC_DIR": str(metrics),
        "PYTHONUNBUFFERED": "1",
    }


def _home() -> Path:
    try:
        return Settings.from_env(generated=False).home.expanduser().resolve()
    except SettingsError as error:
        _explain(error)
        sys.exit(1)


def _parent(pid: int) -> int | None:
    try:
        return int(psutil.Process(pid).ppid())
    except psutil.NoSuchProcess:
        return None


def _explain(error: Exception) -> None:
    Console(stderr=True).print(Text(str(error), "red"), soft_wrap=True, highlight=False)
