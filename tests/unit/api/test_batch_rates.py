"""How fast a batch goes, from what was asked before."""

import pytest

from api.batch_outlook import _Rates


def test_a_rate_is_told_when_something_has_ended_since_somebody_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [1000.0]
    monkeypatch.setattr("api.batch_outlook.time.monotonic", lambda: now[0])
    rates, told = _Rates(), []

    for seconds, final in ((0, 0), (1, 50), (9, 500), (40, 500), (20, 1000), (1, 1001), (500, 2000)):
        now[0] += seconds
        told.append(rates.of("bat", final))

    assert told == [None, None, 50.0, 10.0, pytest.approx(1000 / 70), None, None]
    assert rates.of("another", 7) is None
