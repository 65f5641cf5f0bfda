"""The HTTP side: Baidu's token endpoint and OCR endpoints.

One process with many threads, because tokens and QPS windows live in its memory: a second process would give out
tokens the first does not know, and admit twice the calls.

The order in which a call is judged: path, token, permission, quota, body, parameters, picture, what is on it. The
first failure wins. A refused call is not counted.
"""

import itertools
import json
import urllib.parse
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Self

from flask import Flask, Request, Response, request
from werkzeug.exceptions import MethodNotAllowed, NotFound

from sandbox.accounts import Account, CredentialsError, TokenOffice
from sandbox.clock import Clock, utc_now
from sandbox.endpoints import ENDPOINTS, Body, Endpoint, FailureStyle
from sandbox.faults import Fault, FaultError
from sandbox.pictures import decode_picture
from sandbox.quotas import QuotaBook
from sandbox.reader import Reader
from shared.settings import Settings

MAX_BODY_BYTES = 10_000_000
# A body over the limit is still read to its end, or the client would see a cut connection instead of the answer; not
# one that never ends.
MAX_DRAINED_BYTES = 200_000_000
MAX_URL_BYTES = 1024


@dataclass(frozen=True)
class SandboxConfig:
    """What a sandbox serves."""

    accounts: tuple[Account, ...]
    token_lifetime: timedelta = timedelta(days=30)
    failures: FailureStyle = "status"

    @classmethod
    def from_settings(cls, settings: Settings) -> Self:
        """One account, made from the settings."""
        account = Account(
            settings.sandbox_api_key,
            settings.sandbox_secret_key.get_secret_value(),
            qps=settings.sandbox_qps,
            day_limit=settings.sandbox_day_limit,
        )
        lifetime = timedelta(seconds=settings.sandbox_token_seconds)
        return cls((account,), token_lifetime=lifetime, failures=settings.sandbox_failures)


@dataclass(frozen=True)
class _Form:
    """A url-encoded body: decoded values, and how long `image` was before decoding."""

    values: Mapping[str, str]
    encoded_image_bytes: int


def create_app(config: SandboxConfig, reader: Reader, *, clock: Clock = utc_now) -> Flask:
    """Build the server.

    Args:
        reader: reads text off pixels; production uses `PaddleReader`.
        clock: time of tokens, windows and days.
    """
    app = Flask("sandbox")
    tokens = TokenOffice(config.accounts, lifetime=config.token_lifetime, clock=clock)
    quotas = QuotaBook(clock)
    # 19 digits, as the vendor's: beyond what a float holds. They rise by more than one, as if others called too.
    log_ids = itertools.count(int(clock().timestamp() * 1e9), 1013)

    @app.route("/healthz")
    def healthz() -> Response:
        return _json({"status": "ok"})

    @app.route("/oauth/2.0/token", methods=["GET", "POST"])
    def token() -> Response:
        return _answer_token(tokens, request)

    @app.route("/rest/2.0/ocr/v1/<name>", methods=["POST"])
    def recognize(name: str) -> Response:
        form = _read_form(request)
        endpoint = ENDPOINTS.get(name)
        if endpoint is None:
            raise FaultError(Fault.UNKNOWN_PATH)
        account = tokens.account_of(_access_token(request))
        if account.endpoints is not None and name not in account.endpoints:
            raise FaultError(Fault.NO_PERMISSION)
        quotas.admit(account, name)
        if form is None:
            raise FaultError(Fault.BODY_TOO_LARGE)
        return _json({"log_id": next(log_ids)} | _recognize(endpoint, form, reader, config.failures))

    _answer_errors(app, log_ids)
    return app


def _answer_errors(app: Flask, log_ids: Iterator[int]) -> None:
    """Answer every error in the vendor's envelope, defects of the sandbox too."""

    def answer(fault: Fault) -> Response:
        return _json({"log_id": next(log_ids), "error_code": fault.code, "error_msg": fault.message})

    @app.errorhandler(FaultError)
    def on_fault(error: FaultError) -> Response:
        return answer(error.fault)

    @app.errorhandler(NotFound)
    @app.errorhandler(MethodNotAllowed)
    def on_unknown_path(_: Exception) -> Response:
        return answer(Fault.UNKNOWN_PATH)

    @app.errorhandler(Exception)
    def on_defect(error: Exception) -> Response:
        # The type alone: a message could quote what was read off a card.
        app.logger.error("recognition_failed: %s", type(error).__name__)
        return answer(Fault.INTERNAL)


def _recognize(endpoint: Endpoint, form: _Form, reader: Reader, failures: FailureStyle) -> Body:
    """The parameters, the picture, what is on it."""
    image, url = form.values.get("image"), form.values.get("url")
    if image is None and url is None:
        raise FaultError(Fault.MISSING_PARAMETER)
    if image == "":
        raise FaultError(Fault.EMPTY_IMAGE)
    options = endpoint.check_options(form.values)
    if image is None:
        raise FaultError(_url_fault(url or ""))
    picture = decode_picture(image, form.encoded_image_bytes, endpoint.limits)
    return endpoint.answer(reader.read(picture.pixels), picture, options, failures)


def _url_fault(url: str) -> Fault:
    """What a `url` is answered with. The sandbox fetches nothing: a good address is one it can't reach."""
    if not 0 < len(url.encode()) <= MAX_URL_BYTES:
        return Fault.BAD_URL_LENGTH
    parts = urllib.parse.urlsplit(url)
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        return Fault.BAD_URL
    return Fault.URL_UNREACHABLE


def _access_token(call: Request) -> str:
    """The token of a call; in the query, nowhere else.

    Raises:
        FaultError: there is none.
    """
    token = call.args.get("access_token")
    if token:
        return token
    # What the official SDK sends after it was refused a token: signed with keys that are wrong.
    if call.headers.get("Authorization", "").startswith("bce-auth-v1"):
        raise FaultError(Fault.SIGNATURE_REFUSED)
    raise FaultError(Fault.TOKEN_MISSING)


def _read_form(call: Request) -> _Form | None:
    """The body, parsed here because the limits are on the text before form decoding; None if it has 10 MB or more."""
    if (call.content_length or 0) >= MAX_BODY_BYTES:
        drained = 0
        while drained < MAX_DRAINED_BYTES and (chunk := call.stream.read(1 << 20)):
            drained += len(chunk)
        return None
    body = call.get_data(cache=False, parse_form_data=False)
    values: dict[str, str] = {}
    encoded_image_bytes = 0
    for pair in body.split(b"&") if call.mimetype == "application/x-www-form-urlencoded" else ():
        raw_name, _, raw_value = pair.partition(b"=")
        name = urllib.parse.unquote_plus(raw_name.decode("ascii", "replace"))
        if name and name not in values:
            values[name] = urllib.parse.unquote_plus(raw_value.decode("ascii", "replace"))
            if name == "image":
                encoded_image_bytes = len(raw_value)
    return _Form(values, encoded_image_bytes)


def _answer_token(tokens: TokenOffice, call: Request) -> Response:
    values = call.values
    grant_type = values.get("grant_type")
    if grant_type is None:
        return _token_error(400, "invalid_request", "Missing required parameter: grant_type")
    if grant_type != "client_credentials":
        return _token_error(400, "unsupported_grant_type", "The authorization grant type is not supported")
    try:
        body = tokens.issue(values.get("client_id", ""), values.get("client_secret", ""))
    except CredentialsError as error:
        return _token_error(401, "invalid_client", str(error))
    return _json(body)


def _token_error(status: int, error: str, description: str) -> Response:
    return _json({"error_description": description, "error": error}, status)


def _json(body: Mapping[str, object], status: int = 200) -> Response:
    response = Response(json.dumps(body, ensure_ascii=False), status, content_type="application/json")
    response.headers["Cache-Control"] = "no-store"
    return response
