"""The scripted sandbox as a process: what its script says happens, and its counts tell it."""

import base64
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from benchmarks.scripted import ScriptedSandbox, running_sandbox
from sandbox.documents.check_digits import has_luhn, is_id_number
from sandbox.scripted.answers import card_number, id_number, picture_digest

AT_ONCE = {"latency": {"median_seconds": 0, "p95_seconds": 0}}
PLENTY = {"accounts": [{"qps": 1000}]}
PICTURE = b"a picture that nobody looks at +/="


@pytest.fixture(scope="module")
def process() -> Iterator[ScriptedSandbox]:
    with running_sandbox() as sandbox:
        yield sandbox


@pytest.fixture
def sandbox(process: ScriptedSandbox) -> ScriptedSandbox:
    process.script(**AT_ONCE, **PLENTY)
    return process


def token(sandbox: ScriptedSandbox, secret: str = "sandbox-secret-key") -> httpx.Response:
    given = {"grant_type": "client_credentials", "client_id": "sandbox-api-key", "client_secret": secret}
    return httpx.post(f"{sandbox.url}/oauth/2.0/token", params=given)


def post(
    sandbox: ScriptedSandbox, endpoint: str = "bankcard", *, access_token: str | None = None, timeout: float = 5
) -> httpx.Response:
    access_token = access_token or token(sandbox).json()["access_token"]
    return httpx.post(
        f"{sandbox.url}/rest/2.0/ocr/v1/{endpoint}",
        params={"access_token": access_token},
        data={"id_card_side": "front", "image": base64.b64encode(PICTURE).decode()},
        timeout=timeout,
    )


def code(response: httpx.Response) -> int | None:
    error: int | None = response.json().get("error_code")
    return error


def counts(sandbox: ScriptedSandbox, endpoint: str = "bankcard") -> dict[str, Any]:
    usage: dict[str, Any] = sandbox.stats()["by_account"]["sandbox-api-key"][endpoint]
    return usage


def test_an_answer_is_made_from_its_picture(sandbox: ScriptedSandbox) -> None:
    digest = picture_digest(b"image=" + base64.b64encode(PICTURE).replace(b"+", b"%2B"))
    assert digest

    card = post(sandbox).json()["result"]["bank_card_number"]
    person = post(sandbox, "idcard").json()["words_result"]

    assert card.replace(" ", "") == card_number(digest)
    assert person["公民身份号码"]["words"] == id_number(digest)
    assert digest[:12] in person["住址"]["words"]


@pytest.mark.parametrize("digest", ["0" * 64, "f" * 64, "0123456789abcdef" * 4])
def test_made_up_numbers_have_their_check_digits(digest: str) -> None:
    assert has_luhn(card_number(digest))
    assert is_id_number(id_number(digest))


def test_wrong_keys_get_no_token(sandbox: ScriptedSandbox) -> None:
    answer = token(sandbox, secret="wrong")

    assert (answer.status_code, answer.json()["error"]) == (401, "invalid_client")


def test_an_unknown_token_is_110_and_no_token_is_100(sandbox: ScriptedSandbox) -> None:
    nothing = httpx.post(f"{sandbox.url}/rest/2.0/ocr/v1/bankcard")

    assert (code(post(sandbox, access_token="24.made-up")), code(nothing)) == (110, 100)


def test_another_path_is_error_3_whatever_the_method(sandbox: ScriptedSandbox) -> None:
    assert httpx.head(f"{sandbox.url}/").status_code == 200
    assert code(httpx.get(f"{sandbox.url}/")) == 3


@pytest.mark.parametrize(
    ("account", "answers"),
    [
        ({"qps": 1}, [None, 18]),
        ({"qps": 1000, "day_limit": 1}, [None, 17]),
        ({"qps": 1000, "total_limit": 1}, [None, 19]),
        ({"qps": 1000, "endpoints": ["idcard"]}, [6, 6]),
    ],
)
def test_limits_are_kept_and_refusals_counted(
    sandbox: ScriptedSandbox, account: dict[str, Any], answers: list[int | None]
) -> None:
    sandbox.script(**AT_ONCE, accounts=[account])
    access_token = token(sandbox).json()["access_token"]

    given = [code(post(sandbox, access_token=access_token)) for _ in range(2)]

    assert given == answers
    usage = counts(sandbox)
    assert usage["accepted"] == answers.count(None)
    assert sum(usage["refused"].values()) == len(answers) - answers.count(None)


@pytest.mark.parametrize(
    ("fault", "seen"),
    [
        ({"kind": "html_502"}, "502"),
        ({"kind": "garbage"}, "no json"),
        ({"kind": "empty"}, "no json"),
        ({"kind": "code", "code": 282000}, "282000"),
        ({"kind": "cut"}, "no answer"),
        ({"kind": "cut_after"}, "no answer"),
        ({"kind": "half_body"}, "no answer"),
        ({"kind": "hang", "seconds": 30}, "no answer"),
    ],
)
def test_what_the_script_says_goes_wrong(sandbox: ScriptedSandbox, fault: dict[str, Any], seen: str) -> None:
    sandbox.faults(fault)

    try:
        answer = post(sandbox, timeout=1)
        saw = str(answer.status_code) if answer.status_code != 200 else str(code(answer))
    except httpx.TransportError:
        saw = "no answer"
    except ValueError:
        saw = "no json"

    assert saw == seen
    is_refused = fault["kind"] in ("code", "cut")
    assert counts(sandbox)["accepted"] == (0 if is_refused else 1)


@pytest.mark.parametrize("part", ["headers", "body"])
def test_an_answer_comes_byte_by_byte(sandbox: ScriptedSandbox, part: str) -> None:
    access_token = token(sandbox).json()["access_token"]
    sandbox.faults({"kind": f"slow_{part}"})
    address = sandbox.url.removeprefix("http://").split(":")
    path = f"/rest/2.0/ocr/v1/bankcard?access_token={access_token}"
    body = b"image=" + base64.b64encode(PICTURE).replace(b"+", b"%2B").replace(b"/", b"%2F")

    with socket.create_connection((address[0], int(address[1]))) as connection:
        head = f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n"
        connection.sendall(head.encode() + body)
        pieces = [connection.recv(4096) for _ in range(3)]

    assert len(pieces[0]) == 1 or part == "body"
    assert [len(piece) for piece in pieces[1:]] == [1, 1]


def test_a_fault_has_its_share_and_its_calls(sandbox: ScriptedSandbox) -> None:
    sandbox.faults({"kind": "code", "code": 282000, "after_calls": 3, "before_calls": 5})
    access_token = token(sandbox).json()["access_token"]
    sandbox.reset()

    given = [code(post(sandbox, access_token=access_token)) for _ in range(6)]

    assert given == [None, None, 282000, 282000, None, None]


def test_tokens_are_revoked_once(sandbox: ScriptedSandbox) -> None:
    old = token(sandbox).json()["access_token"]
    sandbox.faults({"kind": "revoke_tokens"})

    refused = code(post(sandbox, access_token=old))
    renewed = code(post(sandbox))

    assert (refused, renewed) == (110, None)


def test_a_moved_clock_turns_the_day_and_ends_tokens(sandbox: ScriptedSandbox) -> None:
    sandbox.script(**AT_ONCE, accounts=[{"qps": 1000, "day_limit": 1}], token_seconds=3 * 86_400)
    access_token = token(sandbox).json()["access_token"]
    first = [code(post(sandbox, access_token=access_token)) for _ in range(2)]

    sandbox.faults({"kind": "clock", "seconds": 86_400})
    next_day = code(post(sandbox, access_token=access_token))
    sandbox.faults({"kind": "clock", "seconds": 4 * 86_400})

    assert (first, next_day) == ([None, 17], None)
    assert code(post(sandbox, access_token=access_token)) == 111


def test_counting_from_zero_keeps_windows_and_totals(sandbox: ScriptedSandbox) -> None:
    sandbox.script(**AT_ONCE, accounts=[{"qps": 1000, "total_limit": 1}])
    access_token = token(sandbox).json()["access_token"]
    post(sandbox, access_token=access_token)

    sandbox.reset()

    assert counts(sandbox)["accepted"] == 0
    assert code(post(sandbox, access_token=access_token)) == 19


def test_the_log_tells_when_each_call_came_and_what_it_got(sandbox: ScriptedSandbox) -> None:
    post(sandbox)

    (arrived, api_key, endpoint, answer), *_ = sandbox.stats(arrivals=True)["log"]

    assert (api_key, endpoint, answer) == ("sandbox-api-key", "bankcard", 0)
    assert arrived > 0


@pytest.mark.parametrize(
    ("script", "named"),
    [
        ({"acounts": []}, "acounts"),
        ({"accounts": [{"qps": 0}]}, "accounts.0.qps"),
        ({"faults": [{"kind": "sleep"}]}, "faults.0.kind"),
        ({"faults": [{"kind": "code"}]}, "code"),
        ({"latency": {"median_seconds": 2, "p95_seconds": 1}}, "p95_seconds"),
    ],
)
def test_a_wrong_script_changes_nothing_and_is_told_what_is_wrong(
    sandbox: ScriptedSandbox, script: dict[str, Any], named: str
) -> None:
    with pytest.raises(ValueError, match=named):
        sandbox.script(**script)

    assert code(post(sandbox)) is None


def test_a_wrong_script_file_is_refused_at_the_start(tmp_path: Path) -> None:
    path = tmp_path / "script.json"
    path.write_text('{"acounts": []}')

    ended = subprocess.run(
        [sys.executable, "-m", "sandbox.scripted", "--script", str(path)], capture_output=True, text=True, check=False
    )

    assert ended.returncode == 2
    assert "acounts" in ended.stderr
