"""Structured logs: one JSON object a line on standard error, or coloured text for people.

Log lines of libraries (kopf, aiohttp, kubernetes) take the same way. What is bound with
``structlog.contextvars`` (stack, namespace, reconcile id) appears in every line of that task.
"""

from __future__ import annotations

import logging
import re
import sys
from collections.abc import Mapping
from typing import Any, TextIO

import structlog
from structlog.typing import EventDict, Processor, WrappedLogger

from cos_operator.settings import LogFormat, LogLevel

REDACTED = "[redacted]"

#: Keys whose values are never written, wherever they appear in a line. Plurals and prefixes count as well.
_SECRET_KEY = re.compile(
    r"(^|[_.-])(pass(word|wd|phrase)?|secret|token|uri|dsn|auth|authorization|cookie|credentials?|private_?key)s?$",
    re.IGNORECASE,
)
_URL_PASSWORD = re.compile(r"(\b[a-z][a-z0-9+.-]*://[^\s:/@]*):[^\s/@]+@", re.IGNORECASE)
_AUTHORIZATION = re.compile(r"\b(bearer|basic)\s+[\w.~+/=-]{8,}", re.IGNORECASE)

#: Libraries that say more at these levels than anybody wants to read.
_LEAST_LEVELS = {
    # It repeats every event of every object.
    "kopf.objects": logging.WARNING,
    # It says at each start that it does not handle signals; they are ours.
    "kopf._core.reactor.running": logging.ERROR,
    "aiohttp.access": logging.WARNING,
    "asyncio": logging.WARNING,
    "neo4j": logging.ERROR,
    "elastic_transport": logging.ERROR,
}


def configure(level: LogLevel, form: LogFormat, stream: TextIO | None = None) -> None:
    """Send all log lines of the process to `stream` (None: standard error). Replaces what was configured."""
    stream = stream if stream is not None else sys.stderr
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.PositionalArgumentsFormatter(),
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.StackInfoRenderer(),
    ]
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *shared,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=False,
    )
    renderer: Processor = (
        structlog.processors.JSONRenderer(default=str)
        if form is LogFormat.JSON
        else structlog.dev.ConsoleRenderer(
            colors=stream.isatty(), exception_formatter=structlog.dev.plain_traceback
        )
    )
    handler = logging.StreamHandler(stream)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[structlog.stdlib.ExtraAdder(), *shared],
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                # Plain text: the renderers' own tracebacks print local variables, and with them passwords.
                structlog.processors.format_exc_info,
                redact,
                renderer,
            ],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.value.upper())
    for name, least in _LEAST_LEVELS.items():
        logging.getLogger(name).setLevel(max(least, root.level))


def redact(_: WrappedLogger, __: str, event: EventDict) -> EventDict:
    """Processor: remove the values of secret keys, and the passwords in URLs and headers, at any depth."""
    return {key: _redacted(key, value) for key, value in event.items()}


def redacted(text: str) -> str:
    """A text without the passwords in URLs and headers."""
    return str(_redacted("", text))


def _redacted(key: object, value: Any) -> Any:
    if isinstance(key, str) and _SECRET_KEY.search(key):
        return REDACTED
    match value:
        case str():
            return _AUTHORIZATION.sub(rf"\1 {REDACTED}", _URL_PASSWORD.sub(rf"\1:{REDACTED}@", value))
        case Mapping():
            return {inner: _redacted(inner, item) for inner, item in value.items()}
        case list() | tuple() | set() | frozenset():
            return [_redacted("", item) for item in value]
        case _:
            return value
