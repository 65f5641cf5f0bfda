"""Answer of `/v1/jobs/{job_id}/timeline`."""

from typing import Literal

from pydantic import Field

from api.schemas import Contract, Time
from shared.domain.job import WaitingOn
from shared.domain.webhook import EventType


class TimelineEvent(Contract):
    """One thing that happened. What does not belong to it is not mentioned."""

    event: Literal[
        "accepted",
        "published",
        "claimed",
        "put_back",
        "called",
        "answered",
        "message_lost",
        "worker_lost",
        "requeued",
        "retried",
        "cache_hit",
        "succeeded",
        "failed",
        "canceled",
        "expired",
        "erased",
        "delivered",
        "delivery_failed",
    ]
    at: Time
    worker: str | None = Field(None, description="Which process took the job, or was lost with it.")
    while_preparing: bool | None = Field(
        None, description="The process died with the image in hand: after three times the job is `poisoned`."
    )
    waiting_on: WaitingOn | None = None
    not_before: Time | None = None
    attempt: int | None = Field(None, description="Number of the upstream call, from 1.")
    account: str | None = None
    throttle_ms: int | None = Field(None, description="Waited for a permit.")
    upstream_ms: int | None = None
    outcome: str | None = Field(None, description="`succeeded`, or what the failure asked of us.")
    upstream_code: str | None = None
    upstream_log_id: str | None = None
    billed: bool | None = None
    repeated_after_crash: bool | None = Field(
        None, description="The call before it had no answer when its worker died: it may have been made, and billed."
    )
    error_code: str | None = None
    delivery_id: str | None = Field(None, description="Of a webhook; its endpoint's log tells more.")
    endpoint_id: str | None = None
    event_type: EventType | None = None
    status_code: int | None = Field(None, description="What the webhook's receiver answered.")
    source: str | None = Field(None, description="The earlier, equal job that had the answer.")


class TimelineView(Contract):
    """What happened to a job, oldest first."""

    job_id: str
    data: list[TimelineEvent]
