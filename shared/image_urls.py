"""Images behind addresses that clients gave us."""

import time

import requests
from urllib3.exceptions import HTTPError

from shared.domain.errors import ImageTooLargeError, ImageUrlFailedError, ImageUrlRefusedError
from shared.outbound import AddressRefusedError, GuardedSession, OutboundPolicy, check_url

_CHUNK = 65_536
_HEADERS = {"Accept": "image/*", "Accept-Encoding": "identity", "User-Agent": "kazheng"}


def check_image_url(url: str, policy: OutboundPolicy) -> None:
    """Look at an address without calling it.

    Raises:
        ImageUrlRefusedError: it may not be called.
    """
    try:
        check_url(url, policy)
    except AddressRefusedError as error:
        raise ImageUrlRefusedError(f"image_url {error}") from None


def fetch_image(url: str, policy: OutboundPolicy, *, max_bytes: int, deadline_seconds: float) -> bytes:
    """The bytes behind a URL that a client gave us.

    Raises:
        ImageUrlRefusedError: the address may not be called.
        ImageUrlFailedError: it did not give the bytes, all of them, in time.
    """
    check_image_url(url, policy)
    give_up_at = time.monotonic() + deadline_seconds
    try:
        with (
            GuardedSession(policy) as session,
            session.exchange("GET", url, deadline_seconds=deadline_seconds, headers=_HEADERS) as response,
        ):
            content = _read(response, max_bytes)
    except AddressRefusedError as error:
        raise ImageUrlRefusedError(f"image_url {error}") from None
    except (requests.RequestException, HTTPError, OSError) as error:
        if time.monotonic() >= give_up_at:
            raise ImageUrlFailedError("The host of image_url did not send the image in time.") from None
        detail = f"The host of image_url could not be reached ({type(error).__name__})."
        raise ImageUrlFailedError(detail) from None
    # A socket shut in the middle can look like the end of an answer without a length.
    if time.monotonic() >= give_up_at:
        raise ImageUrlFailedError("The host of image_url did not send the image in time.")
    return content


def _read(response: requests.Response, max_bytes: int) -> bytes:
    if response.status_code != requests.codes.ok:
        hint = " Redirects are not followed: give the final address." if response.is_redirect else ""
        raise ImageUrlFailedError(f"The host of image_url answered HTTP {response.status_code}.{hint}")
    content = bytearray()
    while chunk := response.raw.read(_CHUNK, decode_content=False):
        content += chunk
        if len(content) > max_bytes:
            raise ImageTooLargeError(f"The image behind image_url has more than {max_bytes} bytes. Scale it down.")
    length = response.headers.get("Content-Length", "")
    if length.isdigit() and int(length) != len(content):
        raise ImageUrlFailedError("The host of image_url cut the image off.")
    return bytes(content)
