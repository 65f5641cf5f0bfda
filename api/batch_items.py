"""Items as they come in, before anything is made of them."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from shared.domain.job import JobErrorCode

LONGEST_NAME = 255


@dataclass(frozen=True)
class Refusal:
    """Why an item is no image; `detail` is for the client."""

    code: JobErrorCode
    detail: str


@dataclass(frozen=True)
class RawItem:
    """One item: its bytes, or its address, or why it has neither. `said` are fields of `ItemFields`, checked."""

    content: bytes | None = None
    image_url: str | None = None
    refusal: Refusal | None = None
    name: str | None = None
    said: Mapping[str, Any] = field(default_factory=dict)


def short_name(name: str) -> str | None:
    """What a file is called, for people to find it again: never a path that leads out of its folder."""
    parts = [part for part in name.replace("\\", "/").split("/") if part not in ("", ".", "..")]
    text = "/".join(parts).replace("\0", "")
    return text[-LONGEST_NAME:] or None
