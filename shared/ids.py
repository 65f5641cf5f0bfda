"""Identifiers: a prefix that says what it names, and a UUIDv7 (RFC 9562) that sorts by time.

The UUID is written in Crockford's base 32, lower case, 26 characters: ids sort as text in the order they were made.
"""

from datetime import datetime

from uuid_utils import uuid7

_ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"
_LENGTH = 26


def new_id(prefix: str) -> str:
    """A new identifier such as `job_01k…`."""
    return f"{prefix}_{_written(uuid7().int)}"


def is_id(text: str, prefix: str) -> bool:
    """Whether the text has the shape of an identifier of this kind."""
    head, _, tail = text.partition("_")
    return head == prefix and len(tail) == _LENGTH and all(char in _ALPHABET for char in tail)


def first_id(prefix: str, moment: datetime) -> str:
    """What sorts before every identifier made at or after a moment, and after those made earlier (in ms)."""
    milliseconds = max(0, int(moment.timestamp() * 1000))
    return f"{prefix}_{_written(milliseconds << 80)}"


def _written(number: int) -> str:
    return "".join(_ALPHABET[(number >> shift) & 31] for shift in range((_LENGTH - 1) * 5, -1, -5))
