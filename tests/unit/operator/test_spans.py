"""Spans: what they say of errors, and when there are none. What a collector receives: tests/api/test_tracing.py."""

from __future__ import annotations

import asyncio
import logging
import subprocess
import sys

import pytest
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from cos_operator import tracing


@pytest.fixture
def spans(monkeypatch: pytest.MonkeyPatch) -> InMemorySpanExporter:
    exporter = InMemorySpanExporter()
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    monkeypatch.setattr(tracing, "_tracer", provider.get_tracer("test"))
    return exporter


def ended(spans: InMemorySpanExporter) -> dict[str, ReadableSpan]:
    return {span.name: span for span in spans.get_finished_spans()}


def test_a_step_is_part_of_what_is_open_and_no_trace_of_its_own(spans: InMemorySpanExporter) -> None:
    with tracing.step("lease"):
        assert tracing.trace_id() == {}
    with tracing.span("reconcile", stack="cos", tries=2), tracing.step("observe"):
        assert len(tracing.trace_id()["trace_id"]) == 32
    found = ended(spans)
    assert set(found) == {"reconcile", "observe"}
    assert found["observe"].parent == found["reconcile"].context
    assert dict(found["reconcile"].attributes or {}) == {"cos.stack": "cos", "cos.tries": 2}


def test_an_error_is_told_without_passwords_and_without_a_traceback(spans: InMemorySpanExporter) -> None:
    with pytest.raises(ValueError, match="s3cret"), tracing.span("reconcile"):
        raise ValueError("cannot reach redis://app:s3cret@cos-redis:6379")  # pragma: allowlist secret
    span = ended(spans)["reconcile"]
    assert span.status.description == "ValueError: cannot reach redis://app:[redacted]@cos-redis:6379"
    assert not span.events


def test_what_others_did_has_their_times_and_no_parent(spans: InMemorySpanExporter) -> None:
    with tracing.span("look"):
        tracing.record(
            "StackProbe", "2026-01-01T00:00:00Z", "2026-01-01T00:01:00Z", failed="postgres://a:b@c", probe="p"
        )
    span = ended(spans)["StackProbe"]
    assert span.parent is None
    assert (span.end_time or 0) - (span.start_time or 0) == 60_000_000_000
    assert span.status.description == "postgres://a:[redacted]@c"


def line(level: int, message: str, *args: object) -> logging.LogRecord:
    return logging.LogRecord("x", level, "", 0, message, args, None)


def test_a_collector_that_is_away_is_told_of_seldom_and_why() -> None:
    seldom = tracing._Seldom()
    first = line(logging.ERROR, "Failed to export %s batch.", "spans")
    assert not seldom.filter(line(logging.WARNING, "Transient error %s", "connection refused"))
    assert seldom.filter(first)
    assert first.getMessage() == "Failed to export spans batch. Transient error connection refused"
    assert not seldom.filter(line(logging.ERROR, "Failed to export %s batch.", "spans"))


def test_headers_are_not_written_into_the_log() -> None:
    wrong = line(logging.WARNING, "Header format invalid! %s", "Authorization: token-of-mine")
    assert tracing._without_value(wrong)
    assert "token-of-mine" not in wrong.getMessage()


async def test_a_span_whose_time_was_up_says_so(spans: InMemorySpanExporter) -> None:
    async def reconcile() -> None:
        with tracing.span("reconcile"):
            await asyncio.sleep(10)

    with pytest.raises(TimeoutError):
        await asyncio.wait_for(reconcile(), 0.01)
    assert (ended(spans)["reconcile"].status.description or "").startswith("CancelledError")


@pytest.mark.parametrize("variable", ["OTEL_SDK_DISABLED=true", "OTEL_TRACES_EXPORTER=none"])
def test_it_can_be_switched_off(variable: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setenv(*variable.split("="))
    monkeypatch.setattr(tracing, "_start", lambda *_: pytest.fail("it was started"))
    tracing.configure("x")()


def test_without_an_endpoint_neither_the_sdks_tracer_nor_an_exporter_is_loaded() -> None:
    code = "import sys, cos_operator.operator as _, cos_operator.tracing as t; t.configure('x')(); "
    code += "sys.exit(any(n.startswith(('opentelemetry.sdk.trace', 'google.protobuf')) for n in sys.modules))"
    environment = {"PATH": "", "OTEL_TRACES_SAMPLER": "always_on"}
    assert subprocess.run([sys.executable, "-c", code], env=environment, check=False).returncode == 0
