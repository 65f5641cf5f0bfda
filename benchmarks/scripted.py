"""The scripted sandbox as a process of its own, for the length of a `with` block."""

import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import httpx


@dataclass(frozen=True)
class ScriptedSandbox:
    """A running one."""

    url: str
    pid: int

    def stats(self, *, arrivals: bool = False) -> dict[str, Any]:
        """Its counts; with `arrivals` its log of calls too."""
        said: dict[str, Any] = self._ask("GET", "stats", params={"arrivals": 1} if arrivals else {})
        return said

    def script(self, **script: Any) -> None:
        """Play another script."""
        self._ask("POST", "script", json=script)

    def faults(self, *faults: Mapping[str, Any]) -> None:
        """Let other things go wrong, from now on."""
        self._ask("POST", "faults", json=list(faults))

    def reset(self) -> None:
        """Count from zero; windows go on."""
        self._ask("POST", "reset")

    def _ask(self, method: str, action: str, **given: Any) -> Any:
        answer = httpx.request(method, f"{self.url}/_sandbox/{action}", timeout=30, trust_env=False, **given)
        if answer.is_error:
            raise ValueError(answer.text)
        return answer.json()


@contextmanager
def running_sandbox(**script: Any) -> Iterator[ScriptedSandbox]:
    """Run one on a free port, playing a script."""
    command = [sys.executable, "-m", "sandbox.scripted", "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            line = process.stdout.readline() if process.stdout else ""
            if not line.startswith("listening on "):
                raise RuntimeError("the scripted sandbox did not start")
            sandbox = ScriptedSandbox(line.removeprefix("listening on ").strip(), process.pid)
            if script:
                sandbox.script(**script)
            yield sandbox
        finally:
            process.terminate()
            process.wait(20)
