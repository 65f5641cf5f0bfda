"""The whole stack in a folder of its own, for the length of a `with` block."""

import os
import platform
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import httpx

from kazheng.stack.generated import read_generated
from kazheng.stack.valkey import free_port


@dataclass(frozen=True)
class Stack:
    """Where to reach it, and its environment for further processes."""

    api_url: str
    api_key: str
    home: Path
    environment: Mapping[str, str]


@contextmanager
def running_stack(**settings: object) -> Iterator[Stack]:
    """Run `kazheng up` until the block ends.

    Args:
        settings: names in lower case without `KAZHENG_`, such as `api_workers=2`; `BAIDU_…` as they are.

    Raises:
        RuntimeError: it did not start; the message holds what it printed.
    """
    ports = {f"KAZHENG_{name}_PORT": str(free_port()) for name in ("API", "SANDBOX", "FLOWER", "POSTGRES", "VALKEY")}
    given = {name if name.isupper() else f"KAZHENG_{name.upper()}": str(value) for name, value in settings.items()}
    with tempfile.TemporaryDirectory(prefix="kazheng-bench-") as folder:
        home = Path(folder) / "home"
        environment = {**os.environ, **ports, **given, "KAZHENG_HOME": str(home)}
        output = (Path(folder) / "up.log").open("w+b")
        process = subprocess.Popen(
            [str(Path(sys.executable).parent / "kazheng"), "up"],
            env=environment,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
        try:
            api_url = f"http://127.0.0.1:{ports['KAZHENG_API_PORT']}"
            _wait_until_ready(process, api_url, home, Path(output.name))
            yield Stack(api_url, read_generated(home)["KAZHENG_API_KEY"], home, environment)
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(120)
            output.close()


def _wait_until_ready(process: "subprocess.Popen[bytes]", api_url: str, home: Path, log: Path) -> None:
    """`up` prints its table when all runs; the key is made last."""
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and process.poll() is None:
        try:
            if b"Flower" in log.read_bytes() and "KAZHENG_API_KEY" in read_generated(home):
                httpx.get(f"{api_url}/readyz", timeout=5).raise_for_status()
                return
        except (httpx.HTTPError, FileNotFoundError):
            pass
        time.sleep(0.2)
    raise RuntimeError(f"the stack did not start:\n{log.read_text(errors='replace')}")


def print_machine() -> None:
    """Which machine the figures that follow are from, and when."""
    model = next(
        (
            line.split(":", 1)[1].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if "model name" in line
        ),
        platform.processor(),
    )
    print(f"{datetime.now(UTC):%Y-%m-%d}, {os.cpu_count()} cores, {model}, Python {platform.python_version()}")
