"""Addresses that clients want to be told at."""

from datetime import datetime
from urllib.parse import urlsplit

from sqlalchemy import Connection

from api.validation import pointer
from shared.database.endpoints import endpoint_of_host, ensure_secret
from shared.domain.errors import FieldError, InvalidRequestError
from shared.outbound import AddressRefusedError, OutboundPolicy, check_url
from shared.settings import Settings

_HINT = (
    " `kazheng listen` brings events to your own machine; private networks and http are for the operator to allow"
    " (KAZHENG_OUTBOUND_ALLOWED_NETWORKS, KAZHENG_OUTBOUND_ALLOW_HTTP)."
)


def check_webhook_url(url: str | None, settings: Settings, *, field: str = "webhook_url") -> None:
    """Look at an address, if there is one, without calling it.

    Raises:
        InvalidRequestError: it may not be called.
    """
    if url is None:
        return
    try:
        check_url(url, OutboundPolicy.of(settings))
    except AddressRefusedError as error:
        raise InvalidRequestError([FieldError(pointer(field), f"{error}{_HINT}")]) from None


def endpoint_of_url(
    connection: Connection, client_id: str, url: str | None, settings: Settings, now: datetime
) -> str | None:
    """Id of the endpoint that stands for all of a client's addresses at this one's host; made when it is the first."""
    if url is None:
        return None
    parts = urlsplit(url)
    ensure_secret(connection, client_id, settings.require_secret_key())
    return endpoint_of_host(connection, client_id, f"{parts.scheme}://{parts.netloc.lower()}", now)
