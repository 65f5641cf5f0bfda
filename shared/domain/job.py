"""A job and the states it moves through.

```mermaid
stateDiagram-v2
    [*] --> queued
    queued --> processing: claim
    processing --> queued: retry, park, lease expired
    processing --> succeeded
    processing --> failed
    queued --> canceled
    queued --> expired
    queued --> failed: image lost
```
"""

from enum import StrEnum


class JobStatus(StrEnum):
    """Where a job stands."""

    QUEUED = "queued"
    """Nobody works on it; `waiting_on` says what it waits for."""
    PROCESSING = "processing"
    """One worker holds a claim on it until `lease_until`."""
    SUCCEEDED = "succeeded"
    """It has a result."""
    FAILED = "failed"
    """It has an error and no result."""
    CANCELED = "canceled"
    """Its client called it off before it started."""
    EXPIRED = "expired"
    """It had not started when its `expires_at` came."""

    @property
    def is_final(self) -> bool:
        """Whether the job never changes again."""
        return self not in (JobStatus.QUEUED, JobStatus.PROCESSING)


FINAL_STATUSES = tuple(status for status in JobStatus if status.is_final)


class WaitingOn(StrEnum):
    """What a queued job waits for."""

    WORKER = "worker"
    """A free worker."""
    UPSTREAM_QPS = "upstream_qps"
    """A turn within the account's calls a second."""
    UPSTREAM_DAILY_QUOTA = "upstream_daily_quota"
    """The turn of the provider's day."""
    UPSTREAM_TOTAL_QUOTA = "upstream_total_quota"
    """A quota the operator has to buy."""
    RETRY_BACKOFF = "retry_backoff"
    """The pause after a failed attempt."""
    DUPLICATE = "duplicate"
    """An equal image of the same client, which is being read: its answer will do for both."""
    PROVIDER_OUTAGE = "provider_outage"
    """The provider, or the operator who has to repair the account."""


class Lane(StrEnum):
    """Who waits."""

    INTERACTIVE = "interactive"
    """Somebody is looking at the screen."""
    BULK = "bulk"
    """Nobody is: it fills every turn that is left."""


class JobErrorCode(StrEnum):
    """Why a job failed, for a program to act on."""

    NOT_AN_ID_CARD = "not_an_id_card"
    NOT_A_BANK_CARD = "not_a_bank_card"
    NOT_A_BUSINESS_LICENSE = "not_a_business_license"
    OTHER_CARD_TYPE = "other_card_type"
    WRONG_SIDE = "wrong_side"
    BLURRED = "blurred"
    OVER_EXPOSED = "over_exposed"
    TOO_DARK = "too_dark"
    INCOMPLETE = "incomplete"
    NOTHING_FOUND = "nothing_found"
    UNREADABLE = "unreadable"
    IMAGE_REJECTED = "image_rejected"
    IMAGE_LOST = "image_lost"
    REQUEST_REJECTED = "request_rejected"
    PROVIDER_FAILED = "provider_failed"
    PROVIDER_MISCONFIGURED = "provider_misconfigured"
    POISONED = "poisoned"
    FAILED_BY_OPERATOR = "failed_by_operator"
    EXPIRED = "expired"
    CANCELED = "canceled"
    # Items of a batch that were never images, by the names that a single job would be refused with
    INVALID_ITEM = "invalid_item"
    IMAGE_EMPTY = "image_empty"
    IMAGE_ENCODING = "image_base64_invalid"
    IMAGE_FORMAT = "image_format_unsupported"
    IMAGE_DAMAGED = "image_damaged"
    IMAGE_ANIMATED = "image_animated"
    IMAGE_TOO_LARGE = "image_too_large"
    IMAGE_PIXELS = "image_pixels_out_of_range"
    IMAGE_URL_REFUSED = "image_url_refused"
    IMAGE_URL_FAILED = "image_url_failed"


# What a person reads, and whether the same image may succeed when it is sent again.
JOB_ERRORS: dict[JobErrorCode, tuple[str, bool]] = {
    JobErrorCode.NOT_AN_ID_CARD: ("The picture shows no ID card. Photograph the card alone, filling the frame.", False),
    JobErrorCode.NOT_A_BANK_CARD: ("The picture shows no bank card front. Photograph the side with the number.", False),
    JobErrorCode.NOT_A_BUSINESS_LICENSE: ("The picture shows no business licence. Photograph the whole page.", False),
    JobErrorCode.OTHER_CARD_TYPE: (
        "The picture shows another kind of document. Declare its type and send it again.",
        False,
    ),
    JobErrorCode.WRONG_SIDE: (
        "The picture shows the other side of the card. Turn it over, or change options.side.",
        False,
    ),
    JobErrorCode.BLURRED: ("The picture is blurred. Hold the camera still and photograph it again.", False),
    JobErrorCode.OVER_EXPOSED: (
        "Glare hides the text. Tilt the card away from the light and photograph it again.",
        False,
    ),
    JobErrorCode.TOO_DARK: ("The picture is too dark. Photograph it again in better light.", False),
    JobErrorCode.INCOMPLETE: ("Part of the card is cut off. Photograph the whole card.", False),
    JobErrorCode.NOTHING_FOUND: ("No field could be read. Photograph the document alone, sharp and straight.", False),
    JobErrorCode.UNREADABLE: ("The document was found but could not be read. Photograph it again, closer.", False),
    JobErrorCode.IMAGE_REJECTED: ("The provider does not accept this image. Send it as JPEG or PNG.", False),
    JobErrorCode.IMAGE_LOST: ("The stored image is missing or altered. Send it again; tell the operator.", True),
    JobErrorCode.REQUEST_REJECTED: (
        "The provider does not accept this request. Tell the operator the request id.",
        False,
    ),
    JobErrorCode.PROVIDER_FAILED: ("The provider failed at every attempt. Send the image again later.", True),
    JobErrorCode.PROVIDER_MISCONFIGURED: (
        "No account at the provider can do this. The operator has to repair it.",
        True,
    ),
    JobErrorCode.POISONED: ("Reading this image made a worker stop, again and again. It is not tried any more.", False),
    JobErrorCode.FAILED_BY_OPERATOR: ("The operator ended the job. Send the image again, or ask why.", True),
    JobErrorCode.EXPIRED: ("The job had not started when its expires_in was over.", True),
    JobErrorCode.CANCELED: ("The job was canceled by its client.", True),
    JobErrorCode.INVALID_ITEM: ("What was said about the item is wrong. Mend it and send it again.", False),
    JobErrorCode.IMAGE_EMPTY: ("The image has no bytes.", False),
    JobErrorCode.IMAGE_ENCODING: ("image_base64 is not base64.", False),
    JobErrorCode.IMAGE_FORMAT: ("The bytes are no image of a format we read.", False),
    JobErrorCode.IMAGE_DAMAGED: ("The image is cut off or broken. Send the whole file.", False),
    JobErrorCode.IMAGE_ANIMATED: ("The image has more than one frame or page.", False),
    JobErrorCode.IMAGE_TOO_LARGE: ("The image has too many bytes. Send it smaller or as JPEG.", False),
    JobErrorCode.IMAGE_PIXELS: ("The image has too many or too few pixels.", False),
    JobErrorCode.IMAGE_URL_REFUSED: ("The address may not be called. Give a public https address.", False),
    JobErrorCode.IMAGE_URL_FAILED: ("The address gave no image.", True),
}
