"""Bodies of `/v1/batches`: what is asked, and what is answered."""

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, WithJsonSchema

from api.schemas import (
    BatchId,
    ClientReference,
    Contract,
    DocumentTypeName,
    JobErrorView,
    JobView,
    Metadata,
    Time,
    WebhookUrl,
    split_commas,
    storable,
)
from shared.database.batches import BatchStatus
from shared.domain.job import JobStatus, Lane

MOST_INLINE_ITEMS = 1_000

_Options = Annotated[dict[str, Any], Field(description="Options of the document type.", examples=[{"side": "front"}])]


_COST = Field(
    description="CNY, by KAZHENG_PRICES from the month's first call on, were all calls made with accounts that are "
    "paid by the call; null when nobody knows."
)


class BatchFields(Contract):
    """What is said about a batch. `document_type` and `options` are those of the items that name none."""

    name: Annotated[str, AfterValidator(storable)] | None = Field(None, min_length=1, max_length=200)
    document_type: DocumentTypeName | None = None
    options: _Options = Field(default_factory=dict)
    lane: Lane = Field(Lane.BULK, description="`bulk`: nobody waits. `interactive`: somebody does.")
    cache: bool = Field(True, description="Whether answers of earlier, equal jobs of yours will do.")
    webhook_url: WebhookUrl | None = None
    close: bool = Field(True, description="False: the batch stays open for more items until it is closed.")
    dry_run: bool = Field(False, description="Only tell what would be done; nothing is kept.")


class ItemFields(Contract):
    """What is said about one item; what it does not name is the batch's."""

    name: Annotated[str, AfterValidator(storable)] | None = Field(
        None, min_length=1, max_length=255, description="What its file is called, for people to find it again."
    )
    document_type: DocumentTypeName | None = None
    options: _Options | None = None
    client_reference_id: ClientReference | None = None
    metadata: Metadata = Field(default_factory=dict)


class ItemRequest(ItemFields):
    """One item of a JSON body: exactly one of `image_base64` and `image_url`."""

    image_base64: str | None = Field(None, description="The image in base64.")
    image_url: str | None = Field(
        None, min_length=1, max_length=2048, description="An address that gives the image; a worker fetches it later."
    )


class BatchRequest(BatchFields):
    """A JSON body."""

    items: list[ItemRequest] = Field(default_factory=list, max_length=MOST_INLINE_ITEMS)


class ItemsRequest(Contract):
    """More items for an open batch."""

    items: list[ItemRequest] = Field(min_length=1, max_length=MOST_INLINE_ITEMS)


class BatchForm(BatchFields):
    """A `multipart/form-data` body: many files `images`."""

    images: Annotated[
        Any, WithJsonSchema({"type": "array", "items": {"type": "string", "contentMediaType": "image/*"}})
    ] = Field(description=f"The images, at most {MOST_INLINE_ITEMS}, each with a file name.")


class RetryRequest(Contract):
    """Which failed items to try again."""

    only_retryable: bool = Field(True, description="False: those too that failed for what they are.")


class BatchListQuery(Contract):
    """Query of the list of batches."""

    limit: int = Field(50, ge=1, le=200)
    after: BatchId | None = Field(None, description="`next` of the page before.")


class ItemListQuery(Contract):
    """Query of the items of a batch."""

    status: Annotated[
        list[JobStatus], BeforeValidator(split_commas), WithJsonSchema({"type": "array", "items": {"type": "string"}})
    ] = Field(default_factory=list, description="Any of these, separated by commas.")
    limit: int = Field(100, ge=1, le=1000)
    after: int = Field(0, ge=0, description="`next` of the page before: the number of its last item.")


class ExportQuery(Contract):
    """Query of an export."""

    format: Literal["jsonl", "csv", "xlsx"] = "jsonl"
    fields: Annotated[
        list[str], BeforeValidator(split_commas), WithJsonSchema({"type": "array", "items": {"type": "string"}})
    ] = Field(default_factory=list, description="Columns and their order, separated by commas; all if not given.")


class CountsView(Contract):
    """Items by status; they add up to `total`."""

    total: int
    queued: int
    processing: int
    succeeded: int
    failed: int
    canceled: int
    expired: int


class BatchBillingView(Contract):
    """What the batch cost so far. `cached`: items answered without a call."""

    calls: int
    billed: int
    cached: int
    cost_at_most: str | None = _COST


class BatchLinks(Contract):
    """Where to look next."""

    self: str
    items: str
    export: str


class BatchView(Contract):
    """Jobs submitted and followed together."""

    id: str
    object: Literal["batch"]
    name: str | None
    document_type: DocumentTypeName | None
    options: dict[str, str | bool]
    lane: Lane
    status: BatchStatus
    counts: CountsView
    parked: int = Field(
        description="Of those queued: their endpoint is not called now, for want of quota or an answer."
    )
    percent: float = Field(description="Items that are final, of all so far.")
    rate_per_second: float | None = Field(description="Items that became final, since the batch was made.")
    estimated_completion_at: Time | None = Field(
        description="By the quota left and the work that waits; null when nobody knows, or when it is completed."
    )
    billing: BatchBillingView
    webhook_url: str | None
    created_at: Time
    closed_at: Time | None
    canceled_at: Time | None
    completed_at: Time | None
    links: BatchLinks


class BatchList(Contract):
    """Batches, newest first; `next` is null on the last page."""

    data: list[BatchView]
    next: str | None


class ItemView(Contract):
    """One item: its number and name in the batch, and its job."""

    number: int
    name: str | None
    job: JobView


class ItemList(Contract):
    """Items in their order; `next` is null on the last page."""

    data: list[ItemView]
    next: int | None


class BadItemView(Contract):
    """An item that would fail, and why."""

    number: int
    name: str | None
    error: JobErrorView


class DryRunView(Contract):
    """What a batch would do. `bad` lists the first 100 of `bad_items`."""

    object: Literal["dry_run"]
    items: int
    by_document_type: dict[str, int]
    bad_items: int
    bad: list[BadItemView]
    cache_hits: int
    calls: int
    cost_at_most: str | None = _COST
    estimated_completion_at: Time | None


class RetriedView(Contract):
    """How many items are tried again."""

    retried: int
    batch: BatchView
