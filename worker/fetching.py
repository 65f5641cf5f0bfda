"""Images that a manifest names by their address, fetched when it is their turn.

The address is a stranger's: only public ones are called (`shared.outbound`), so many bytes and seconds and no more.
"""

import hashlib

from sqlalchemy import Engine

from shared.clock import Clock
from shared.database.engine import transaction
from shared.database.jobs import keep_image
from shared.domain.errors import (
    ClaimLostError,
    ImageError,
    ImageUrlFailedError,
    ImageUrlRefusedError,
    ProviderError,
)
from shared.domain.job import JobErrorCode
from shared.domain.retry import FailureKind
from shared.image_headers import check_size, read_header
from shared.image_urls import fetch_image
from shared.outbound import OutboundPolicy
from shared.settings import Settings
from shared.storage import ImageStore, image_key
from worker.settlement import Claimed

# A host that stumbles may do better in some seconds; one that says no goes on saying so.
_TRIES = 3


class ImageFetcher:
    """Fetches images and keeps them. Safe to share between threads."""

    def __init__(self, *, engine: Engine, store: ImageStore, settings: Settings, clock: Clock) -> None:
        """Take its parts."""
        self._engine = engine
        self._store = store
        self._settings = settings
        self._policy = OutboundPolicy.of(settings)
        self._clock = clock

    def fetch(self, claimed: Claimed) -> None:
        """Fetch the image of a claimed job and keep it.

        Raises:
            ClaimLostError: the job is no longer ours.
            ProviderError: there is no image to be had (`bad_input`), or not now (`retry_soon`).
            StorageUnavailableError: it can't be kept now.
        """
        job, limits = claimed.job, claimed.document.limits
        try:
            content = fetch_image(
                job.image_url or "",
                self._policy,
                max_bytes=self._settings.max_image_bytes,
                deadline_seconds=self._settings.fetch_timeout_seconds,
            )
            check_size(len(content), self._settings.max_image_bytes)
            header = read_header(content, max_pixels=self._settings.max_image_pixels, short_side=limits.short_side)
        except ImageUrlFailedError as error:
            raise _failed(error, FailureKind.RETRY_SOON) from error
        except (ImageUrlRefusedError, ImageError) as error:
            raise _failed(error, FailureKind.BAD_INPUT) from error
        key = image_key(job.id, self._clock())
        self._store.put(key, content)
        with transaction(self._engine) as connection:
            is_ours = keep_image(
                connection,
                job.id,
                claimed.token,
                image_key=key,
                image_sha256=hashlib.sha256(content).hexdigest(),
                image_bytes=len(content),
                image_format=header.format,
                image_width=header.width,
                image_height=header.height,
            )
        if not is_ours:  # who has it now fetches again, or has erased it: the orphan sweep takes what is left
            raise ClaimLostError("Another worker may hold the job.")


def _failed(error: ImageError, kind: FailureKind) -> ProviderError:
    return ProviderError(
        kind,
        type(error).__name__,
        error_code=JobErrorCode(error.code),
        max_attempts=_TRIES,
        called=False,
        client_detail=str(error),
    )
