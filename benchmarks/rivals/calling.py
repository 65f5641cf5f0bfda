"""What the rivals share: one call with `requests`, and what they tell when they are done."""

import argparse
import base64
import json
import random
import sys
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path

import requests

ENDPOINT = "bankcard"
_RATE_LIMITED = 18
_SAMPLE = 2_000


@dataclass
class Tally:
    """What one process saw. Safe to share between threads."""

    calls: int = 0
    accepted: int = 0
    waits: list[float] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def count(self, *, accepted: bool, waited: float) -> None:
        """Note one call; `waited` from taking up the picture to sending the call that was accepted."""
        with self.lock:
            self.calls += 1
            self.accepted += accepted
            if accepted:
                self.waits.append(waited)

    def tell(self) -> None:
        """Print it as one line of JSON."""
        waits = random.sample(self.waits, min(_SAMPLE, len(self.waits)))
        sys.stdout.write(json.dumps({"calls": self.calls, "accepted": self.accepted, "waits": waits}) + "\n")


class Caller:
    """Calls the vendor as its documents say; a session for each thread."""

    def __init__(self, url: str, key: str, image: bytes) -> None:
        """Fetch a token."""
        self._url, self._local = url, threading.local()
        given = {"grant_type": "client_credentials", "client_id": key, "client_secret": "secret"}
        answer = requests.post(f"{url}/oauth/2.0/token", params=given, timeout=10).json()
        self._token = answer["access_token"]
        self._form = {"image": base64.b64encode(image).decode()}

    def call(self) -> int:
        """The error code, 0 for none."""
        session: requests.Session | None = getattr(self._local, "session", None)
        if session is None:
            session = self._local.session = requests.Session()
        answer = session.post(
            f"{self._url}/rest/2.0/ocr/v1/{ENDPOINT}",
            params={"access_token": self._token},
            data=self._form,
            timeout=60,
        ).json()
        return int(answer.get("error_code", 0))


def is_rate_limited(code: int) -> bool:
    """Whether the vendor refused a call for its rate."""
    return code == _RATE_LIMITED


def read_arguments() -> argparse.Namespace:
    """What every rival is told."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--url", required=True)
    parser.add_argument("--key", required=True)
    parser.add_argument("--redis", default="")
    parser.add_argument("--qps", type=float, required=True)
    parser.add_argument("--seconds", type=float, required=True)
    parser.add_argument("--image", type=Path, required=True)
    return parser.parse_args()


def threads_for(qps: float) -> int:
    """How many calls to have under way: enough for answers that take a second and a half."""
    return max(4, int(qps * 1.5) + 2)


def back_off() -> None:
    """Wait a second, give or take, as the vendor's answers in forums advise."""
    time.sleep(random.uniform(0.5, 1.5))
