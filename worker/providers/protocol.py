"""What the rest of the worker knows of a provider."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

from shared.domain.documents import DocumentType
from shared.domain.result import Recognition


@dataclass(frozen=True)
class Credentials:
    """Where and as whom to call."""

    base_url: str
    api_key: str
    secret: str


@dataclass(frozen=True)
class PreparedImage:
    """Bytes the provider takes, upright, without EXIF. `width` and `height` in pixels."""

    content: bytes
    width: int
    height: int


class Provider(Protocol):
    """A vendor's protocol. Every failure is a `ProviderError` that names its kind and holds no secret."""

    def fetch_token(self, credentials: Credentials) -> tuple[str, float]:
        """An access token and its life in seconds."""
        ...

    def warm_up(self, base_url: str, *, measure: bool) -> float | None:
        """Open this thread's connection if it has gone cold, by a request that asks the provider for nothing.

        Args:
            measure: also time one over the open connection.

        Returns:
            The round trip in seconds, if it was measured. Failing is no error: the call will tell.
        """
        ...

    def encode(self, document: DocumentType, options: Mapping[str, object], image: PreparedImage) -> bytes:
        """The body of the call, ready to send: made before the permit is asked for."""
        ...

    def recognize(
        self,
        base_url: str,
        token: str,
        document: DocumentType,
        options: Mapping[str, object],
        body: bytes,
        image: PreparedImage,
        *,
        safe_until: Callable[[], float],
    ) -> Recognition:
        """Make the call and read the answer.

        Args:
            safe_until: tells, at any time, by which `time.monotonic` the call must be over: after it the job may be
                somebody else's.
        """
        ...
