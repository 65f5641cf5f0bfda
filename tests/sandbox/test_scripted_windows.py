"""The four ways in which a vendor may count: none takes more than its limit, however calls come."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sandbox.scripted.script import ScriptedAccount
from sandbox.scripted.windows import Bucket, FixedWindow, InFlight, SlidingWindow, make_window

ARRIVALS = st.lists(st.floats(0, 10, allow_nan=False), max_size=200).map(sorted)
LIMITS = st.sampled_from([1.0, 2.0, 5.0, 10.0])


@given(arrivals=ARRIVALS, qps=LIMITS)
def test_no_sliding_second_sees_more_than_the_limit(arrivals: list[float], qps: float) -> None:
    window = SlidingWindow(qps)

    taken = [now for now in arrivals if window.admit(now)]

    for now in taken:
        assert sum(now - 1 < other <= now for other in taken) <= qps


@given(arrivals=ARRIVALS, qps=LIMITS, phase=st.floats(0, 0.99))
def test_no_fixed_second_sees_more_than_the_limit(arrivals: list[float], qps: float, phase: float) -> None:
    window = FixedWindow(qps, phase)

    taken = [now for now in arrivals if window.admit(now)]

    seconds = [int((now - phase) // 1) for now in taken]
    assert all(seconds.count(second) <= qps for second in seconds)


@given(arrivals=ARRIVALS, qps=LIMITS)
def test_a_bucket_gives_no_more_than_it_holds_and_gets(arrivals: list[float], qps: float) -> None:
    window = Bucket(qps, None)

    taken = [now for now in arrivals if window.admit(now)]

    for number, now in enumerate(taken):
        for later in range(number, len(taken)):
            assert later - number + 1 <= qps + (taken[later] - now) * qps + 1e-6


def test_a_fixed_window_lets_twice_the_limit_through_at_its_edge() -> None:
    window = FixedWindow(2, 0.0)

    assert [window.admit(now) for now in (0.98, 0.99, 1.0, 1.01, 1.02)] == [True, True, True, True, False]


def test_a_refused_call_leaves_no_trace() -> None:
    window = SlidingWindow(1)

    assert [window.admit(now) for now in (0.0, 0.5, 1.0)] == [True, False, True]


def test_calls_in_flight_are_counted_until_they_are_answered() -> None:
    window = InFlight(2)

    before = [window.admit(0.0) for _ in range(3)]
    window.leave()

    assert (before, window.admit(0.0)) == ([True, True, False], True)


@pytest.mark.parametrize("kind", ["sliding", "fixed"])
def test_below_one_a_second_there_is_one_in_so_many_seconds(kind: str) -> None:
    window = make_window(ScriptedAccount.model_validate({"qps": 0.5, "window": kind}))

    assert [window.admit(now) for now in (0.0, 1.9, 2.0)] == [True, False, True]
