"""API key to client. Asked of the database at every request: a revoked key is refused at once."""

import re
from collections.abc import Collection

from flask import Flask, g, request

from api.services import services
from shared.database.clients import find_client
from shared.database.engine import transaction
from shared.domain.errors import UnauthenticatedError

_BEARER = re.compile(r"bearer +([\x21-\x7e]{1,200}) *", re.IGNORECASE)


def register_auth(app: Flask, open_endpoints: Collection[str]) -> None:
    """Want a key for every route but these. An address that is no route needs none to be told so."""
    open_names = frozenset(open_endpoints)

    def authenticate() -> None:
        if request.endpoint is not None and request.endpoint not in open_names:
            g.client_id = _authenticated_client()

    app.before_request(authenticate)


def current_client() -> str:
    """Id of the client that makes this request."""
    client_id: str = g.client_id
    return client_id


def _authenticated_client() -> str:
    given = _BEARER.fullmatch(request.headers.get("Authorization", ""))
    if given is None:
        raise UnauthenticatedError("Send your API key: `Authorization: Bearer kz_…`.")
    with transaction(services().engine) as connection:
        client_id = find_client(connection, given[1])
    if client_id is None:
        raise UnauthenticatedError("The API key is unknown or revoked. Ask the operator for another.")
    return client_id
