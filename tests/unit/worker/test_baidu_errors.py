"""Every code of the vendor's list, and what it asks of us."""

import pytest

from shared.domain.job import JobErrorCode
from shared.domain.retry import FailureKind
from worker.providers.baidu_errors import ERRORS, provider_error, row_for

# https://ai.baidu.com/ai-doc/OCR/dk3h7y5vr, read November 2026, sorted by what the page advises.
ASKED: dict[FailureKind, set[int]] = {
    # "try again", "internal error", "service unavailable"
    FailureKind.RETRY_SOON: {1, 2, 216401, 216603, 216630, 216634, 282000, 282005, 282103, 282112, 282134, 282810},
    # too many at once, ours or the cluster's: refused before anything was read
    FailureKind.THROTTLED: {18},
    FailureKind.OVERLOADED: {4},
    # the day's calls are gone
    FailureKind.QUOTA_USED_UP: {17},
    # all bought or free calls are gone, or the module is closed for lack of them
    FailureKind.TOTAL_USED_UP: {19, 216015},
    # the token is missing, garbled, revoked, or too old
    FailureKind.REFRESH_TOKEN: {13, 100, 110, 111},
    # application, rights, path or template: no image would pass
    FailureKind.MISCONFIGURED: {3, 6, 14, 15, 216102, 216110, 282004},
    # this image, or these parameters
    FailureKind.BAD_INPUT: {
        *(216100, 216101, 216103),  # parameters
        *(216200, 216201, 216202, 216205),  # empty, format, size
        *(216306, 216307, 216308),  # pages of documents
        *(216631, 216633, 272000, 272001, 282102),  # it shows something else
        *(282003, 282006, 282100, 283300),
        *(282110, 282111, 282113, 282114),  # addresses, which we never send
        *(282808, 282809),  # ids of asynchronous calls, which we never make
    },
}


@pytest.mark.parametrize(("kind", "codes"), ASKED.items())
def test_each_code_asks_for_what_the_vendor_advises(kind: FailureKind, codes: set[int]) -> None:
    assert {code for code, row in ERRORS.items() if row.kind is kind} == codes


@pytest.mark.parametrize(
    ("code", "attempts"),
    [
        (1, None),  # as patient as the policy
        (282000, 3),  # "at most two more"
        (216630, 3),
        (282810, 2),  # "once more"
        (282103, 2),
        (77, 2),  # unknown
        (-1, 2),
    ],
)
def test_little_hope_means_few_attempts(code: int, attempts: int | None) -> None:
    assert row_for(code).max_attempts == attempts


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        (216099, FailureKind.RETRY_SOON),  # just below the range of request errors
        (216104, FailureKind.BAD_INPUT),  # in it, and on no list
        (216699, FailureKind.BAD_INPUT),
        (216700, FailureKind.RETRY_SOON),
        (0, FailureKind.RETRY_SOON),
    ],
)
def test_an_unknown_code_is_judged_by_its_range(code: int, kind: FailureKind) -> None:
    assert row_for(code).kind is kind


@pytest.mark.parametrize(
    "not_this",
    [JobErrorCode.NOT_AN_ID_CARD, JobErrorCode.NOT_A_BANK_CARD, JobErrorCode.NOT_A_BUSINESS_LICENSE],
)
def test_a_target_not_found_is_named_by_the_document_asked_for(not_this: JobErrorCode) -> None:
    error = provider_error(282102, log_id="179", not_this=not_this)

    assert (error.error_code, error.upstream_code, error.upstream_log_id) == (not_this, "282102", "179")
    assert not error.billed  # only successes are
