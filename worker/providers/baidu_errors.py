"""Baidu's error codes, and what each asks of us.

https://ai.baidu.com/ai-doc/OCR/dk3h7y5vr (page of 2025-11-06), read November 2026. Rows marked * are inferred: not in
the vendor's list, or without a documented remedy.
"""

from dataclasses import dataclass

from shared.domain.errors import ProviderError
from shared.domain.job import JobErrorCode as Code
from shared.domain.retry import FailureKind as Kind


@dataclass(frozen=True)
class Row:
    """What a code means for the job. `max_attempts` limits the tries, where the vendor gives little hope."""

    kind: Kind
    error: Code = Code.PROVIDER_FAILED
    max_attempts: int | None = None


_SOON = Row(Kind.RETRY_SOON)
_TWICE = Row(Kind.RETRY_SOON, max_attempts=2)
_THREE_TIMES = Row(Kind.RETRY_SOON, max_attempts=3)
_CONFIG = Row(Kind.MISCONFIGURED, Code.PROVIDER_MISCONFIGURED)
_TOKEN = Row(Kind.REFRESH_TOKEN, Code.PROVIDER_MISCONFIGURED)
_REQUEST = Row(Kind.BAD_INPUT, Code.REQUEST_REJECTED)
_IMAGE = Row(Kind.BAD_INPUT, Code.IMAGE_REJECTED)

ERRORS: dict[int, Row] = {
    1: _SOON,  # unknown error
    2: _SOON,  # service temporarily unavailable
    3: _CONFIG,  # no such API
    4: Row(Kind.OVERLOADED),  # the cluster's limit, not ours
    6: _CONFIG,  # API not ticked in the application
    13: _TOKEN,
    14: _CONFIG,  # IAM certification failed
    15: _CONFIG,
    17: Row(Kind.QUOTA_USED_UP),  # day
    18: Row(Kind.THROTTLED),  # QPS
    19: Row(Kind.TOTAL_USED_UP),  # in all
    100: _TOKEN,  # access_token missing or garbled
    110: _TOKEN,  # access_token unknown or revoked
    111: _TOKEN,  # access_token expired
    216015: Row(Kind.TOTAL_USED_UP),  # * module closed
    216100: _REQUEST,  # invalid param
    216101: _REQUEST,  # not enough param
    216102: _CONFIG,  # service not supported
    216103: _REQUEST,  # param too long
    216110: _CONFIG,  # appid does not exist
    216200: _IMAGE,  # empty image
    216201: _IMAGE,  # format
    216202: _IMAGE,  # size
    216205: _IMAGE,  # * body too large
    216306: _REQUEST,  # *
    216307: _REQUEST,  # *
    216308: _REQUEST,  # *
    216401: _THREE_TIMES,  # *
    216603: _THREE_TIMES,  # *
    216630: _THREE_TIMES,  # recognize error
    216631: Row(Kind.BAD_INPUT, Code.NOT_A_BANK_CARD),
    216633: Row(Kind.BAD_INPUT, Code.NOT_AN_ID_CARD),
    216634: _THREE_TIMES,  # detect error
    272000: Row(Kind.BAD_INPUT, Code.UNREADABLE),  # * template does not fit
    272001: Row(Kind.BAD_INPUT, Code.UNREADABLE),  # * no template fits
    282000: Row(Kind.RETRY_SOON, max_attempts=3),  # internal error
    282003: _REQUEST,  # missing parameters
    282004: _CONFIG,
    282005: _SOON,  # some of a batch failed
    282006: _REQUEST,  # batch too large
    282100: _IMAGE,  # image can't be transcoded
    282102: Row(Kind.BAD_INPUT, Code.NOTHING_FOUND),  # target not detected
    282103: Row(Kind.RETRY_SOON, Code.UNREADABLE, max_attempts=2),  # target not recognized
    282110: _REQUEST,  # the url codes: we send bytes
    282111: _REQUEST,
    282112: _THREE_TIMES,
    282113: _REQUEST,
    282114: _REQUEST,
    282134: _TWICE,  # *
    282808: _REQUEST,
    282809: _REQUEST,
    282810: _TWICE,  # image recognize error
    283300: _IMAGE,  # image data format
}


def row_for(code: int) -> Row:
    """What an error code asks of us, unknown ones included."""
    if code in ERRORS:
        return ERRORS[code]
    if 216_100 <= code <= 216_699:
        return _REQUEST  # *
    return _TWICE  # *


def provider_error(code: int, *, log_id: str | None, not_this: Code) -> ProviderError:
    """The error of an answer that carries a code.

    Args:
        not_this: what the client is told when the declared document is not in the picture.
    """
    row = row_for(code)
    error = not_this if row.error is Code.NOTHING_FOUND else row.error
    return ProviderError(
        row.kind,
        f"the provider answered error {code}",
        upstream_code=str(code),
        upstream_log_id=log_id,
        error_code=error,
        max_attempts=row.max_attempts,
    )
