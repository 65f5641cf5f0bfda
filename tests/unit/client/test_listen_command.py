"""`kazheng listen`: events are pulled, signed, and sent to a program on this machine."""

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from kazheng.commands import listen as module
from kazheng.commands.main import main
from kazheng.webhooks import verify
from tests.receivers import answers, receiver
from tests.unit.client.api_double import ScriptedApi, answer, problem


def page(*numbers: int) -> Any:
    events = [
        {"id": f"evt_{number}", "type": "job.failed", "timestamp": "2026-11-24T00:00:00Z", "data": {"job_id": "job_1"}}
        for number in numbers
    ]
    return answer(200, {"data": events, "next": str(max(numbers, default=0))})


@pytest.fixture(autouse=True)
def key(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("KAZHENG_API_KEY", "kz_test")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(time, "sleep", lambda _seconds: None)


@contextmanager
def scripted(monkeypatch: pytest.MonkeyPatch, *replies: Any) -> Iterator[ScriptedApi]:
    api = ScriptedApi(list(replies))
    monkeypatch.setattr(module, "open_client", lambda _settings: api.client())
    yield api


def listen(url: str, *more: str) -> Result:
    return CliRunner().invoke(main, ["listen", "--forward-to", url, *more])


def test_what_comes_is_sent_on_signed_and_told(monkeypatch: pytest.MonkeyPatch) -> None:
    with receiver() as there, scripted(monkeypatch, page(), page(1, 2), page(), page(3)) as api:
        result = listen(there.url, "--stop-after", "3", "--events", "job.failed, job.expired", "--payload", "full")

    assert result.exit_code == 0, result.output
    assert there.event_ids == ["evt_1", "evt_2", "evt_3"]
    secret = result.output.split("signed with ")[1].split()[0]
    for seen in there.seen:
        assert verify(seen.headers, seen.body, secret).data == {"job_id": "job_1"}
    assert json.loads(there.seen[0].body)["timestamp"] == "2026-11-24T00:00:00Z"
    assert "job_1" in result.output
    assert "3 forwarded." in result.output
    assert api.paths[0] == "GET /v1/events?payload=thin&after=latest"
    assert api.paths[1] == "GET /v1/events?payload=full&after=0&types=job.failed%2Cjob.expired"
    assert "after=2" in api.paths[2]


def test_the_secret_is_the_same_each_time_or_the_given_one(monkeypatch: pytest.MonkeyPatch) -> None:
    with receiver() as there, scripted(monkeypatch, page(1)):
        said = [listen(there.url, "--stop-after", "1", "--after", "0").output.splitlines()[0] for _ in range(2)]
        given = listen(there.url, "--stop-after", "1", "--after", "0", "--secret", "whsec_c2VjcmV0").output

    assert said[0] == said[1]
    assert "whsec_c2VjcmV0" in given


def test_a_receiver_that_fails_gets_it_three_times(monkeypatch: pytest.MonkeyPatch) -> None:
    with receiver(answers(500)) as there, scripted(monkeypatch, page(1)):
        result = listen(there.url, "--stop-after", "1", "--after", "0")

    assert len(there.seen) == 3
    assert result.output.count("500 in") == 3


def test_an_api_that_is_away_for_a_while_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    away = [problem(503, "database_unavailable", retryable=True)] * 7
    with receiver() as there, scripted(monkeypatch, *away, page(1)):
        result = listen(there.url, "--stop-after", "1", "--after", "0")

    assert result.exit_code == 0, result.output
    assert there.event_ids == ["evt_1"]


def test_a_key_that_is_revoked_ends_it(monkeypatch: pytest.MonkeyPatch) -> None:
    with scripted(monkeypatch, problem(401, "unauthenticated")):
        result = listen("http://127.0.0.1:1/", "--after", "0")

    assert result.exit_code != 0
    assert "unauthenticated" in result.output


def test_a_receiver_that_does_not_run_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    with receiver() as there:
        pass
    with scripted(monkeypatch, page(1)):
        result = listen(there.url, "--stop-after", "1", "--after", "0")

    assert "Does your receiver run there?" in result.output


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("http://127.0.0.1:1/", "--events", "job.dreamt"), "There is no event job.dreamt"),
        (("http://127.0.0.1:1/", "--secret", "whsec_!"), "no signing secret"),
        (("127.0.0.1:1/hook",), "such as http://127.0.0.1:3000/hook"),
        (("http://",), "such as http://127.0.0.1:3000/hook"),
        (("http://\x01/",), "such as http://127.0.0.1:3000/hook"),
    ],
)
def test_what_is_said_wrong_is_told(monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...], said: str) -> None:
    with scripted(monkeypatch, page(1)):
        result = listen(*arguments, "--stop-after", "1")

    assert result.exit_code != 0
    assert said in result.output


def test_ctrl_c_ends_well(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(_seconds: float) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(time, "sleep", interrupt)
    with scripted(monkeypatch, page()):
        result = listen("http://127.0.0.1:1/")

    assert result.exit_code == 0
    assert result.output.endswith("Ended.\n")
