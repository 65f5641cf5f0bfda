"""What the tests of the sandbox are built with."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from flask import Flask
from flask.testing import FlaskClient

from sandbox.accounts import Account
from sandbox.page import Box, Line, Page, Quad
from sandbox.pictures import Pixels
from sandbox.reader import Reader

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment

SAMPLES = Path(__file__).parents[2] / "samples"
ACCOUNT = Account("test-key", "test-secret", app_id="10000042", qps=2)


@dataclass
class MovableClock:
    """A clock that stands still until it is moved."""

    now: datetime = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)

    def __call__(self) -> datetime:
        return self.now

    def advance(self, seconds: float) -> None:
        self.now += timedelta(seconds=seconds)


@dataclass
class FixedReader:
    """A reader that sees one page on every picture, and remembers the sizes of the pictures."""

    page: Page = field(default_factory=Page)
    sizes: list[tuple[int, int]] = field(default_factory=list)

    def read(self, pixels: Pixels) -> Page:
        self.sizes.append((pixels.shape[1], pixels.shape[0]))
        return self.page


@dataclass
class RunningSandbox:
    """A sandbox that listens; `app` may be replaced, as by a restart."""

    app: Flask
    url: str = ""

    def __call__(self, environ: "WSGIEnvironment", start_response: "StartResponse") -> Iterable[bytes]:
        return self.app(environ, start_response)


def line(text: str, left: float, top: float, width: float, height: float = 30, score: float = 0.99) -> Line:
    right, bottom = left + width, top + height
    quad: Quad = ((left, top), (right, top), (right, bottom), (left, bottom))
    return Line(text.replace(" ", ""), score, Box(left, top, right, bottom), quad, text if " " in text else "")


class MakePage(Protocol):
    """Rows of (text, left, top, width[, height]) as a page that stands upright."""

    def __call__(self, *rows: tuple[Any, ...], direction: int = 0) -> Page: ...


class MakeClient(Protocol):
    """A test client of a sandbox made to measure."""

    def __call__(self, *accounts: Account, **config: Any) -> FlaskClient: ...


class FetchToken(Protocol):
    """A fresh token of an account."""

    def __call__(self, client: FlaskClient, account: Account = ACCOUNT) -> str: ...


class ImageText(Protocol):
    """Base64 of a plain picture."""

    def __call__(self, size: tuple[int, int] = (100, 60), mode: str = "RGB", file_format: str = "PNG") -> str: ...


class Call(Protocol):
    """Call an endpoint, with a fresh token unless one is given; the body of the answer."""

    def __call__(
        self, client: FlaskClient, endpoint: str = "general_basic", token: str | None = None, **form: str
    ) -> dict[str, Any]: ...


class RunSandbox(Protocol):
    """Run a sandbox on a free port until the test ends."""

    def __call__(self, reader: Reader, *accounts: Account, **config: Any) -> RunningSandbox: ...
