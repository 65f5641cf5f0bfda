"""The margin follows from what was measured, of all processes together."""

import time

import pytest
from redis import Redis

from shared.limits.spread import SpreadMeter, margin_of

INITIAL = 0.05


def told(*trips: float, late: float = 0.002, age: float = 0) -> str:
    return " ".join(map(str, (time.time() - age, late, *trips)))


def test_until_enough_is_measured_the_setting_holds() -> None:
    assert margin_of({"a": told(0.010, 0.011)}, INITIAL) == INITIAL


def test_the_margin_is_the_spread_of_the_network_and_the_lateness_here() -> None:
    trips = [0.020 + number / 10_000 for number in range(100)]  # 20.0 to 29.9 ms

    assert 0.0114 <= margin_of({"a": told(*trips, late=0.002)}, INITIAL) <= 0.012


def test_one_slow_answer_in_a_hundred_does_not_widen_it() -> None:
    trips = [0.020] * 99 + [1.0]

    assert margin_of({"a": told(*trips)}, INITIAL) == 0.002


def test_processes_with_different_ways_to_the_provider_spread_more_than_each_alone() -> None:
    near, far = told(*[0.010] * 40), told(*[0.030] * 40, late=0.004)

    assert margin_of({"near": near, "far": far}, INITIAL) == pytest.approx(0.024)


def test_what_a_process_told_long_ago_no_longer_counts() -> None:
    gone, here = told(*[0.500] * 40, age=3600), told(*[0.010] * 40)

    assert margin_of({"gone": gone, "here": here}, INITIAL) == 0.002


def test_a_process_that_does_not_know_its_lateness_yet_widens_no_other_s_margin(redis_client: Redis) -> None:
    busy = SpreadMeter(redis_client, process="busy", initial_seconds=INITIAL, probe_seconds=0)
    for _ in range(40):
        busy.observe_round_trip("acc", 0.010)
        busy.observe_lateness(0.003)
    fresh = SpreadMeter(redis_client, process="fresh", initial_seconds=INITIAL, probe_seconds=0)

    margins = [meter.margin("acc") for meter in (fresh, busy)]

    assert margins == [INITIAL, pytest.approx(0.003)]


def test_the_network_is_probed_by_one_process_at_a_time(redis_client: Redis) -> None:
    meters = [
        SpreadMeter(redis_client, process=str(number), initial_seconds=INITIAL, probe_seconds=60) for number in range(3)
    ]

    assert [meter.is_probe_due("acc") for meter in meters] == [True, False, False]
