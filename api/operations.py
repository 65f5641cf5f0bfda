"""Every operation of the API in one kind of row: what serves it, and what the OpenAPI document says of it.

Routing and document come from the same rows, so neither can forget what the other has. `flask-openapi3` was looked at
for this (4.3): it gives a route one body form, while `POST /v1/jobs` has three; it reads the whole form before a size
could be refused; and it turns each text of a form that looks like JSON into JSON, so a reference `0012` would arrive as
a number. What is left of it here is the page: Scalar, from the wheel `flask-openapi3-scalar`.
"""

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from flask import Flask, Response, request
from pydantic import BaseModel

from shared.domain.errors import KazhengError, NotFoundError

_ID = re.compile(r"[\x21-\x7e]{1,100}")

View = Callable[..., Response]


@dataclass(frozen=True)
class Parameter:
    """A header of a request."""

    name: str
    description: str
    schema: Mapping[str, Any]


@dataclass(frozen=True)
class Body:
    """One form of a request body; `model` None: bytes, with the parameters of `query` in the query."""

    media_type: str
    model: type[BaseModel] | None
    description: str = ""


@dataclass(frozen=True)
class Answer:
    """One answer; `model` None: no JSON."""

    description: str
    model: type[BaseModel] | None = None
    media_type: str = "application/json"
    headers: tuple[str, ...] = ()


@dataclass(frozen=True)
class Operation:
    """One method of one path. `name` is its operationId; `is_open`: it asks for no key."""

    method: str
    path: str
    name: str
    summary: str
    view: View
    answers: Mapping[int, Answer]
    errors: tuple[type[KazhengError], ...] = ()
    description: str = ""
    query: type[BaseModel] | None = None
    headers: tuple[Parameter, ...] = ()
    bodies: tuple[Body, ...] = field(default=())
    is_open: bool = False

    @property
    def path_parameters(self) -> list[str]:
        """Names of the parts of the path that vary."""
        return [part[1:-1] for part in self.path.split("/") if part.startswith("{")]


def register_operations(app: Flask, operations: Iterable[Operation]) -> None:
    """Route each operation to its view; nothing has an id that could be none."""
    app.before_request(_refuse_strange_ids)
    for operation in operations:
        rule = operation.path.replace("{", "<").replace("}", ">")
        app.add_url_rule(
            rule, operation.name, operation.view, methods=[operation.method], provide_automatic_options=False
        )


def _refuse_strange_ids() -> None:
    """Postgres takes no U+0000, and need not look for what no id can be."""
    if any(not _ID.fullmatch(str(value)) for value in (request.view_args or {}).values()):
        raise NotFoundError("There is nothing at this address.")
