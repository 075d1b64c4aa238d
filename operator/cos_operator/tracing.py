"""Traces by OpenTelemetry: what a run did, and where its time went.

Off unless OpenTelemetry's own variables name a collector; its SDK is not even loaded then. Nothing waits for a
collector: spans are sent by a thread, kept up to a limit while nobody takes them, and dropped beyond it.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from importlib.metadata import version
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import structlog
from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.trace import Span, StatusCode

from cos_operator import metrics
from cos_operator.logs import redacted

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import ReadableSpan
    from opentelemetry.sdk.trace.export import SpanExportResult

log = structlog.stdlib.get_logger(__name__)

NAME = "cos-operator"
#: Either switches traces on; the former is complete, to the latter the exporter adds /v1/traces.
_ENDPOINTS = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
_PROTOCOLS = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")
#: The protocol that is built in: OTLP over HTTP, which every collector takes.
_PROTOCOL = "http/protobuf"
#: Elasticsearch's driver makes spans of its own wherever it finds a tracer: one for each pulse, every two seconds.
_DRIVERS_OWN = "OTEL_PYTHON_INSTRUMENTATION_ELASTICSEARCH_ENABLED"
#: At the end of the process, for the spans that have not been sent.
_FLUSH_SECONDS = 2.0
#: Between two log lines about a collector that takes nothing.
_TELL_SECONDS = 600.0

_tracer = trace.get_tracer(NAME)

Value = str | int | float | bool


def configure(identity: str) -> Callable[[], None]:
    """Send spans where the environment says; returns what ends that, within seconds.

    `identity`: of this process. A wrong variable is logged, and no spans are sent: an operator must not fail by it.
    """
    off = (
        os.environ.get("OTEL_SDK_DISABLED", "").lower() == "true"
        or os.environ.get("OTEL_TRACES_EXPORTER") == "none"
    )
    endpoint = _given(_ENDPOINTS)
    if off or not endpoint:
        return lambda: None
    try:
        _require_http()
        return _start(identity, endpoint)
    except Exception as error:  # noqa: BLE001 - whatever the SDK raises of a variable's value
        log.warning("no traces are sent: correct the OTEL_… variables", error=str(error))
        return lambda: None


def _require_http() -> None:
    chosen = _given(_PROTOCOLS) or _PROTOCOL
    if chosen != _PROTOCOL:
        raise ValueError(f"{_PROTOCOLS[1]} is {chosen!r}: only {_PROTOCOL} is built in")


def _given(variables: Sequence[str]) -> str:
    """The value of the first of these variables that has one; "" if none has."""
    return next(filter(None, map(os.environ.get, variables)), "")


def _start(identity: str, endpoint: str) -> Callable[[], None]:
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import (  # noqa: PLC0415 - only if it is wanted
        OTLPSpanExporter,
    )
    from opentelemetry.sdk.resources import OTELResourceDetector, Resource  # noqa: PLC0415 - likewise
    from opentelemetry.sdk.trace import TracerProvider  # noqa: PLC0415 - likewise
    from opentelemetry.sdk.trace.export import (  # noqa: PLC0415 - likewise
        BatchSpanProcessor,
        SpanExporter,
        SpanExportResult,
    )

    seldom = _Seldom()
    for source in (
        "opentelemetry.sdk._shared_internal",
        "opentelemetry.exporter.otlp.proto.http.trace_exporter",
    ):
        logging.getLogger(source).addFilter(seldom)
    logging.getLogger("opentelemetry.util.re").addFilter(_without_value)

    class Counted(SpanExporter):
        """Sends by OTLP, and counts what became of spans."""

        def __init__(self) -> None:
            self._sender = OTLPSpanExporter()

        def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
            result = self._sender.export(spans)
            sent = result is SpanExportResult.SUCCESS
            metrics.SPANS.labels("sent" if sent else "lost").inc(len(spans))
            return result

        def shutdown(self) -> None:
            self._sender.shutdown()  # type: ignore[no-untyped-call]

    ours = {"service.name": NAME, "service.version": version(NAME), "service.instance.id": identity}
    # What the environment says (OTEL_SERVICE_NAME, OTEL_RESOURCE_ATTRIBUTES) wins.
    resource = Resource.create({**ours, **OTELResourceDetector().detect().attributes})
    os.environ.setdefault(_DRIVERS_OWN, "false")
    provider = TracerProvider(resource=resource, shutdown_on_exit=False)
    provider.add_span_processor(BatchSpanProcessor(Counted()))
    trace.set_tracer_provider(provider)
    # No more of the address: some take their token as a part of it.
    log.info("traces are sent", to=urlsplit(endpoint).netloc.rpartition("@")[2])

    def end() -> None:
        # It takes up to 30 s by itself; the thread ends with the process.
        ending = threading.Thread(target=provider.shutdown, daemon=True)
        ending.start()
        ending.join(_FLUSH_SECONDS)

    return end


class _Seldom(logging.Filter):
    """Lets one line through, and the next after `_TELL_SECONDS`: a collector may be away for days.

    The exporter says why in the warnings before it gives up; the last one is told with it.
    """

    def __init__(self) -> None:
        super().__init__()
        self._next = 0.0
        self._why = ""

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether the line is written."""
        now = time.monotonic()
        if record.levelno < logging.ERROR:
            self._why = record.getMessage()
            return False
        if now < self._next:
            return False
        self._next = now + _TELL_SECONDS
        record.msg, record.args = " ".join(filter(None, (record.getMessage(), self._why))), ()
        return True


def _without_value(record: logging.LogRecord) -> bool:
    """Lets a line about the headers through without them: they hold a token."""
    record.msg, record.args = "a part of OTEL_EXPORTER_OTLP_HEADERS is not key=value, and is left out", ()
    return True


@contextmanager
def span(name: str, **attributes: Value) -> Iterator[Span]:
    """A span around a block, inside of that which is open. An error is its status, in words without secrets."""
    with _tracer.start_as_current_span(
        name, attributes=_attributes(attributes), record_exception=False, set_status_on_exception=False
    ) as opened:
        try:
            yield opened
        except BaseException as error:
            # Also one whose time was up: that is a cancellation, and the trace that is looked for most.
            opened.set_status(StatusCode.ERROR, redacted(f"{type(error).__name__}: {error}"))
            raise


@contextmanager
def run(name: str, **context: Value) -> Iterator[None]:
    """A trace of its own around a block, whose log lines have the same context and the trace's id."""
    with span(name, **context), structlog.contextvars.bound_contextvars(**context, **trace_id()):
        yield


@contextmanager
def step(name: str, **attributes: Value) -> Iterator[Span]:
    """A span inside of another one; none where none is open: what is done again and again is no trace of its own."""
    if trace.get_current_span().is_recording():
        with span(name, **attributes) as opened:
            yield opened
    else:
        yield trace.INVALID_SPAN


def record(name: str, began: str, ended: str, *, failed: str = "", **attributes: Value) -> None:
    """A span of what others did, between two times (RFC 3339). `failed`: why, in words."""
    opened = _tracer.start_span(
        name, Context(), attributes=_attributes(attributes), start_time=_nanoseconds(began)
    )
    if failed:
        opened.set_status(StatusCode.ERROR, redacted(failed))
    opened.end(_nanoseconds(ended))


def trace_id() -> dict[str, str]:
    """The open trace's id, for log lines; nothing without one."""
    opened = trace.get_current_span()
    return (
        {"trace_id": trace.format_trace_id(opened.get_span_context().trace_id)}
        if opened.is_recording()
        else {}
    )


def _attributes(given: dict[str, Value]) -> dict[str, Value]:
    """Under names of ours: ``stack`` as ``cos.stack``."""
    return {f"cos.{key}": value for key, value in given.items()}


def _nanoseconds(moment: str) -> int:
    return int(datetime.fromisoformat(moment).timestamp() * 1e9)
