"""Identifiers: a prefix that says what it names, and a UUIDv7 (RFC 9562) that sorts by time.

The UUID is written in Crockford's base 32, lower case, 26 characters: ids sort as text in the order they were made.
"""

from uuid_utils import uuid7

_ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"
_LENGTH = 26


def new_id(prefix: str) -> str:
    """A new identifier such as `job_01k…`."""
    number = uuid7().int
    digits = (_ALPHABET[(number >> shift) & 31] for shift in range((_LENGTH - 1) * 5, -1, -5))
    return f"{prefix}_{''.join(digits)}"


def is_id(text: str, prefix: str) -> bool:
    """Whether the text has the shape of an identifier of this kind."""
    head, _, tail = text.partition("_")
    return head == prefix and len(tail) == _LENGTH and all(char in _ALPHABET for char in tail)
