"""The OpenAPI 3.1 document, made from the rows that route and the models that validate."""

import json
from collections.abc import Iterable
from functools import cache
from importlib.metadata import version
from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from api.operations import Answer, Body, Operation, Parameter
from api.problems import CONTENT_TYPE, status_of
from api.schemas import Problem
from api.webhook_schemas import EventBody
from shared.domain.errors import DatabaseUnavailableError, InvalidRequestError, KazhengError, UnauthenticatedError

_REF = "#/components/schemas/{model}"
_KEY = "apiKey"
_DESCRIPTION = """\
Reads photos of identity documents. Hand over an image with `POST /v1/jobs`; the answer 202 means it is kept. Then ask
`GET /v1/jobs/{id}?wait=30` until the job is final. Errors are problem documents (RFC 9457): act on `code`."""


def make_document(operations: Iterable[Operation]) -> dict[str, Any]:
    """The document of these operations."""
    rows = list(operations)
    schemas = _schemas(rows)
    paths: dict[str, dict[str, Any]] = {}
    for row in rows:
        paths.setdefault(row.path, {})[row.method.lower()] = _operation(row)
    return {
        "openapi": "3.1.0",
        "info": {"title": "Kazheng", "version": version("kazheng"), "description": _DESCRIPTION},
        "servers": [{"url": "/"}],
        "security": [{_KEY: []}],
        "paths": paths,
        "webhooks": _webhooks(),
        "components": {
            "schemas": schemas,
            "securitySchemes": {_KEY: {"type": "http", "scheme": "bearer", "description": "`kz_…`"}},
        },
    }


def document_json(operations: Iterable[Operation]) -> bytes:
    """The document as it is served."""
    return json.dumps(make_document(operations), ensure_ascii=False).encode()


def _schemas(rows: list[Operation]) -> dict[str, Any]:
    models: dict[type[BaseModel], None] = {Problem: None, EventBody: None}
    for row in rows:
        parts: list[Body | Answer] = [*row.bodies, *row.answers.values()]
        models |= {part.model: None for part in parts if part.model is not None}
    _, definitions = models_json_schema([(model, "validation") for model in models], ref_template=_REF)
    schemas: dict[str, Any] = definitions["$defs"]
    return schemas


def _webhooks() -> dict[str, Any]:
    """What is sent to webhook endpoints: one body, told apart by its `type`."""
    headers = [
        Parameter("webhook-id", "The event's id: the same for all its attempts.", {"type": "string"}),
        Parameter("webhook-timestamp", "When it was sent, seconds since 1970.", {"type": "string"}),
        Parameter("webhook-signature", "`v1,…`, several while a secret is rotated.", {"type": "string"}),
    ]
    return {
        "event": {
            "post": {
                "summary": "An event, signed by the Standard Webhooks specification",
                "parameters": [_header(item) | {"required": True} for item in headers],
                "requestBody": {"required": True, "content": {"application/json": _content(Body("", EventBody))}},
                "responses": {
                    "2XX": {"description": "Taken; all else is tried again"},
                    "410": {"description": "Never again: the endpoint is disabled"},
                },
                "security": [],
            }
        }
    }


def _operation(row: Operation) -> dict[str, Any]:
    said: dict[str, Any] = {
        "operationId": row.name,
        "summary": row.summary,
        "parameters": [*_path_parameters(row), *_query_parameters(row), *(_header(item) for item in row.headers)],
        "responses": _responses(row),
    }
    if row.description:
        said["description"] = row.description
    if row.bodies:
        said["requestBody"] = {"required": True, "content": {body.media_type: _content(body) for body in row.bodies}}
    if row.is_open:
        said["security"] = []
    return said


def _content(part: Body | Answer) -> dict[str, Any]:
    if part.model is None:
        return {}
    return {"schema": {"$ref": _REF.format(model=part.model.__name__)}}


def _path_parameters(row: Operation) -> list[dict[str, Any]]:
    return [
        {"name": name, "in": "path", "required": True, "schema": {"type": "string"}} for name in row.path_parameters
    ]


def _header(item: Parameter) -> dict[str, Any]:
    return {"name": item.name, "in": "header", "description": item.description, "schema": dict(item.schema)}


def _query_parameters(row: Operation) -> list[dict[str, Any]]:
    if row.query is None:
        return []
    schema = _inlined(row.query)
    # With several body forms, the query is for the one that is only bytes: the others need none of it.
    required = set() if row.bodies else set(schema.get("required", ()))
    parameters = []
    for name, said in schema.get("properties", {}).items():
        parameter: dict[str, Any] = {"name": name, "in": "query", "required": name in required}
        if "description" in said:
            parameter["description"] = said["description"]
        if said.get("type") == "object":
            parameter["content"] = {"application/json": {"schema": said}}
        else:
            parameter["schema"] = said
        if said.get("type") == "array":
            parameter |= {"style": "form", "explode": False}
        parameters.append(parameter)
    return parameters


def _inlined(model: type[BaseModel]) -> dict[str, Any]:
    """The schema of a query, its references replaced by what they name (enumerations)."""
    schema = model.model_json_schema()
    definitions = schema.pop("$defs", {})

    def replace(node: Any) -> Any:
        if isinstance(node, dict):
            if "$ref" in node:
                named = definitions[node["$ref"].rsplit("/", 1)[1]]
                return replace({**named, **{key: value for key, value in node.items() if key != "$ref"}})
            return {key: replace(value) for key, value in node.items()}
        return [replace(item) for item in node] if isinstance(node, list) else node

    inlined: dict[str, Any] = replace(schema)
    return inlined


@cache
def _implied_errors(*, is_open: bool, takes_input: bool) -> tuple[type[KazhengError], ...]:
    """Errors that follow from what an operation is, so that no row has to name them."""
    implied: list[type[KazhengError]] = []
    if not is_open:
        implied += [UnauthenticatedError, DatabaseUnavailableError]
    if takes_input:
        implied.append(InvalidRequestError)
    return tuple(implied)


def _responses(row: Operation) -> dict[str, Any]:
    responses: dict[str, Any] = {}
    for status, answer in row.answers.items():
        said: dict[str, Any] = {"description": answer.description}
        if answer.model is not None:
            said["content"] = {answer.media_type: _content(answer)}
        elif answer.media_type != "application/json":
            said["content"] = {answer.media_type: {}}
        if answer.headers:
            said["headers"] = {name: {"schema": {"type": "string"}} for name in answer.headers}
        responses[str(status)] = said
    codes: dict[str, list[str]] = {}
    for error in (*_implied_errors(is_open=row.is_open, takes_input=row.query is not None), *row.errors):
        codes.setdefault(str(int(status_of(error))), []).append(error.code)
    for status_text, listed in sorted(codes.items()):
        responses[status_text] = {
            "description": "Problem: " + ", ".join(f"`{code}`" for code in dict.fromkeys(listed)),
            "content": {CONTENT_TYPE: {"schema": {"$ref": _REF.format(model=Problem.__name__)}}},
        }
    return responses
