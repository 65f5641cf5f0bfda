"""A sandbox under a clock that tests move, with the real reader or one that sees what it is told."""

import base64
import io
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from flask.testing import FlaskClient
from PIL import Image
from werkzeug.serving import make_server

from sandbox.accounts import Account
from sandbox.app import SandboxConfig, create_app
from sandbox.page import Page
from sandbox.reader import PaddleReader, Reader
from tests.sandbox.support import (
    ACCOUNT,
    Call,
    FetchToken,
    FixedReader,
    ImageText,
    MakeClient,
    MakePage,
    MovableClock,
    RunningSandbox,
    RunSandbox,
    line,
)


@pytest.fixture
def make_page() -> MakePage:
    """Rows of (text, left, top, width[, height]) as a page that stands upright."""

    def make(*rows: tuple[Any, ...], direction: int = 0) -> Page:
        lines = sorted((line(*row) for row in rows), key=lambda each: (each.box.middle, each.box.left))
        return Page(tuple(lines), direction)

    return make


@pytest.fixture
def front_page(make_page: MakePage) -> Page:
    """A card front with a two-line address, all labels apart from their values."""
    return make_page(
        ("姓名", 60, 60, 70), ("测样丽", 170, 60, 110),
        ("性别", 60, 140, 70), ("女", 170, 140, 34), ("民族", 320, 140, 70), ("汉", 420, 140, 34),
        ("出生", 60, 220, 70), ("1990年3月7日", 170, 220, 330),
        ("住址", 60, 300, 70), ("样例省样例市样例区样例路", 170, 300, 400), ("1号样例小区2栋301室", 170, 348, 340),
        ("公民身份号码", 60, 530, 190), ("999999199003070020", 330, 530, 420),
    )  # fmt: skip


@pytest.fixture
def clock() -> MovableClock:
    return MovableClock()


@pytest.fixture
def account() -> Account:
    return ACCOUNT


@pytest.fixture
def fixed_reader() -> FixedReader:
    return FixedReader()


@pytest.fixture
def make_client(clock: MovableClock, fixed_reader: FixedReader) -> MakeClient:
    """A test client of a sandbox made to measure."""

    def make(*accounts: Account, **config: Any) -> FlaskClient:
        return create_app(SandboxConfig(accounts or (ACCOUNT,), **config), fixed_reader, clock=clock).test_client()

    return make


@pytest.fixture
def client(make_client: MakeClient) -> FlaskClient:
    return make_client()


@pytest.fixture
def fetch_token() -> FetchToken:
    def fetch(client: FlaskClient, account: Account = ACCOUNT) -> str:
        query = {"grant_type": "client_credentials", "client_id": account.api_key, "client_secret": account.secret_key}
        return str(client.get("/oauth/2.0/token", query_string=query).get_json()["access_token"])

    return fetch


@pytest.fixture
def image_text() -> ImageText:
    """Base64 of a plain picture."""

    def make(size: tuple[int, int] = (100, 60), mode: str = "RGB", file_format: str = "PNG") -> str:
        buffer = io.BytesIO()
        Image.new(mode, size).save(buffer, file_format)
        return base64.b64encode(buffer.getvalue()).decode()

    return make


@pytest.fixture
def call(fetch_token: FetchToken, image_text: ImageText) -> Call:
    """Call an endpoint with a fresh token; the body of the answer."""

    def post(
        client: FlaskClient, endpoint: str = "general_basic", token: str | None = None, **form: str
    ) -> dict[str, Any]:
        query = {"access_token": fetch_token(client) if token is None else token}
        form = form or {"image": image_text()}
        response = client.post(f"/rest/2.0/ocr/v1/{endpoint}", query_string=query, data=form)
        assert response.status_code == 200
        body: dict[str, Any] = response.get_json()
        return body

    return post


@pytest.fixture(scope="session")
def paddle_reader() -> PaddleReader:
    """The real reader, loaded once."""
    reader = PaddleReader(threads=2)
    reader.warm_up()
    return reader


@pytest.fixture
def run_sandbox(clock: MovableClock) -> Iterator[RunSandbox]:
    """Run a sandbox on a free port until the test ends."""
    servers = []

    def run(reader: Reader, *accounts: Account, **config: Any) -> RunningSandbox:
        running = RunningSandbox(create_app(SandboxConfig(accounts or (ACCOUNT,), **config), reader, clock=clock))
        server = make_server("127.0.0.1", 0, running, threaded=True)
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        servers.append((server, thread))
        running.url = f"http://127.0.0.1:{server.server_port}"
        return running

    yield run
    for server, thread in servers:
        server.shutdown()
        thread.join()
        server.server_close()
