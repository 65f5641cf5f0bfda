"""Sixty-four threads in four processes want a token: the provider is asked once, and once more when it is refused."""

import json
import os
import subprocess
import sys
import threading
import time

from redis import Redis

from benchmarks.scripted import running_sandbox
from shared.limits.tokens import Token, TokenStore
from shared.settings import Settings
from tests.integration.token_worker import THREADS

PROCESSES = 4


def test_all_processes_together_fetch_one_token(settings: Settings, redis_client: Redis) -> None:
    assert settings.redis_url
    environment = {
        **os.environ,
        "KAZHENG_REDIS_URL": settings.redis_url.get_secret_value(),
        "KAZHENG_SECRET_KEY": settings.require_secret_key(),
        "PYTHONPATH": os.pathsep.join(sys.path),
    }
    with running_sandbox(network_delay_seconds=[0.0, 0.05]) as sandbox:
        command = [sys.executable, "-m", "tests.integration.token_worker", sandbox.url]
        running = [subprocess.Popen(command, env=environment, stdout=subprocess.PIPE) for _ in range(PROCESSES)]
        told = [json.loads(process.communicate(timeout=100)[0].splitlines()[-1]) for process in running]
        fetched = sandbox.stats()["tokens_issued"]

    pairs = [pair for tokens in told for pair in tokens]
    assert len(pairs) == PROCESSES * THREADS
    # A process that starts after the first token was refused begins with the second one, and refuses that.
    assert fetched <= 1 + PROCESSES
    assert len({token for pair in pairs for token in pair}) == fetched


def test_a_renewal_that_hangs_holds_up_nobody_who_has_a_valid_token(settings: Settings, redis_client: Redis) -> None:
    store, now = TokenStore(redis_client, settings.require_secret_key()), time.time()
    store._keep("acc", Token("old", fetched_at=now - 950, expires_at=now + 50))
    began, ended = threading.Event(), threading.Event()

    def hang() -> tuple[str, float]:
        began.set()
        ended.wait(30)
        return "new", 1000.0

    while_it_hangs = [store.get("acc", hang) for _ in range(2)]
    assert began.wait(10)
    ended.set()

    assert while_it_hangs == ["old", "old"]
    while store.get("acc", hang) == "old":
        time.sleep(0.01)
    assert store.get("acc", hang) == "new"
