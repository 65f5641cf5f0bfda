"""Structured logs: constant event names with fields; identifiers, never content, keys or secrets."""

import logging
import logging.config
import sys
from typing import Any

import structlog

from shared.settings import Settings

# Fields that must never reach a log, whoever passes them.
_FORBIDDEN = frozenset(
    {"image", "image_base64", "fields", "result", "access_token", "token", "secret", "api_key", "authorization", "raw"}
)

# urllib3 quotes URLs at DEBUG, and at WARNING when an answer's headers are odd; Baidu's carry the access token.
QUIET_LOGGERS = {"urllib3": {"level": "ERROR"}, "requests": {"level": "ERROR"}}


def _drop_content(_logger: Any, _method: str, event: structlog.typing.EventDict) -> structlog.typing.EventDict:
    for name in _FORBIDDEN & event.keys():
        event[name] = "[removed]"
    return event


def configure_logging(settings: Settings, *, process: str) -> None:
    """Send every log line of this process, the libraries' included, to standard error in one form.

    Args:
        process: which process speaks: `api`, `worker`, `sandbox`, …
    """
    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        _drop_content,
    ]
    renderer: structlog.typing.Processor = (
        structlog.processors.JSONRenderer(ensure_ascii=False)
        if settings.log_format == "json"
        else structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty())
    )
    formatter = {
        "()": structlog.stdlib.ProcessorFormatter,
        "processors": [
            structlog.stdlib.ProcessorFormatter.remove_processors_meta,
            structlog.processors.format_exc_info,
            renderer,
        ],
        "foreign_pre_chain": shared,
    }
    logging.config.dictConfig(
        {
            "version": 1,
            "disable_existing_loggers": False,
            "formatters": {"structured": formatter},
            "handlers": {"stderr": {"class": "logging.StreamHandler", "formatter": "structured"}},
            "root": {"handlers": ["stderr"], "level": settings.log_level},
            "loggers": QUIET_LOGGERS,
        }
    )
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )
    structlog.contextvars.bind_contextvars(process=process)
