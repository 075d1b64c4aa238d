"""Names, labels, and that nothing of a deleted stack stays."""

from __future__ import annotations

import re

from prometheus_client import generate_latest

from cos_controllers.api.backup import BackupPhase, CopyStatus
from cos_controllers.api.probe import StackProbe
from cos_controllers.api.restore import RestoredStatus
from cos_controllers.api.status import (
    ComponentStatus,
    Condition,
    ConditionStatus,
    CosStackStatus,
    GateName,
    GateStatus,
    ObjectiveStatus,
    Verdict,
)
from cos_controllers.observation import Facts, Usage
from cos_operator import metrics


def series(name: str) -> set[str]:
    text = generate_latest(metrics.REGISTRY).decode()
    return {line.rpartition(" ")[0] for line in text.splitlines() if line.startswith(name + "{")}


def status(**reasons: str) -> CosStackStatus:
    """A stack that is Available, and Ready if nothing is said of it; `reasons` by component."""
    rows = [
        ComponentStatus(
            name=name,
            ready=reason == "Serving",
            reason=reason,
            desired_revision="2",
            effective_revision="1" if reason in {"RolledBack", "HeldBack"} else "2",
            last_good_revision="1" if reason in {"RolledBack", "HeldBack", "Restarting"} else "2",
            serving_since="2026-01-01T00:00:00Z" if reason in {"Serving", "RolledBack"} else None,
        )
        for name, reason in reasons.items()
    ]
    verdicts = {"Ready": all(row.ready for row in rows), "Available": True}
    conditions = [
        Condition(
            type=kind,
            status=ConditionStatus(str(holds)),
            reason="Serving",
            last_transition_time="2026-01-01T00:00:00Z",
        )
        for kind, holds in verdicts.items()
    ]
    return CosStackStatus(conditions=conditions, components=rows)


def test_series_follow_the_stack() -> None:
    metrics.set_stack("ns", "cos", status(redis="Serving", neo4j="Starting"))
    metrics.set_stack("ns", "other", status(redis="RolledBack"))
    value = metrics.REGISTRY.get_sample_value
    stack = {"namespace": "ns", "stack": "cos"}
    neo4j = {**stack, "component": "neo4j"}
    assert value("cos_stack_condition", {**stack, "type": "Ready"}) == 0
    assert value("cos_stack_condition", {**stack, "type": "Available"}) == 1
    assert value("cos_stack_component_ready", neo4j) == 0
    assert value("cos_stack_component_serving", neo4j) == 0
    assert value("cos_stack_component_reason", {**neo4j, "reason": "Starting"}) == 1
    other = {"namespace": "ns", "stack": "other", "component": "redis"}
    assert value("cos_stack_component_ready", other) == 0
    assert value("cos_stack_component_serving", other) == 1, "the earlier configuration serves"
    changing = "cos_stack_component_changing"
    assert value(changing, other) == 0, "what runs has proven itself, whatever the spec asks for"
    assert value(changing, neo4j) == 0
    metrics.set_stack("ns", "other", status(redis="Restarting"))
    assert value(changing, other) == 1
    metrics.set_stack("ns", "cos", status(redis="ReadOnly"))
    for name in ("ready", "serving", "changing", "reason"):
        assert not any("neo4j" in line for line in series(f"cos_stack_component_{name}"))
    assert value("cos_stack_component_reason", {**stack, "component": "redis", "reason": "Serving"}) is None
    known = status(redis="Serving")
    unread = [item.model_copy(update={"status": ConditionStatus.UNKNOWN}) for item in known.conditions]
    metrics.set_stack("ns", "cos", known.model_copy(update={"conditions": unread}))
    assert value("cos_stack_condition", {**stack, "type": "Ready"}) == -1
    assert metrics.stacks() == {("ns", "cos"), ("ns", "other")}
    for name in ("cos", "other"):
        metrics.ROLLBACKS.labels("ns", name, "redis").inc()
        metrics.set_failing("ns", name, failing=True)
    metrics.remove_stack("ns", "cos")
    metrics.remove_stack("ns", "never-existed")
    components = ("ready", "serving", "changing", "reason")
    for metric in (
        "condition",
        "reconcile_failing",
        "rollbacks_total",
        *(f"component_{name}" for name in components),
    ):
        assert {'stack="other"' in line for line in series(f"cos_stack_{metric}")} == {True}
    metrics.remove_stack("ns", "other")
    assert not metrics.stacks()


def test_gates_and_what_is_taken_follow_what_is_known() -> None:
    where = {"namespace": "ns", "stack": "gated", "component": "redis"}
    value = metrics.REGISTRY.get_sample_value

    def gate(name: GateName, verdict: Verdict) -> GateStatus:
        return GateStatus(name=name, verdict=verdict, since="2026-01-01T00:00:00Z")

    def with_gates(*gates: GateStatus) -> CosStackStatus:
        (row,) = (found := status(redis="Serving")).components
        return found.model_copy(update={"components": [row.model_copy(update={"gates": list(gates)})]})

    two = gate(GateName.SERVING, Verdict.FAILED), gate(GateName.HEALTH, Verdict.UNKNOWN)
    metrics.set_stack("ns", "gated", with_gates(*two))
    assert value("cos_stack_gate", where | {"gate": "Serving"}) == 0
    assert value("cos_stack_gate", where | {"gate": "Health"}) == -1
    metrics.set_stack("ns", "gated", with_gates(gate(GateName.SERVING, Verdict.PASSED)))
    assert value("cos_stack_gate", where | {"gate": "Serving"}) == 1
    assert value("cos_stack_gate", where | {"gate": "Health"}) is None
    metrics.set_usages("ns", "gated", {"redis": Facts(connections=Usage(3, 50), storage=Usage(5, 100))})
    assert value("cos_stack_connections", where) == 3
    assert value("cos_stack_connections_limit", where) == 50
    assert value("cos_stack_storage_used_bytes", where) == 5
    assert value("cos_stack_storage_limit_bytes", where) == 100
    metrics.set_usages("ns", "gated", {"redis": Facts(connections=Usage(4, 50))})
    assert value("cos_stack_connections", where) == 4
    assert value("cos_stack_storage_used_bytes", where) is None
    metrics.set_usages("ns", "gated", {})
    assert value("cos_stack_connections", where) is None
    metrics.set_usages("ns", "first", {"redis": Facts(connections=Usage(4, 50))})
    assert ("ns", "first") in metrics.stacks(), "to be taken away when another process leads"
    for name in ("gated", "first"):
        metrics.remove_stack("ns", name)
    assert not any("cos_stack_gate" in line for line in series("cos_stack_gate"))
    assert not series("cos_stack_connections")


def probe(time: str, phase: str, **rows: object) -> StackProbe:
    return StackProbe.model_validate(
        {
            "apiVersion": "cos.dev/v1alpha1",
            "kind": "StackProbe",
            "metadata": {"name": "p", "namespace": "ns"},
            "spec": rows.pop("spec", {"stackRef": {"name": "probed"}}),
            "status": {"phase": phase, "completionTime": time, **rows},
        }
    )


def test_of_each_check_the_newest_figures_are_told_and_of_a_stack_without_probes_none() -> None:
    latency = {
        f"{name}Microseconds": 1000 * n for n, name in enumerate(("p50", "p95", "p99", "max"), start=1)
    }
    row = {"name": "redis/Latency", "phase": "Successful", "latency": latency, "operations": 90, "errors": 10}
    late = {
        "name": "redis/Latency",
        "operations": 1,
        "latency": {f"{name}Microseconds": 10**6 for name in ("p50", "p95", "p99", "max")},
    }
    loud = probe(
        "2026-01-01T02:00:00Z",
        "Successful",
        spec={"stackRef": {"name": "probed"}, "load": "Saturating"},
        checks=[late | {"phase": "Successful"}],
    )
    unsure = probe("2026-01-01T03:00:00Z", "Inconclusive", checks=[late | {"phase": "Inconclusive"}])
    grown = {"name": "redis", "memoryGrowthBytes": 5}
    old = probe(
        "2026-01-01T00:00:00Z",
        "Successful",
        checks=[
            row | {"elapsedMilliseconds": 1000},
            row | {"name": "redis/PubSub", "elapsedMilliseconds": 1000},
        ],
        components=[grown],
    )
    new = probe(
        "2026-01-01T01:00:00Z",
        "Failed",
        checks=[
            row | {"elapsedMilliseconds": 2000},
            {"name": "redis/PubSub", "phase": "Failed", "errors": 9},
        ],
        components=[{"name": "redis"}],
    )
    where = {"namespace": "ns", "stack": "probed"}
    value = metrics.REGISTRY.get_sample_value
    metrics.set_probes("ns", "probed", [new, old, loud, unsure])
    check = where | {"check": "redis/Latency"}
    found = [
        value("cos_probe_latency_seconds", check | {"quantile": q}) for q in ("0.5", "0.95", "0.99", "1")
    ]
    assert found == [0.001, 0.002, 0.003, 0.004]
    assert value("cos_probe_operations_per_second", check) == 45
    dead = where | {"check": "redis/PubSub"}
    assert value("cos_probe_operations_per_second", dead) == 0
    assert value("cos_probe_error_ratio", dead) == 1, "of one that answers nothing too"
    assert value("cos_probe_error_ratio", check) == 0.1
    assert value("cos_probe_completion_timestamp_seconds", where) == 1767225600
    assert ("ns", "probed") in metrics.probed_stacks()
    metrics.set_probes("ns", "probed", [])
    assert not series("cos_probe_")
    assert ("ns", "probed") not in metrics.probed_stacks()


def test_of_backups_the_good_copy_of_each_component_is_told() -> None:
    copy = CopyStatus(
        name="redis",
        phase=BackupPhase.SUCCEEDED,
        point_in_time="2026-01-02T00:00:00Z",
        start_time="2026-01-02T00:00:00Z",
        completion_time="2026-01-02T00:00:20Z",
        bytes=20,
        stored_bytes=10,
    )
    proof = RestoredStatus(
        name="redis",
        point_in_time="2026-01-02T00:00:00Z",
        start_time="2026-01-03T00:00:00Z",
        completion_time="2026-01-03T00:00:40Z",
    )
    metrics.set_backups("ns", "kept", {"redis": copy}, {"redis": proof})
    where = {"namespace": "ns", "stack": "kept", "component": "redis"}
    names = ("point_timestamp_seconds", "bytes", "stored_bytes", "duration_seconds")
    names += (
        "verified_point_timestamp_seconds",
        "verified_timestamp_seconds",
        "verification_duration_seconds",
    )
    found = [metrics.REGISTRY.get_sample_value(f"cos_backup_{name}", where) for name in names]
    assert found == [1767312000, 20, 10, 20, 1767312000, 1767398440, 40]
    assert ("ns", "kept") in metrics.backed_up_stacks()
    metrics.set_backups("ns", "kept", {})
    assert metrics.REGISTRY.get_sample_value("cos_backup_bytes", where) is None
    assert ("ns", "kept") not in metrics.backed_up_stacks()


def test_objectives_and_their_condition_go_with_the_spec_that_asks_for_them() -> None:
    def with_objectives(*verdicts: Verdict) -> CosStackStatus:
        rows = [
            ObjectiveStatus(name=f"o{n}", verdict=v, target="x", since="2026-01-01T00:00:00Z")
            for n, v in enumerate(verdicts)
        ]
        met = Condition(type="SLOMet", status=ConditionStatus.FALSE, reason="x", last_transition_time="x")
        return CosStackStatus(objectives=rows, conditions=[met] if rows else [])

    where = {"namespace": "ns", "stack": "slo"}
    value = metrics.REGISTRY.get_sample_value
    metrics.set_stack("ns", "slo", with_objectives(Verdict.FAILED, Verdict.PASSED))
    assert [
        value("cos_stack_objective", where | {"objective": name, "dry_run": "false"}) for name in ("o0", "o1")
    ] == [0, 1]
    metrics.set_stack("ns", "slo", with_objectives(Verdict.UNKNOWN))
    assert [
        value("cos_stack_objective", where | {"objective": name, "dry_run": "false"}) for name in ("o0", "o1")
    ] == [-1, None]
    assert value("cos_stack_condition", where | {"type": "SLOMet"}) == 0
    metrics.set_stack("ns", "slo", with_objectives())
    assert not series("cos_stack_objective")
    assert value("cos_stack_condition", where | {"type": "SLOMet"}) is None
    metrics.remove_stack("ns", "slo")


def test_a_stack_whose_looks_fail_is_told_until_one_succeeds_or_it_is_gone() -> None:
    labels = {"namespace": "ns", "stack": "sick"}
    value = metrics.REGISTRY.get_sample_value
    metrics.set_failing("ns", "sick", failing=False)
    assert value("cos_stack_reconcile_failing", labels) is None, "a stack that is gone"
    metrics.set_failing("ns", "sick", failing=True)
    assert value("cos_stack_reconcile_failing", labels) == 1
    assert ("ns", "sick") in metrics.stacks(), "to be taken away when another process leads"
    metrics.set_failing("ns", "sick", failing=False)
    assert value("cos_stack_reconcile_failing", labels) == 0
    metrics.remove_stack("ns", "sick")
    assert value("cos_stack_reconcile_failing", labels) is None


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
        "cos_operator_trace_spans_total": ("counter", ("result",)),
        "cos_operator_watch_restarts_total": ("counter", ()),
        "cos_operator_events_received_total": ("counter", ("kind",)),
        "cos_stack_condition": ("gauge", ("namespace", "stack", "type")),
        "cos_stack_reconcile_failing": ("gauge", ("namespace", "stack")),
        "cos_stack_component_ready": ("gauge", ("namespace", "stack", "component")),
        "cos_stack_component_serving": ("gauge", ("namespace", "stack", "component")),
        "cos_stack_component_changing": ("gauge", ("namespace", "stack", "component")),
        "cos_stack_component_reason": ("gauge", ("namespace", "stack", "component", "reason")),
        "cos_stack_gate": ("gauge", ("namespace", "stack", "component", "gate")),
        "cos_stack_connections": ("gauge", ("namespace", "stack", "component")),
        "cos_stack_connections_limit": ("gauge", ("namespace", "stack", "component")),
        "cos_stack_storage_used_bytes": ("gauge", ("namespace", "stack", "component")),
        "cos_stack_storage_limit_bytes": ("gauge", ("namespace", "stack", "component")),
        "cos_stack_objective": ("gauge", ("namespace", "stack", "objective", "dry_run")),
        "cos_stack_rollbacks_total": ("counter", ("namespace", "stack", "component")),
        "cos_probe_runs_total": ("counter", ("namespace", "stack", "phase")),
        "cos_probe_latency_seconds": ("gauge", ("namespace", "stack", "check", "quantile")),
        "cos_probe_operations_per_second": ("gauge", ("namespace", "stack", "check")),
        "cos_probe_error_ratio": ("gauge", ("namespace", "stack", "check")),
        "cos_probe_memory_growth_bytes": ("gauge", ("namespace", "stack", "component")),
        "cos_probe_completion_timestamp_seconds": ("gauge", ("namespace", "stack")),
        "cos_backup_runs_total": ("counter", ("namespace", "stack", "phase")),
        "cos_backup_point_timestamp_seconds": ("gauge", ("namespace", "stack", "component")),
        "cos_backup_bytes": ("gauge", ("namespace", "stack", "component")),
        "cos_backup_stored_bytes": ("gauge", ("namespace", "stack", "component")),
        "cos_backup_duration_seconds": ("gauge", ("namespace", "stack", "component")),
        "cos_backup_verified_timestamp_seconds": ("gauge", ("namespace", "stack", "component")),
        "cos_backup_verified_point_timestamp_seconds": ("gauge", ("namespace", "stack", "component")),
        "cos_backup_verification_duration_seconds": ("gauge", ("namespace", "stack", "component")),
        "cos_restore_runs_total": ("counter", ("namespace", "stack", "phase")),
    }
    assert all(help_text.endswith(".") for *_, help_text in metrics.table())
    metrics.register_process("1.2.3")
    exposed = generate_latest(metrics.REGISTRY).decode()
    assert 'cos_operator_info{version="1.2.3"} 1.0' in exposed
    assert "process_resident_memory_bytes" in exposed
    ours = set(re.findall(r"^# TYPE (cos_\w+) \w+$", exposed, re.MULTILINE))
    created = {name for name in ours if name.endswith("_created")}
    assert ours - created == set(rows)
