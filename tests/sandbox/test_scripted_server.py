"""The scripted sandbox as a process: what its script says happens, and its counts tell it."""

import asyncio
import base64
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from aiohttp.test_utils import make_mocked_request

from benchmarks.scripted import ScriptedSandbox, running_sandbox
from sandbox.documents.check_digits import has_luhn, is_credit_code, is_id_number
from sandbox.scripted.answers import card_number, id_number, picture_digest
from sandbox.scripted.script import Script
from sandbox.scripted.server import ScriptedServer

AT_ONCE = {"latency": {"median_seconds": 0, "p95_seconds": 0}}
PLENTY = {"accounts": [{"qps": 1000}]}
ONCE = 1e-9
"""Calls a second: one, and no other while a test runs."""
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
    company = post(sandbox, "business_license").json()["words_result"]
    assert digest[:12] in company["单位名称"]["words"]
    assert is_credit_code(company["社会信用代码"]["words"])
    assert post(sandbox, "general_basic").json()["words_result"] == [{"words": digest}]


@pytest.mark.parametrize(
    ("body", "answer"),
    [
        (b"id_card_side=front", 216101),
        (b"image=no-base64", 216201),
        (b"image=aa+/", 216201),  # not escaped: a form's + is a space
        (b"image=aa%2B%2F&x=1", None),
    ],
)
def test_a_call_without_a_readable_picture_is_an_error(
    sandbox: ScriptedSandbox, body: bytes, answer: int | None
) -> None:
    access_token = token(sandbox).json()["access_token"]

    given = httpx.post(f"{sandbox.url}/rest/2.0/ocr/v1/bankcard", params={"access_token": access_token}, content=body)

    assert code(given) == answer


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
        ({"qps": ONCE, "window": "sliding"}, [None, 18]),
        ({"qps": ONCE, "window": "fixed"}, [None, 18]),
        ({"qps": ONCE, "window": "bucket", "bucket_size": 1}, [None, 18]),
        ({"qps": 1, "window": "in_flight"}, [None, None]),
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


def test_a_call_is_in_flight_until_it_is_answered_even_if_nobody_waits_for_it(sandbox: ScriptedSandbox) -> None:
    sandbox.script(
        **AT_ONCE, accounts=[{"qps": 1, "window": "in_flight"}], faults=[{"kind": "hang", "before_calls": 2}]
    )
    access_token = token(sandbox).json()["access_token"]

    with pytest.raises(httpx.ReadTimeout):
        post(sandbox, access_token=access_token, timeout=0.3)

    assert code(post(sandbox, access_token=access_token)) == 18
    assert sandbox.stats()["most_in_flight"] >= sandbox.stats()["in_flight"] >= 1
    sandbox.script(**AT_ONCE, **PLENTY)
    assert code(post(sandbox, access_token=access_token)) is None


def test_a_call_that_is_not_permitted_meets_no_fault(sandbox: ScriptedSandbox) -> None:
    sandbox.script(**AT_ONCE, accounts=[{"endpoints": ["idcard"]}], faults=[{"kind": "code", "code": 18}])

    assert (code(post(sandbox)), code(post(sandbox, "idcard"))) == (6, 18)


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

    new = token(sandbox).json()["access_token"]

    assert [code(post(sandbox, access_token=given)) for given in (old, new)] == [110, None]


def test_the_token_endpoint_refuses_or_is_silent_for_one_account(sandbox: ScriptedSandbox) -> None:
    sandbox.faults({"kind": "token_refused", "api_key": "another"})
    assert token(sandbox).status_code == 200

    sandbox.faults({"kind": "token_refused"})
    assert token(sandbox).json()["error"] == "invalid_client"

    sandbox.faults({"kind": "token_hang", "seconds": 0.1})
    with pytest.raises(httpx.RemoteProtocolError):
        token(sandbox)


@pytest.mark.parametrize(("remote", "is_told"), [("203.0.113.7", False), ("127.0.0.1", True), ("", False)])
def test_only_this_machine_is_told_the_counts(remote: str, is_told: bool) -> None:
    request = make_mocked_request("GET", "/_sandbox/stats").clone(remote=remote)
    app = ScriptedServer(Script()).application()
    handler = next(route.handler for route in app.router.routes() if "stats" in str(route.resource))

    async def answer() -> str:
        return str(getattr(await handler(request), "text", None))

    assert ("arrivals" in asyncio.run(answer())) == is_told


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


def test_it_ends_cleanly_while_calls_hang() -> None:
    command = [sys.executable, "-m", "sandbox.scripted", "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout
        assert process.stderr
        line = process.stdout.readline()
        sandbox = ScriptedSandbox(re.sub(r"listening on (\S+)\n", r"\1", line), process.pid)
        sandbox.script(**AT_ONCE, faults=[{"kind": "hang"}])
        with pytest.raises(httpx.ReadTimeout):
            post(sandbox, timeout=0.3)

        process.send_signal(signal.SIGTERM)

        assert process.wait(20) == 0
        assert process.stderr.read() == ""
