"""A provider that answers every call after a fixed time, and remembers how long each answer took."""

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

_TOKEN = {"access_token": "24.bench", "expires_in": 2_592_000, "scope": "public brain_all_scope"}
_CARD = {
    "log_id": 1790000000000000010,
    "direction": 0,
    "result": {"bank_card_number": "9999 9900 0000 0000", "bank_card_type": 1, "bank_name": "样例银行"},
}


class Upstream(ThreadingHTTPServer):
    """Speaks as much of Baidu's protocol as a benchmark needs."""

    daemon_threads = True

    def __init__(self, answer_seconds: float) -> None:
        """Listen on a free port of 127.0.0.1."""
        super().__init__(("127.0.0.1", 0), _Handler)
        self.answer_seconds = answer_seconds
        self.took: list[float] = []

    @property
    def url(self) -> str:
        """Its base URL."""
        return f"http://127.0.0.1:{self.server_port}"


class _Handler(BaseHTTPRequestHandler):
    server: Upstream
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        arrived = time.perf_counter()
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if "/oauth/" in self.path:
            self._answer(_TOKEN)
            return
        time.sleep(self.server.answer_seconds)
        self._answer(_CARD)
        self.server.took.append(time.perf_counter() - arrived)

    def _answer(self, content: dict[str, object]) -> None:
        body = json.dumps(content).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@contextmanager
def running_upstream(answer_seconds: float) -> Iterator[Upstream]:
    """Run one for the length of a `with` block."""
    server = Upstream(answer_seconds)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
