"""Traces: what a real collector receives of an operator, and that nothing rests on there being one."""

from __future__ import annotations

import base64
import json
import re
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
import yaml
from operator_process import (
    Account,
    Kubectl,
    OperatorProcess,
    apply_all,
    chart_rights,
    create_accounts,
    eventually,
    small_stack,
    token_of,
    write_kubeconfig,
)

from cos_operator.kube import Kube
from processes_of_tests import ending

START_LIMIT = 60.0
#: A collector that is away costs the process so many seconds when it ends; the rest is the Lease and a busy machine.
END_LIMIT = 20.0
#: Sooner than by default, so that a test need not wait for what is sent now and again; with time for a second attempt,
#: up to 1.2 s after the first: what is told before it is the reason.
EAGER = {"OTEL_BSP_SCHEDULE_DELAY": "200", "OTEL_EXPORTER_OTLP_TIMEOUT": "3"}

Run = Callable[[dict[str, str]], OperatorProcess]


@pytest.fixture
def run(apiserver: str, kubectl: Kubectl, namespace: str, tmp_path: Path) -> Iterator[Run]:
    """Starts an operator of the namespace with these variables besides."""
    account = Account(namespace, "traced")
    create_accounts(kubectl, account)
    apply_all(kubectl, chart_rights(namespace, [namespace], [account]))
    config = write_kubeconfig(apiserver, tmp_path / "kubeconfig", token=token_of(kubectl, account))
    running: list[OperatorProcess] = []

    def start(environment: dict[str, str]) -> OperatorProcess:
        made = OperatorProcess("traced", tmp_path, config, namespace, [namespace], environment=environment)
        running.append(made.__enter__())
        return made

    yield start
    for process in running:
        process.__exit__()


async def is_served(kube: Kube, namespace: str) -> bool:
    stack = await kube.get("CosStack", namespace, "cos")
    found = await kube.list("StatefulSet", namespace)
    return bool(stack and stack.get("status", {}).get("observedGeneration") and found)


@contextmanager
def collector(folder: Path) -> Iterator[tuple[str, Path]]:
    """A collector on a free port: its address, and the file that it writes spans into, a batch a line."""
    program = [sys.executable, "-m", "cos_testbed", "path", "otelcol"]
    path = subprocess.run(program, stdout=subprocess.PIPE, text=True, check=True, timeout=1800).stdout.strip()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    spans, config = folder / "spans.json", folder / "collector.yaml"
    config.write_text(
        yaml.safe_dump(
            {
                "receivers": {"otlp": {"protocols": {"http": {"endpoint": address}}}},
                "exporters": {"file": {"path": str(spans)}},
                "service": {
                    "pipelines": {"traces": {"receivers": ["otlp"], "exporters": ["file"]}},
                    "telemetry": {"metrics": {"level": "none"}},
                },
            }
        )
    )
    with (folder / "collector.log").open("wb") as log:
        process = subprocess.Popen([path, f"--config={config}"], stdout=log, stderr=log)
    with ending(process):
        yield f"http://{address}", spans


def spans_in(path: Path) -> list[dict[str, Any]]:
    """Every span, with its attributes and those of its process as a mapping."""

    def mapped(attributes: list[dict[str, Any]]) -> dict[str, Any]:
        return {item["key"]: next(iter(item["value"].values())) for item in attributes}

    return [
        {
            **span,
            "attributes": mapped(span.get("attributes", [])),
            "resource": mapped(batch["resource"]["attributes"]),
        }
        for line in path.read_text().splitlines()
        for batch in json.loads(line)["resourceSpans"]
        for scope in batch["scopeSpans"]
        for span in scope["spans"]
    ]


async def test_a_collector_receives_what_a_run_did_and_no_secret(
    run: Run, kube: Kube, namespace: str, tmp_path: Path
) -> None:
    with collector(tmp_path) as (endpoint, file):
        await eventually(
            "the collector is ready",
            lambda: "Everything is ready" in (tmp_path / "collector.log").read_text(),
            30,
        )
        operator = run({"OTEL_EXPORTER_OTLP_ENDPOINT": endpoint, "OTEL_RESOURCE_ATTRIBUTES": "cluster=test"})
        await kube.create(small_stack(namespace, "cos"))
        await eventually("the stack is served", lambda: is_served(kube, namespace), START_LIMIT)
        await operator.says("applied", "StatefulSet", seconds=10)
        operator.process.terminate()
        assert await operator.ends(END_LIMIT) == 0
        # What it did until its end is sent at its end.
        await eventually("the spans are written", lambda: file.exists() and "execute" in file.read_text(), 10)
    spans = spans_in(file)
    assert {key: spans[0]["resource"][key] for key in ("service.name", "service.instance.id", "cluster")} == {
        "service.name": "cos-operator",
        "service.instance.id": "traced",
        "cluster": "test",
    }
    applied = next(span for span in spans if span["name"] == "apply StatefulSet")
    assert applied["attributes"]["http.response.status_code"] == "201"
    (execute,) = (span for span in spans if span["spanId"] == applied["parentSpanId"])
    (root,) = (span for span in spans if span["spanId"] == execute["parentSpanId"])
    assert (execute["name"], root["name"], root.get("parentSpanId", "")) == ("execute", "reconcile", "")
    assert (root["attributes"]["cos.stack"], root["attributes"]["cos.namespace"]) == ("cos", namespace)
    inside = {span["name"] for span in spans if span.get("parentSpanId") == root["spanId"]}
    assert {"observe", "decide", "execute", "get CosStack", "apply CosStack"} <= inside
    assert not any("Lease" in span["name"] for span in spans), "what is done every two seconds is no trace"
    assert root["traceId"] in "".join(operator.said("applied", "StatefulSet")), (
        "log lines lead to their trace"
    )
    await no_secret_in(kube, namespace, file.read_text())


async def no_secret_in(kube: Kube, namespace: str, text: str) -> None:
    secrets = await kube.list("Secret", namespace)
    values = [base64.b64decode(v).decode() for s in secrets for k, v in s["data"].items() if "password" in k]
    assert values
    assert not [value for value in values if value in text]


@contextmanager
def silent() -> Iterator[str]:
    """A server that takes connections and what is sent, and never answers."""
    stop, kept = threading.Event(), []

    def take(server: socket.socket) -> None:
        while not stop.is_set():
            with suppress(TimeoutError):
                kept.append(server.accept()[0])

    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(0.2)
        thread = threading.Thread(target=take, args=(server,), daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.getsockname()[1]}"
        finally:
            stop.set()
            thread.join(5)
            for connection in kept:
                connection.close()


@contextmanager
def dead() -> Iterator[str]:
    """A port at which nobody listens."""
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        yield f"http://127.0.0.1:{held.getsockname()[1]}"


@pytest.mark.parametrize("sink", [dead, silent])
async def test_nothing_waits_for_a_collector_that_is_away_or_silent(
    sink: Callable[[], Any], run: Run, kube: Kube, namespace: str
) -> None:
    with sink() as endpoint:
        operator = run({"OTEL_EXPORTER_OTLP_ENDPOINT": endpoint, **EAGER})
        await kube.create(small_stack(namespace, "cos"))
        await eventually("the stack is served", lambda: is_served(kube, namespace), START_LIMIT)

        async def lost() -> bool:
            _, body = await operator.get("/metrics")
            return (
                re.search(r'^cos_operator_trace_spans_total\{result="lost"\} [1-9]', body, re.MULTILINE)
                is not None
            )

        await eventually("what was lost is counted", lost, 30)
        # Another run, while the sink fails.
        await kube.apply(small_stack(namespace, "cos", maxClients=77), force=True)

        async def followed() -> bool:
            stack = await kube.get("CosStack", namespace, "cos")
            return bool(stack and stack["status"]["observedGeneration"] == stack["metadata"]["generation"])

        await eventually("the edit is followed", followed, 15)
        operator.process.terminate()
        assert await operator.ends(END_LIMIT) == 0
    told = operator.said("Failed to export")
    assert len(told) == 1, told
    assert ("Connection refused" if sink is dead else "timeout") in told[0], "with the reason"
    assert not operator.said("Traceback")


async def test_a_wrong_variable_is_told_and_stops_nothing(run: Run, kube: Kube, namespace: str) -> None:
    wrong = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:9", "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"}
    operator = run(wrong)
    await operator.says("no traces are sent", "OTEL_EXPORTER_OTLP_PROTOCOL is 'grpc'", seconds=START_LIMIT)
    await kube.create(small_stack(namespace, "cos"))
    await eventually("the stack is served", lambda: is_served(kube, namespace), START_LIMIT)
