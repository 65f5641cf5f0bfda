"""`.env.example` and the settings say the same."""

import re
from pathlib import Path

from shared.settings import Settings

LINES = (Path(__file__).parent.parent.parent / ".env.example").read_text(encoding="utf-8").splitlines()
_WITHOUT_PREFIX = {"baidu_api_key": "BAIDU_API_KEY", "baidu_secret_key": "BAIDU_SECRET_KEY"}


def _name(field: str) -> str:
    return _WITHOUT_PREFIX.get(field, f"KAZHENG_{field.upper()}")


def test_every_setting_is_listed_with_its_default() -> None:
    matches = (re.fullmatch(r"#([A-Z0-9_]+)=(.*)", line) for line in LINES)
    listed = {match[1]: match[2] for match in matches if match}

    assert set(listed) == {_name(field) for field in Settings.model_fields}
    for field, info in Settings.model_fields.items():
        if isinstance(info.default, int | float | str) and not isinstance(info.default, bool):
            assert listed[_name(field)] == str(info.default), field


def test_every_setting_is_explained() -> None:
    explained = {LINES[number] for number in range(1, len(LINES)) if LINES[number - 1].startswith("# ")}

    assert all(line in explained for line in LINES if re.match(r"#[A-Z]", line))


def test_the_example_changes_nothing() -> None:
    assert [line for line in LINES if line and not line.startswith("#")] == []
