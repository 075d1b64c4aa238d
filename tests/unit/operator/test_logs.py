"""What a log line looks like, whoever wrote it, and what never is in one."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterator
from typing import Any

import pytest
import structlog

from cos_operator.logs import REDACTED, configure
from cos_operator.settings import LogFormat, LogLevel


@pytest.fixture(autouse=True)
def _logging_as_before() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    structlog.reset_defaults()
    structlog.contextvars.clear_contextvars()


@pytest.fixture
def stream() -> io.StringIO:
    return io.StringIO()


def lines(stream: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_our_lines_and_those_of_libraries_have_the_same_shape(stream: io.StringIO) -> None:
    configure(LogLevel.INFO, LogFormat.JSON, stream)
    with structlog.contextvars.bound_contextvars(stack="cos", namespace="ns", reconcile="a1"):
        structlog.stdlib.get_logger("cos_operator.reconcile").info("reconciled", revision="abc")
        logging.getLogger("kopf.reactor").warning("restarting %s", "pods", extra={"attempt": 2})
    ours, theirs = lines(stream)
    assert {**ours, "timestamp": ""} == {
        "event": "reconciled",
        "level": "info",
        "logger": "cos_operator.reconcile",
        "timestamp": "",
        "stack": "cos",
        "namespace": "ns",
        "reconcile": "a1",
        "revision": "abc",
    }
    assert theirs["event"] == "restarting pods"
    assert (theirs["level"], theirs["logger"], theirs["attempt"]) == ("warning", "kopf.reactor", 2)
    assert theirs["stack"] == "cos"


def test_levels_and_the_noise_of_libraries(stream: io.StringIO) -> None:
    configure(LogLevel.INFO, LogFormat.JSON, stream)
    structlog.stdlib.get_logger("cos_operator").debug("not written")
    logging.getLogger("kopf.objects").info("not written")
    logging.getLogger("aiohttp.access").info("not written")
    logging.getLogger("kopf.objects").warning("written")
    assert [line["event"] for line in lines(stream)] == ["written"]
    configure(LogLevel.DEBUG, LogFormat.JSON, stream)
    structlog.stdlib.get_logger("cos_operator").debug("written now")
    assert lines(stream)[-1]["event"] == "written now"


@pytest.mark.parametrize("form", list(LogFormat))
def test_secrets_never_appear(stream: io.StringIO, form: LogFormat) -> None:
    configure(LogLevel.DEBUG, form, stream)
    log = structlog.stdlib.get_logger("cos_operator")
    log.info("login", password="hunter2", username="app", admin_password="hunter2", api_token="hunter2")
    log.info("secret", data={"uri": "redis://app:hunter2@cos-redis:6379", "items": [{"Password": "hunter2"}]})
    log.info("failed for postgresql://app:hunter2@cos-postgres/app", header="Bearer hunter2hunter2")
    logging.getLogger("neo4j").error("cannot reach bolt://neo4j:%s@cos-neo4j", "hunter2")
    try:
        password = "hunter2"  # noqa: F841 a local variable, as tracebacks of some renderers show them
        raise ConnectionError("redis://app:hunter2@cos-redis refused")  # noqa: TRY301 it is to be logged
    except ConnectionError:
        log.exception("run failed")
    text = stream.getvalue()
    assert "hunter2" not in text
    assert REDACTED in text
    assert "app" in text
    assert "cos-postgres/app" in text
    assert "ConnectionError" in text
    assert "Traceback" in text


def test_what_is_no_json_is_written_as_text(stream: io.StringIO) -> None:
    configure(LogLevel.INFO, LogFormat.JSON, stream)
    structlog.stdlib.get_logger("cos_operator").info("odd", value=object, keys={("ns", "cos")})
    assert lines(stream)[0]["keys"] == [["ns", "cos"]]
