"""Names, labels, and that nothing of a deleted stack stays."""

from __future__ import annotations

import re

from prometheus_client import generate_latest

from cos_operator import metrics


def series(name: str) -> set[str]:
    text = generate_latest(metrics.REGISTRY).decode()
    return {line.rpartition(" ")[0] for line in text.splitlines() if line.startswith(name + "{")}


def test_series_follow_the_stack() -> None:
    metrics.set_stack("ns", "cos", ready=True, components={"redis": True, "neo4j": False})
    metrics.set_stack("ns", "other", ready=False, components={"redis": True})
    value = metrics.REGISTRY.get_sample_value
    assert value("cos_stack_ready", {"namespace": "ns", "stack": "cos"}) == 1
    assert value("cos_stack_component_ready", {"namespace": "ns", "stack": "cos", "component": "neo4j"}) == 0
    metrics.set_stack("ns", "cos", ready=False, components={"redis": False})
    assert not any("neo4j" in line for line in series("cos_stack_component_ready"))
    assert metrics.stacks() == {("ns", "cos"), ("ns", "other")}
    for stack in ("cos", "other"):
        metrics.ROLLBACKS.labels("ns", stack, "redis").inc()
    metrics.remove_stack("ns", "cos")
    metrics.remove_stack("ns", "never-existed")
    for name in ("cos_stack_ready", "cos_stack_component_ready", "cos_stack_rollbacks_total"):
        assert {'stack="other"' in line for line in series(name)} == {True}
    metrics.remove_stack("ns", "other")
    assert not metrics.stacks()


def test_the_table_is_what_is_exposed_and_follows_the_conventions() -> None:
    rows = {name: (kind, labels) for name, kind, labels, _ in metrics.table()}
    assert rows == {
        "cos_operator_info": ("info", ("version",)),
        "cos_operator_leader": ("gauge", ()),
        "cos_operator_queue_depth": ("gauge", ()),
        "cos_operator_reconcile_duration_seconds": ("histogram", ("result",)),
        "cos_operator_reconcile_total": ("counter", ("result",)),
        "cos_operator_api_requests_total": ("counter", ("verb", "kind", "code")),
        "cos_operator_api_request_duration_seconds": ("histogram", ("verb", "kind")),
        "cos_operator_watch_restarts_total": ("counter", ()),
        "cos_operator_events_received_total": ("counter", ("kind",)),
        "cos_stack_ready": ("gauge", ("namespace", "stack")),
        "cos_stack_component_ready": ("gauge", ("namespace", "stack", "component")),
        "cos_stack_rollbacks_total": ("counter", ("namespace", "stack", "component")),
    }
    assert all(help_text.endswith(".") for *_, help_text in metrics.table())
    metrics.register_process("1.2.3")
    exposed = generate_latest(metrics.REGISTRY).decode()
    assert 'cos_operator_info{version="1.2.3"} 1.0' in exposed
    assert "process_resident_memory_bytes" in exposed
    ours = set(re.findall(r"^# TYPE (cos_\w+) \w+$", exposed, re.MULTILINE))
    created = {name for name in ours if name.endswith("_created")}
    assert ours - created == set(rows)
