"""What follows an attempt to deliver: retries, pauses, signatures."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.domain.webhook import (
    BY_DEFAULT,
    OPT_IN,
    RETRY_DELAYS,
    EventType,
    Health,
    Outcome,
    Verdict,
    new_secret,
    next_attempt,
    sign,
)

NOW = datetime(2026, 11, 24, tzinfo=UTC)
FAILED, TAKEN = Outcome(500, 20, "HTTP 500"), Outcome(200, 20)


def later(**parts: float) -> timedelta:
    return timedelta(**parts)


@pytest.mark.parametrize(
    ("outcome", "verdict"),
    [
        (Outcome(200, 1), Verdict.DELIVERED),
        (Outcome(204, 1), Verdict.DELIVERED),
        (Outcome(302, 1, "x"), Verdict.FAILED),
        (Outcome(200, 1, "too late"), Verdict.FAILED),
        (Outcome(None, 1, "x"), Verdict.FAILED),
        (Outcome(410, 1, "x"), Verdict.GONE),
        (Outcome(429, 1, "x"), Verdict.FAILED),
        (Outcome(429, 1, "x", retry_after=later(seconds=3)), Verdict.THROTTLED),
        (Outcome(503, 1, "x", retry_after=later(seconds=3)), Verdict.FAILED),
    ],
)
def test_what_an_answer_means(outcome: Outcome, verdict: Verdict) -> None:
    assert outcome.verdict is verdict


@given(st.floats(-0.2, 0.2))
def test_the_schedule_has_ten_attempts(jitter: float) -> None:
    waits = [next_attempt(FAILED, failures, NOW, jitter=jitter) for failures in range(1, 11)]

    assert waits[-1] is None
    for wait, planned in zip(waits, RETRY_DELAYS, strict=False):
        assert wait is not None
        assert planned * 0.79 <= wait - NOW <= planned * 1.21


@given(st.floats(0, 1e9), st.integers(1, 9))
def test_no_attempt_comes_earlier_than_asked_for_nor_later_than_a_day_beyond_the_schedule(
    seconds: float, failures: int
) -> None:
    asked = later(seconds=seconds)
    again = next_attempt(Outcome(503, 1, "x", retry_after=asked), failures, NOW, jitter=0.2)

    assert again is not None
    assert again - NOW >= min(asked, later(hours=24))
    assert again - NOW <= max(later(hours=24), RETRY_DELAYS[failures - 1] * 1.2)


@pytest.mark.parametrize(("asked", "waits"), [(0, 1), (40, 40), (1e8, 3600)])
def test_throttling_is_followed_within_an_hour(asked: float, waits: float) -> None:
    outcome = Outcome(429, 1, "x", retry_after=later(seconds=asked))

    assert next_attempt(outcome, 9, NOW, jitter=0) == NOW + later(seconds=waits)
    health = Health(failures=3).after(outcome, NOW)
    assert (health.failures, health.openings, health.paused_until) == (3, 0, NOW + later(seconds=waits))


def test_pauses_double_up_to_ten_minutes_and_end_with_a_success() -> None:
    health, now, pauses = Health(), NOW, []
    for _ in range(11):
        health = health.after(FAILED, now)
        if health.paused_until is not None:
            pauses.append((health.paused_until - now).total_seconds())
            now = health.paused_until

    assert pauses == [30, 60, 120, 240, 480, 600, 600]
    assert health.failing_since == NOW
    assert health.after(TAKEN, now) == Health(mean_ms=health.after(TAKEN, now).mean_ms)


def test_attempts_under_way_when_a_pause_begins_do_not_lengthen_it() -> None:
    health = Health()
    for _ in range(12):
        health = health.after(FAILED, NOW)

    assert (health.failures, health.openings, health.paused_until) == (12, 1, NOW + later(seconds=30))


def test_an_address_that_is_gone_says_nothing_of_the_others() -> None:
    health = Health(failures=2, failing_since=NOW)

    assert health.after(Outcome(410, 20, "x"), NOW) == Health(2, NOW, mean_ms=4)


def test_every_event_is_told_by_default_has_to_be_asked_for_or_is_a_ping() -> None:
    assert {*BY_DEFAULT, *OPT_IN, EventType.WEBHOOK_PING} == set(EventType)


def test_secrets_have_32_random_bytes() -> None:
    assert len({new_secret() for _ in range(100)}) == 100
    assert all(secret.startswith("whsec_") and len(secret) == 6 + 44 for secret in (new_secret(),))


def test_a_secret_that_is_none_signs_nothing() -> None:
    with pytest.raises(ValueError, match="no signing secret"):
        sign(["whsec_***"], "evt_1", 1, b"")
