"""Decisions of the domain: what follows a failure, when a day turns, what options mean, what checks find."""

from datetime import UTC, date, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.domain.checks import CHECKS, run_checks
from shared.domain.documents import DOCUMENT_TYPES, document_type
from shared.domain.errors import InvalidRequestError
from shared.domain.job import JOB_ERRORS, JobErrorCode, JobStatus, WaitingOn
from shared.domain.quota import end_of_day, paced_interval, quota_day
from shared.domain.result import FieldStatus, FieldValue
from shared.domain.retry import FailureKind, GiveUp, RetryPolicy, Wait, decide_after_failure
from shared.ids import is_id, new_id

NOW = datetime(2026, 11, 23, 4, 0, tzinfo=UTC)
POLICY = RetryPolicy(max_attempts=3)


def decide(kind: FailureKind, failed: int = 1, **options: int) -> Wait | GiveUp:
    return decide_after_failure(kind, failed, now=NOW, policy=POLICY, jitter=0.0, **options)


# What holds up the endpoint and not the job: what it waits on.
@pytest.mark.parametrize(
    ("kind", "waiting_on"),
    [
        (FailureKind.THROTTLED, WaitingOn.UPSTREAM_QPS),
        (FailureKind.OVERLOADED, WaitingOn.UPSTREAM_QPS),
        (FailureKind.QUOTA_USED_UP, WaitingOn.UPSTREAM_DAILY_QUOTA),
        (FailureKind.TOTAL_USED_UP, WaitingOn.UPSTREAM_TOTAL_QUOTA),
        (FailureKind.MISCONFIGURED, WaitingOn.PROVIDER_OUTAGE),
    ],
)
def test_a_job_waits_in_line_for_what_concerns_its_endpoint(kind: FailureKind, waiting_on: WaitingOn) -> None:
    assert decide(kind) == Wait(None, waiting_on, costs_attempt=False)


def test_a_stumble_costs_an_attempt_and_a_pause() -> None:
    assert decide(FailureKind.RETRY_SOON) == Wait(NOW + timedelta(seconds=2), WaitingOn.RETRY_BACKOFF, True)


def test_bad_input_is_not_tried_again() -> None:
    assert decide(FailureKind.BAD_INPUT) == GiveUp()


def test_waits_grow_and_end() -> None:
    assert decide(FailureKind.RETRY_SOON, 2) == Wait(NOW + timedelta(seconds=6), WaitingOn.RETRY_BACKOFF, True)
    assert decide(FailureKind.RETRY_SOON, 3) == GiveUp()


def test_a_failure_may_be_less_patient_than_the_policy() -> None:
    assert decide(FailureKind.RETRY_SOON, 2, max_attempts=2) == GiveUp()


def test_throttling_never_ends_a_job() -> None:
    assert isinstance(decide(FailureKind.THROTTLED, 1000), Wait)


@pytest.mark.parametrize(
    ("moment", "day"),
    [
        (datetime(2026, 11, 23, 15, 59, 59, tzinfo=UTC), date(2026, 11, 23)),
        (datetime(2026, 11, 23, 16, 0, 0, tzinfo=UTC), date(2026, 11, 24)),
    ],
)
def test_the_day_turns_at_midnight_in_beijing(moment: datetime, day: date) -> None:
    assert quota_day(moment) == day
    assert end_of_day(day) > moment
    assert quota_day(end_of_day(day)) == day + timedelta(days=1)


@given(
    qps=st.integers(1, 20),
    jitter=st.floats(0, 0.2),
    delays=st.lists(st.floats(0, 1), min_size=60, max_size=60),
    phase=st.floats(0, 1),
)
def test_no_window_of_a_second_sees_more_than_the_limit(
    qps: int, jitter: float, delays: list[float], phase: float
) -> None:
    interval = paced_interval(qps, jitter).total_seconds()
    arrivals = sorted(number * interval + delay * jitter for number, delay in enumerate(delays))

    for start in (*arrivals, *(phase + second for second in range(10))):
        assert sum(start <= arrival < start + 1 - 1e-9 for arrival in arrivals) <= qps


@pytest.mark.parametrize("qps", [1, 2, 3, 7, 10, 13, 97, 0.1, 0.7])
@pytest.mark.parametrize("jitter", [0, 0.05, 0.1])
def test_slots_of_a_whole_second_are_not_rounded_into_it(qps: float, jitter: float) -> None:
    assert paced_interval(qps, jitter) * qps >= timedelta(seconds=1 + jitter)


def test_options_have_defaults() -> None:
    assert document_type("id_card").validate_options({}) == {
        "side": "front",
        "detect_risk": False,
        "detect_quality": False,
    }


@pytest.mark.parametrize(
    ("options", "pointers"),
    [
        ({"side": "left"}, ["/options/side"]),
        ({"side": "back", "sid": "x"}, ["/options/sid"]),
        ({"detect_risk": "perhaps", "side": 1}, ["/options/side", "/options/detect_risk"]),
        ({"detect_risk": 1}, ["/options/detect_risk"]),
    ],
)
def test_all_wrong_options_are_named(options: dict[str, object], pointers: list[str]) -> None:
    with pytest.raises(InvalidRequestError) as caught:
        document_type("id_card").validate_options(options)

    assert sorted(error.pointer for error in caught.value.errors) == sorted(pointers)


def test_the_table_of_types_is_whole() -> None:
    for name, row in DOCUMENT_TYPES.items():
        assert row.name == name
        assert set(row.checks) <= set(CHECKS)
        for fields in row.fields.values():
            assert any(field.asked for field in fields)
            assert len({field.name for field in fields}) == len(fields)


def test_every_failure_has_a_sentence_that_says_what_to_do() -> None:
    assert set(JOB_ERRORS) == set(JobErrorCode)
    assert all(sentence.endswith(".") for sentence, _ in JOB_ERRORS.values())


def test_final_states_are_those_that_never_change() -> None:
    assert {status for status in JobStatus if not status.is_final} == {JobStatus.QUEUED, JobStatus.PROCESSING}


def field(value: str | None, status: FieldStatus = FieldStatus.READ) -> FieldValue:
    return FieldValue(value, value, "label", status)


def found(today: date = date(2026, 11, 23), **values: str | None) -> dict[str, str]:
    checks = run_checks(tuple(CHECKS), {name: field(value) for name, value in values.items()}, today=today)
    return {check.code: check.status.value for check in checks}


# Invented: area 999999 is allocated to nobody.
@pytest.mark.parametrize(
    ("number", "status"),
    [
        ("999999199003070020", "passed"),
        ("99999919851123017X", "passed"),
        ("999999199003070021", "failed"),  # wrong check digit
        ("99999919900307002", "failed"),  # one short
        ("999999199O03070020", "failed"),  # a letter among the digits
        (None, "skipped"),
    ],
)
def test_id_number_checksum(number: str | None, status: str) -> None:
    assert found(id_number=number)["id_number.checksum"] == status


def test_birth_date_and_sex_are_held_against_the_id_number() -> None:
    right = found(id_number="999999199003070020", birth_date="1990-03-07", sex="女")
    wrong = found(id_number="999999199003070020", birth_date="1990-03-08", sex="男")

    assert (right["id_number.birth_date"], right["id_number.sex"]) == ("passed", "passed")
    assert (wrong["id_number.birth_date"], wrong["id_number.sex"]) == ("failed", "failed")


@pytest.mark.parametrize(("number", "status"), [("9999991203456780167", "passed"), ("9999991203456780168", "failed")])
def test_card_number_luhn(number: str, status: str) -> None:
    assert found(card_number=number)["card_number.luhn"] == status


@pytest.mark.parametrize(("code", "status"), [("91999999MA7K2P4W3J", "passed"), ("91999999MA7K2P4W3K", "failed")])
def test_credit_code_checksum(code: str, status: str) -> None:
    assert found(credit_code=code)["credit_code.checksum"] == status


@pytest.mark.parametrize(
    ("value", "status"),
    [
        ("2026-11-23", "passed"),  # valid on its last day
        ("2026-11-22", "failed"),
        ("2026-11", "passed"),  # a month lasts to its end
        ("2026-10", "failed"),
        (None, "skipped"),
    ],
)
def test_expiry(value: str | None, status: str) -> None:
    assert found(expiry_date=value)["expiry"] == status


def test_long_term_does_not_expire() -> None:
    fields = {"expiry_date": field(None, FieldStatus.LONG_TERM)}

    assert run_checks(("expiry",), fields, today=date(2026, 11, 23))[0].status == "passed"


def test_a_check_without_its_fields_is_left_out() -> None:
    assert found(name="测样丽") == {}


def test_ids_sort_by_time_and_can_be_told() -> None:
    ids = [new_id("job") for _ in range(1000)]

    assert ids == sorted(ids)
    assert all(is_id(made, "job") for made in ids)


@pytest.mark.parametrize(
    "text", ["", "job_", "bat_01m83trk3eewmvpsc9bnp4qw3m", "job_01m83trk3eewmvpsc9bnp4qw3!", "job"]
)
def test_what_is_no_id(text: str) -> None:
    assert not is_id(text, "job")
