"""What a log line may hold."""

import io
import json
import logging
import sys
from collections.abc import Iterator
from typing import Any

import pytest
import structlog

from shared.log import _FORBIDDEN, configure_logging
from shared.settings import Settings


@pytest.fixture
def lines(monkeypatch: pytest.MonkeyPatch) -> Iterator[io.StringIO]:
    """What a process with our logging writes; the logging of the tests themselves is put back afterwards."""
    root, written = logging.getLogger(), io.StringIO()
    handlers, level = root.handlers[:], root.level
    levels = {name: logging.getLogger(name).level for name in ("urllib3", "requests")}
    monkeypatch.setattr(sys, "stderr", written)
    configure_logging(Settings(log_format="json"), process="tests")
    yield written
    structlog.reset_defaults()
    structlog.contextvars.clear_contextvars()
    root.handlers[:] = handlers
    root.setLevel(level)
    for name, before in levels.items():
        logging.getLogger(name).setLevel(before)


def parsed(written: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in written.getvalue().splitlines()]


def test_a_line_is_an_event_with_fields(lines: io.StringIO) -> None:
    structlog.get_logger("worker").info("attempt_failed", job_id="job_1", kind="throttled")

    (line,) = parsed(lines)
    assert (line["event"], line["level"], line["logger"]) == ("attempt_failed", "info", "worker")
    assert (line["process"], line["job_id"], line["kind"]) == ("tests", "job_1", "throttled")
    assert line["timestamp"].endswith("Z")


@pytest.mark.parametrize("name", sorted(_FORBIDDEN))
def test_content_and_keys_never_reach_a_line(lines: io.StringIO, name: str) -> None:
    structlog.get_logger("worker").info("oops", **{name: {"name": "测样丽"}})
    structlog.get_logger("worker").bind(**{name: "测样丽"}).warning("oops")

    assert "测样丽" not in lines.getvalue()
    assert [line[name] for line in parsed(lines)] == ["[removed]"] * 2


def test_lines_of_libraries_have_the_same_form(lines: io.StringIO) -> None:
    logging.getLogger("some.library").warning("it said %s", "so")

    assert [(line["event"], line["logger"]) for line in parsed(lines)] == [("it said so", "some.library")]


def test_libraries_that_quote_urls_are_silent(lines: io.StringIO) -> None:
    # Baidu wants its token in the URL; urllib3 quotes the URL when it complains of an answer's headers.
    for level in (logging.DEBUG, logging.INFO, logging.WARNING):
        logging.getLogger("urllib3.connection").log(level, "url=https://ocr.invalid/?access_token=24.token")
        logging.getLogger("urllib3.connectionpool").log(level, "url=https://ocr.invalid/?access_token=24.token")

    assert lines.getvalue() == ""
