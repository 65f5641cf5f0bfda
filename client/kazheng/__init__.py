"""Kazheng: hand over a photo of a document, get its fields back."""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from kazheng.aio import AsyncClient
    from kazheng.batches import Batch, Item, NamedImage
    from kazheng.client import Client
    from kazheng.errors import (
        ApiError,
        ApiUnreachableError,
        AuthenticationError,
        JobFailedError,
        KazhengError,
        ResultNotReadyError,
        WaitTimeoutError,
        WebhookVerificationError,
    )
    from kazheng.models import Check, Field, Job, JobError, Result
    from kazheng.webhooks import Endpoint, Event

_HOMES = {
    "AsyncClient": "aio",
    "Client": "client",
    **dict.fromkeys(("Batch", "Item", "NamedImage"), "batches"),
    **dict.fromkeys(("Endpoint", "Event"), "webhooks"),
    **dict.fromkeys(("Check", "Field", "Job", "JobError", "Result"), "models"),
    **dict.fromkeys(
        (
            "ApiError",
            "ApiUnreachableError",
            "AuthenticationError",
            "JobFailedError",
            "KazhengError",
            "ResultNotReadyError",
            "WaitTimeoutError",
            "WebhookVerificationError",
        ),
        "errors",
    ),
}

__all__ = [
    "ApiError",
    "ApiUnreachableError",
    "AsyncClient",
    "AuthenticationError",
    "Batch",
    "Check",
    "Client",
    "Endpoint",
    "Event",
    "Field",
    "Item",
    "Job",
    "JobError",
    "JobFailedError",
    "KazhengError",
    "NamedImage",
    "Result",
    "ResultNotReadyError",
    "WaitTimeoutError",
    "WebhookVerificationError",
]


def __getattr__(name: str) -> Any:
    # Loaded when asked for: the command lives in this package too, and most of it needs no HTTP client (a quarter of
    # a second, each time somebody types `kazheng --help`).
    if name in _HOMES:
        return getattr(importlib.import_module(f"kazheng.{_HOMES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
