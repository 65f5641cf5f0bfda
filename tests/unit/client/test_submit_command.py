"""`kazheng submit` and the demo, against a scripted API."""

import json
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from click.testing import CliRunner, Result

from kazheng.commands import demo
from kazheng.commands import submit as submit_module
from kazheng.commands.failures import CommandError
from kazheng.commands.main import main
from shared.settings import Settings
from tests.unit.client.api_double import ScriptedApi, answer, job_json, problem

RESULT = {
    "fields": {
        "name": {"value": "测样丽", "label": "姓名", "status": "read"},
        "id_number": {"value": "999999199003070020", "label": "公民身份号码", "status": "read"},
        "address": {"value": None, "label": "住址", "status": "absent"},
    },
    "checks": [
        {"code": "id_number.checksum", "status": "passed", "severity": "error", "fields": ["id_number"]},
        {"code": "name.odd", "status": "failed", "severity": "warning", "fields": ["name"], "detail": "Look again."},
        {"code": "expiry", "status": "skipped", "severity": "warning", "fields": ["id_number"]},
    ],
}


def recognizing(request: httpx.Request) -> httpx.Response:
    """Accepts every picture; those that hold `blurred` fail, those that hold `svg` are not accepted."""
    if request.method == "POST":
        if b"svg" in request.content:
            return problem(415, "image_format_unsupported", detail="Send a JPEG.")
        blurred = b"blurred" in request.content
        return answer(202, job_json(id="job_bad" if blurred else "job_good"))
    if request.url.path.endswith("job_bad"):
        error = {"code": "blurred", "detail": "Hold the camera still.", "retryable": False}
        return answer(200, job_json("failed", id="job_bad", error=error))
    return answer(200, job_json("succeeded", id="job_good", result=RESULT, timings_ms={"total": 812}))


@pytest.fixture
def pictures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with three pictures."""
    for name, content in {"good.jpg": b"good", "bad.jpg": b"blurred", "logo.svg": b"svg"}.items():
        (tmp_path / name).write_bytes(content)
    for name in list(os.environ):
        if name.startswith(("KAZHENG_", "BAIDU_")):
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    return tmp_path


@pytest.fixture
def api(monkeypatch: pytest.MonkeyPatch) -> ScriptedApi:
    """The API behind the commands."""
    scripted = ScriptedApi([recognizing])
    for module in (submit_module, demo):
        monkeypatch.setattr(module, "open_client", lambda _settings: scripted.client())
    return scripted


Run = Callable[..., Result]


@pytest.fixture
def submit(api: ScriptedApi, pictures: Path) -> Run:
    """Runs the command in the folder of the pictures."""
    return lambda *words: CliRunner().invoke(main, ["submit", *words])


def test_fields_are_shown_with_their_checks(submit: Run) -> None:
    result = submit("good.jpg", "--type", "id_card")

    assert result.exit_code == 0
    for shown in (
        "good.jpg",
        "姓名",
        "测样丽",
        "999999199003070020",
        "✓ id_number.checksum",
        "✗ Look again.",
        "(absent)",
    ):
        assert shown in result.output
    assert "expiry" not in result.output
    assert "1 of 1 recognized" in result.output


def test_failed_files_say_what_to_do_and_the_others_are_shown(submit: Run) -> None:
    result = submit("bad.jpg", "good.jpg", "logo.svg", "--type", "id_card")

    assert result.exit_code == 1
    assert re.search(r"bad\.jpg.*blurred.*Hold the camera still\.", result.output)
    assert re.search(r"logo\.svg.*image_format_unsupported.*Send a JPEG\.", result.output)
    assert "测样丽" in result.output
    assert "1 of 3 recognized" in result.output


def test_json_is_one_object_a_line(submit: Run) -> None:
    result = submit("bad.jpg", "good.jpg", "--type", "id_card", "--json")

    lines = {line["file"]: line for line in map(json.loads, result.stdout.splitlines())}
    assert result.exit_code == 1
    assert lines["good.jpg"]["ok"] is True
    assert lines["good.jpg"]["job"]["result"]["fields"]["name"]["value"] == "测样丽"
    assert lines["bad.jpg"]["error"] == {"code": "blurred", "detail": "Hold the camera still."}


def test_no_wait_hands_over_and_tells_the_ids(submit: Run, api: ScriptedApi) -> None:
    result = submit("good.jpg", "bad.jpg", "--type", "id_card", "--no-wait")

    assert result.exit_code == 0
    assert "job_good" in result.output
    assert "job_bad" in result.output
    assert {request.method for request in api.requests} == {"POST"}


def test_options_side_and_lane_are_handed_on(submit: Run, api: ScriptedApi) -> None:
    words = ("--side", "back", "--option", "detect_risk=true", "--option", "note=a=b", "--lane", "bulk")

    submit("good.jpg", "--type", "id_card", *words)

    body = api.requests[0].content.decode()
    assert json.dumps({"detect_risk": True, "note": "a=b", "side": "back"}) in body
    assert "bulk" in body


def test_file_named_twice_is_submitted_once(submit: Run, api: ScriptedApi) -> None:
    submit("good.jpg", "good.jpg", "--type", "id_card", "--no-wait")

    assert len(api.requests) == 1


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ((".", "good.jpg", "--type", "id_card"), "is a folder"),
        (("missing.jpg", "--type", "id_card"), "does not exist"),
        (("good.jpg",), "--type"),
        (("good.jpg", "--type", "library_card"), "library_card"),
        (("good.jpg", "--type", "id_card", "--option", "side"), "name=value"),
        (("good.jpg", "--type", "id_card", "--side", "top"), "top"),
        (("--type", "id_card"), "FILES"),
    ],
)
def test_wrong_usage_is_refused_before_anything_is_sent(
    submit: Run, api: ScriptedApi, words: tuple[str, ...], told: str
) -> None:
    result = submit(*words)

    assert result.exit_code == 2
    assert told in result.output
    assert api.requests == []


def test_refused_key_ends_the_command(submit: Run, api: ScriptedApi) -> None:
    api.replies = [problem(401, "unauthenticated", detail="The API key is unknown.")]

    result = submit("good.jpg", "bad.jpg", "--type", "id_card")

    assert result.exit_code == 2
    assert "The API key is unknown." in result.output


def test_silent_api_is_a_failure_of_each_file(submit: Run, api: ScriptedApi) -> None:
    api.replies = [httpx.ConnectError("refused")]

    result = submit("good.jpg", "--type", "id_card")

    assert result.exit_code == 1
    assert "api_unreachable" in result.output


@pytest.mark.usefixtures("pictures")
def test_missing_key_is_explained() -> None:
    result = CliRunner().invoke(main, ["submit", "good.jpg", "--type", "id_card"])

    assert result.exit_code == 2
    assert "kazheng keys create" in result.output


def write_samples(folder: Path, fields: dict[str, Any], file: str = "good.jpg") -> None:
    (folder / "samples").mkdir()
    (folder / "samples" / file).write_bytes((folder / file).read_bytes())
    sample = {"file": file, "document_type": "id_card", "options": {"side": "front"}, "fields": fields}
    (folder / "samples" / "expected.json").write_text(json.dumps([sample]), encoding="utf-8")


@pytest.mark.usefixtures("api")
class TestDemo:
    def test_passes_when_every_field_is_right(self, pictures: Path, capsys: pytest.CaptureFixture[str]) -> None:
        write_samples(pictures, {"name": "测样丽", "address": None})

        passed = demo.run_demo(Settings.from_env())

        shown = capsys.readouterr().out
        assert passed
        assert "1 of 1 pictures recognized, 2 of 2 fields right." in shown
        assert "812" in shown

    @pytest.mark.parametrize(
        "fields",
        [
            {"name": "测样 丽"},  # white space counts
            {"name": None},  # something was read where nothing is
            {"address": "样例路1号"},  # nothing was read where something is
            {"no_such_field": None},
        ],
    )
    def test_one_wrong_field_fails_it(
        self, pictures: Path, capsys: pytest.CaptureFixture[str], fields: dict[str, str | None]
    ) -> None:
        write_samples(pictures, fields)

        passed = demo.run_demo(Settings.from_env())

        shown = capsys.readouterr().out
        assert not passed
        assert "0 of 1 fields right" in shown
        assert "expected" in shown

    def test_failed_picture_fails_it_and_says_why(self, pictures: Path, capsys: pytest.CaptureFixture[str]) -> None:
        write_samples(pictures, {"name": "测样丽"}, file="bad.jpg")

        passed = demo.run_demo(Settings.from_env())

        assert not passed
        assert "blurred: Hold the camera still." in capsys.readouterr().out

    def test_missing_picture_is_named(self, pictures: Path) -> None:
        write_samples(pictures, {"name": "测样丽"})
        (pictures / "samples" / "good.jpg").unlink()

        with pytest.raises(CommandError, match=r"good\.jpg"):
            demo.run_demo(Settings.from_env())

    @pytest.mark.parametrize("listed", ["[", "{}", "[]", '[{"file": "good.jpg"}]'])
    def test_unreadable_list_is_explained(self, pictures: Path, listed: str) -> None:
        write_samples(pictures, {})
        (pictures / "samples" / "expected.json").write_text(listed)

        with pytest.raises(CommandError, match=r"expected\.json"):
            demo.run_demo(Settings.from_env())
