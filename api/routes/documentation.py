"""`/openapi.json` and the page that shows it, `/docs`.

The page is Scalar, whose script comes out of the wheel `flask-openapi3-scalar`: no CDN, so it works without the
Internet, and the policy below lets it talk to this server only.
"""

from functools import cache
from importlib.resources import files

from flask import Response, current_app, request

from api.operations import Answer, Operation
from api.schemas import NoQuery
from api.validation import validate_query

DOCUMENT_KEY = "KAZHENG_OPENAPI"

_SCRIPT = "scalar/js/scalar.standalone.js"
# Scalar sets styles while it runs; its script is ours and there is no other.
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data: blob:; "
    "font-src 'self' data:; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_PAGE = """\
<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Kazheng API</title>
</head>
<body>
<script id="api-reference" data-url="/openapi.json"
 data-configuration='{"withDefaultFonts": false, "telemetry": false, "hideClientButton": true,
 "showDeveloperTools": "never", "agent": {"disabled": true}}'></script>
<script src="/docs/scalar.js"></script>
<noscript>The description of the API is at <a href="/openapi.json">/openapi.json</a>.</noscript>
</body>
</html>
"""


def read_document() -> Response:
    """The OpenAPI document."""
    validate_query(NoQuery, request.args)
    document: bytes = current_app.config[DOCUMENT_KEY]
    return Response(document, content_type="application/json")


def read_page() -> Response:
    """The page."""
    answer = Response(_PAGE, content_type="text/html; charset=utf-8")
    answer.headers["Content-Security-Policy"] = _POLICY
    answer.headers["Referrer-Policy"] = "no-referrer"
    return answer


def read_script() -> Response:
    """The page's script."""
    answer = Response(_script(), content_type="text/javascript; charset=utf-8")
    answer.headers["Cache-Control"] = "public, max-age=86400"
    return answer


@cache
def _script() -> bytes:
    return (files("flask_openapi3_scalar") / "templates" / _SCRIPT).read_bytes()


OPERATIONS = (
    Operation(
        method="GET",
        path="/openapi.json",
        name="read_document",
        summary="This document",
        view=read_document,
        query=NoQuery,
        answers={200: Answer("OpenAPI 3.1", media_type="application/openapi+json")},
        is_open=True,
    ),
    Operation(
        method="GET",
        path="/docs",
        name="read_page",
        summary="This document, to read",
        view=read_page,
        answers={200: Answer("A page", media_type="text/html")},
        is_open=True,
    ),
    Operation(
        method="GET",
        path="/docs/scalar.js",
        name="read_script",
        summary="The script of the page",
        view=read_script,
        answers={200: Answer("A script", media_type="text/javascript")},
        is_open=True,
    ),
)
