"""`kazheng doctor` on real servers, some of them unwell."""

import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

import pytest
from cryptography.fernet import Fernet
from redis import Redis
from sqlalchemy import Engine, text

from kazheng.stack.valkey import free_port
from shared.settings import Settings
from tests.integration.command_runner import Kazheng, command_runner


@pytest.fixture
def kazheng(settings: Settings, engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Kazheng:
    """Runs the command with the settings of the test, in an empty folder."""
    return command_runner(settings, engine, tmp_path, monkeypatch)


pytestmark = pytest.mark.usefixtures("redis_client")

Examine = Callable[[], dict[str, dict[str, Any]]]


class _Provider(BaseHTTPRequestHandler):
    """Gives a token to who knows the secret `hidden-good`; remembers paths. Calls itself ready and healthy."""

    paths: list[str]

    def do_POST(self) -> None:
        form = parse_qs(self.rfile.read(int(self.headers["Content-Length"])).decode())
        good = form["client_secret"] == ["hidden-good"]
        self._answer(200 if good else 401, {"access_token": "24.t"} if good else {"error": "invalid_client"})

    def do_GET(self) -> None:
        self._answer(200, {})

    def _answer(self, status: int, body: dict[str, Any]) -> None:
        self.paths.append(self.path)
        content = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def provider() -> Iterator[ThreadingHTTPServer]:
    """A provider's token endpoint on this machine."""
    _Provider.paths = []
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Provider)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def examine(kazheng: Kazheng, provider: ThreadingHTTPServer, monkeypatch: pytest.MonkeyPatch) -> Examine:
    """Findings by what was looked at; the API is the provider's double, an account points there, too."""
    monkeypatch.setenv("KAZHENG_API_URL", f"http://127.0.0.1:{provider.server_port}")
    monkeypatch.setenv("KAZHENG_BAIDU_BASE_URL", f"http://127.0.0.1:{provider.server_port}")

    def run() -> dict[str, dict[str, Any]]:
        lines = kazheng("doctor", "--json").stdout.splitlines()
        return {finding["what"]: finding for finding in map(json.loads, lines)}

    return run


def test_what_works_is_ok(kazheng: Kazheng, examine: Examine, monkeypatch: pytest.MonkeyPatch) -> None:
    words = ("--api-key", "key-1", "--secret-stdin")
    kazheng("accounts", "set", "second", *words, input="hidden-good\n")
    monkeypatch.setenv("KAZHENG_API_KEY", kazheng("keys", "create", "--client", "shop").stdout.strip())

    found = examine()

    working = {name for name, finding in found.items() if finding["state"] == "ok"}
    assert {"settings", "secret key", "database", "API key", "Redis", "clock", "image store"} <= working
    assert {"account second", "API", "Redis memory policy"} <= working
    # The Valkey of the tests keeps nothing on disk, and no worker runs.
    assert found["Redis persistence"]["state"] == "wrong"
    assert found["workers"]["state"] == "wrong"


def test_secret_is_in_no_address_and_in_no_finding(kazheng: Kazheng, examine: Examine) -> None:
    kazheng("accounts", "set", "second", "--api-key", "key-1", "--secret-stdin", input="hidden-bad\n")

    found = examine()

    assert found["account second"]["state"] == "wrong"
    assert "refuses its keys" in found["account second"]["seen"]
    assert "hidden" not in json.dumps(found) + " ".join(_Provider.paths)


def test_account_whose_secret_can_not_be_opened_is_found(
    kazheng: Kazheng,
    examine: Examine,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    kazheng("accounts", "set", "second", "--api-key", "key-1", "--secret-stdin", input="hidden-good\n")
    monkeypatch.setenv("KAZHENG_SECRET_KEY", Fernet.generate_key().decode())

    assert "KAZHENG_SECRET_KEY" in examine()["account second"]["seen"]


def test_unknown_api_key_and_missing_account_are_found(examine: Examine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KAZHENG_API_KEY", "kz_of_another_server")

    found = examine()

    assert found["API key"]["state"] == "wrong"
    assert "kazheng migrate" in found["accounts"]["remedy"]


def test_memory_policy_that_loses_messages_is_found(examine: Examine, redis_client: Redis) -> None:
    redis_client.config_set("maxmemory-policy", "allkeys-lru")
    try:
        found = examine()
    finally:
        redis_client.config_set("maxmemory-policy", "noeviction")

    assert found["Redis memory policy"]["state"] == "wrong"


def test_sandbox_that_does_not_run_is_found(
    kazheng: Kazheng,
    examine: Examine,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("KAZHENG_SANDBOX_PORT", str(free_port()))
    kazheng("migrate")

    found = examine()

    assert found["sandbox"]["state"] == "wrong"
    assert "kazheng sandbox" in found["sandbox"]["remedy"]


def test_tables_that_are_not_there_are_found(kazheng: Kazheng, examine: Examine, engine: Engine) -> None:
    with engine.begin() as connection:
        connection.execute(text("ALTER ROLE CURRENT_USER SET search_path = 'nowhere'"))
    try:
        found = examine()
        listed = kazheng("keys", "list")
    finally:
        with engine.begin() as connection:
            connection.execute(text("ALTER ROLE CURRENT_USER RESET search_path"))

    assert found["database"]["state"] == "wrong"
    assert "kazheng migrate" in found["database"]["remedy"]
    assert found["accounts"]["state"] == "unknown"
    assert (listed.exit_code, "kazheng migrate" in listed.output) == (2, True)
