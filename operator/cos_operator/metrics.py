"""The operator's Prometheus metrics: names, labels, help. The table in the docs is generated from here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Info, ProcessCollector

from cos_controllers.api.status import ConditionStatus, CosStackStatus, Verdict

if TYPE_CHECKING:
    # The CLI's client counts requests too, and does without the models of Kubernetes.
    from cos_controllers.api.backup import CopyStatus
    from cos_controllers.api.probe import CheckStatus, StackProbe
    from cos_controllers.api.restore import RestoredStatus
    from cos_controllers.observation import Facts

#: Everything that `/metrics` exposes; a registry of our own, so that no library adds to it unnoticed.
REGISTRY = CollectorRegistry()

#: From one skipped apply to the reconcile time limit.
_RECONCILE_SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
_API_SECONDS = (0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)

INFO = Info("cos_operator", "Version of the running operator.", registry=REGISTRY)
LEADER = Gauge(
    "cos_operator_leader",
    "1 while this process leads and reconciles, 0 while it stands by.",
    registry=REGISTRY,
)
QUEUE_DEPTH = Gauge(
    "cos_operator_queue_depth",
    "Stacks that wait for a worker now; delayed ones not counted.",
    registry=REGISTRY,
)
RECONCILE_SECONDS = Histogram(
    "cos_operator_reconcile_duration_seconds",
    "Duration of reconciling one stack once, by result.",
    ("result",),
    buckets=_RECONCILE_SECONDS,
    registry=REGISTRY,
)
RECONCILES = Counter(
    "cos_operator_reconcile_total",
    "Times that a stack was reconciled, by result.",
    ("result",),
    registry=REGISTRY,
)
API_REQUESTS = Counter(
    "cos_operator_api_requests_total",
    "Requests to the Kubernetes API; code is the HTTP status, or `unreachable` without an answer in time.",
    ("verb", "kind", "code"),
    registry=REGISTRY,
)
API_SECONDS = Histogram(
    "cos_operator_api_request_duration_seconds",
    "Duration of requests to the Kubernetes API, those without an answer included.",
    ("verb", "kind"),
    buckets=_API_SECONDS,
    registry=REGISTRY,
)
SPANS = Counter(
    "cos_operator_trace_spans_total",
    "Spans that the collector of traces took (`sent`) or not (`lost`); what its queue has no room for is in neither.",
    ("result",),
    registry=REGISTRY,
)
WATCH_RESTARTS = Counter(
    "cos_operator_watch_restarts_total",
    "Times that the watches ended and were started again.",
    registry=REGISTRY,
)
EVENTS_RECEIVED = Counter(
    "cos_operator_events_received_total",
    "Watch events received, by kind.",
    ("kind",),
    registry=REGISTRY,
)
STACK_CONDITION = Gauge(
    "cos_stack_condition",
    "A condition of the stack: 1 while it is True, 0 while False, -1 while Unknown.",
    ("namespace", "stack", "type"),
    registry=REGISTRY,
)
RECONCILE_FAILING = Gauge(
    "cos_stack_reconcile_failing",
    "1 while the last look at the stack ended in an error, else 0.",
    ("namespace", "stack"),
    registry=REGISTRY,
)
COMPONENT_READY = Gauge(
    "cos_stack_component_ready",
    "1 while the component serves what the spec asks for, else 0.",
    ("namespace", "stack", "component"),
    registry=REGISTRY,
)
COMPONENT_SERVING = Gauge(
    "cos_stack_component_serving",
    "1 while the component answers its own protocol, perhaps with an earlier configuration; 0 while it does not, or "
    "while a part of the spec that cannot be used keeps the operator from asking it.",
    ("namespace", "stack", "component"),
    registry=REGISTRY,
)
COMPONENT_CHANGING = Gauge(
    "cos_stack_component_changing",
    "1 while what runs of the component has not served for ten seconds since it was changed or created, else 0.",
    ("namespace", "stack", "component"),
    registry=REGISTRY,
)
COMPONENT_REASON = Gauge(
    "cos_stack_component_reason",
    "1 for the reason that the component's status gives at present; the others are absent.",
    ("namespace", "stack", "component", "reason"),
    registry=REGISTRY,
)

GATE = Gauge(
    "cos_stack_gate",
    "What a gate of the component says: 1 while it passes, 0 while it fails, -1 while it is not known.",
    ("namespace", "stack", "component", "gate"),
    registry=REGISTRY,
)
CONNECTIONS = Gauge(
    "cos_stack_connections",
    "Connections of applications to the component; absent where the engine has no limit of them, or does not say.",
    ("namespace", "stack", "component"),
    registry=REGISTRY,
)
CONNECTIONS_LIMIT = Gauge(
    "cos_stack_connections_limit",
    "Connections that applications may have to the component.",
    ("namespace", "stack", "component"),
    registry=REGISTRY,
)
STORAGE = Gauge(
    "cos_stack_storage_used_bytes",
    "Bytes of the component's volume that are taken, as far as the engine knows; absent where it does not say.",
    ("namespace", "stack", "component"),
    registry=REGISTRY,
)
STORAGE_LIMIT = Gauge(
    "cos_stack_storage_limit_bytes",
    "Size of the component's volume in bytes; of a volume that shares its disk with others, that of the disk.",
    ("namespace", "stack", "component"),
    registry=REGISTRY,
)

OBJECTIVE = Gauge(
    "cos_stack_objective",
    "An objective of the stack: 1 while it is met, 0 while it is missed, -1 while it is not known.",
    ("namespace", "stack", "objective", "dry_run"),
    registry=REGISTRY,
)

ROLLBACKS = Counter(
    "cos_stack_rollbacks_total",
    "Changes of a component that did not serve in time and were taken back.",
    ("namespace", "stack", "component"),
    registry=REGISTRY,
)

PROBES = Counter(
    "cos_probe_runs_total",
    "Probes of the stack that have ended, by phase: Successful, Failed, Inconclusive or Error.",
    ("namespace", "stack", "phase"),
    registry=REGISTRY,
)
PROBE_LATENCY = Gauge(
    "cos_probe_latency_seconds",
    "Time from when a request was due to its answer, by the newest probe that says so; quantile 1 is the slowest.",
    ("namespace", "stack", "check", "quantile"),
    registry=REGISTRY,
)
PROBE_RATE = Gauge(
    "cos_probe_operations_per_second",
    "Requests that succeeded, a second, by the newest probe that says so.",
    ("namespace", "stack", "check"),
    registry=REGISTRY,
)
PROBE_ERRORS = Gauge(
    "cos_probe_error_ratio",
    "Share of requests that failed, 0 to 1, by the newest probe that says so.",
    ("namespace", "stack", "check"),
    registry=REGISTRY,
)
PROBE_GROWTH = Gauge(
    "cos_probe_memory_growth_bytes",
    "By how much the engine's memory grew during the newest probe that says so.",
    ("namespace", "stack", "component"),
    registry=REGISTRY,
)
PROBED_AT = Gauge(
    "cos_probe_completion_timestamp_seconds",
    "When the newest probe that measured everything had ended, in seconds since 1970.",
    ("namespace", "stack"),
    registry=REGISTRY,
)
BACKUPS = Counter(
    "cos_backup_runs_total",
    "Backups of the stack that have ended, by phase.",
    ("namespace", "stack", "phase"),
    registry=REGISTRY,
)
BACKED_UP_AT = Gauge(
    "cos_backup_point_timestamp_seconds",
    "The moment of which the newest good copy of the component's data is, in seconds since 1970.",
    ("namespace", "stack", "component"),
    registry=REGISTRY,
)
BACKUP_BYTES = Gauge(
    "cos_backup_bytes",
    "Size of the data in the newest good copy of the component.",
    ("namespace", "stack", "component"),
    registry=REGISTRY,
)
BACKUP_STORED = Gauge(
    "cos_backup_stored_bytes",
    "What the newest good copy of the component added to its repository.",
    ("namespace", "stack", "component"),
    registry=REGISTRY,
)
BACKUP_SECONDS = Gauge(
    "cos_backup_duration_seconds",
    "How long the newest good copy of the component took.",
    ("namespace", "stack", "component"),
    registry=REGISTRY,
)
VERIFIED_AT = Gauge(
    "cos_backup_verified_timestamp_seconds",
    "When a copy of the component was last restored for proof, in seconds since 1970.",
    ("namespace", "stack", "component"),
    registry=REGISTRY,
)
VERIFIED_POINT = Gauge(
    "cos_backup_verified_point_timestamp_seconds",
    "The moment of which the data of that copy is, in seconds since 1970.",
    ("namespace", "stack", "component"),
    registry=REGISTRY,
)
VERIFY_SECONDS = Gauge(
    "cos_backup_verification_duration_seconds",
    "How long that restore took, until the engine had been proved on it.",
    ("namespace", "stack", "component"),
    registry=REGISTRY,
)
RESTORES = Counter(
    "cos_restore_runs_total",
    "Restores of the stack that have ended, by phase.",
    ("namespace", "stack", "phase"),
    registry=REGISTRY,
)
#: What counts those that have ended, by kind.
OPERATIONS = {"StackBackup": BACKUPS, "StackRestore": RESTORES}

_DESCRIBED = (
    INFO,
    LEADER,
    QUEUE_DEPTH,
    RECONCILE_SECONDS,
    RECONCILES,
    API_REQUESTS,
    API_SECONDS,
    SPANS,
    WATCH_RESTARTS,
    EVENTS_RECEIVED,
    STACK_CONDITION,
    RECONCILE_FAILING,
    COMPONENT_READY,
    COMPONENT_SERVING,
    COMPONENT_CHANGING,
    COMPONENT_REASON,
    GATE,
    CONNECTIONS,
    CONNECTIONS_LIMIT,
    STORAGE,
    STORAGE_LIMIT,
    OBJECTIVE,
    ROLLBACKS,
    PROBES,
    PROBE_LATENCY,
    PROBE_RATE,
    PROBE_ERRORS,
    PROBE_GROWTH,
    PROBED_AT,
    BACKUPS,
    BACKED_UP_AT,
    BACKUP_BYTES,
    BACKUP_STORED,
    BACKUP_SECONDS,
    VERIFIED_AT,
    VERIFIED_POINT,
    VERIFY_SECONDS,
    RESTORES,
)
#: Conditions that a stack has only if its spec asks for them.
_OPTIONAL_CONDITIONS = ("SLOMet", "BackupHealthy")
#: Series of a stack that say how it is now.
_OF_COMPONENTS = (COMPONENT_READY, COMPONENT_SERVING, COMPONENT_CHANGING)
_OF_USAGE = (CONNECTIONS, CONNECTIONS_LIMIT, STORAGE, STORAGE_LIMIT)
_PRESENT = (
    STACK_CONDITION,
    RECONCILE_FAILING,
    *_OF_COMPONENTS,
    COMPONENT_REASON,
    GATE,
    OBJECTIVE,
    *_OF_USAGE,
)
_BY_VERDICT = {Verdict.PASSED: 1, Verdict.FAILED: 0, Verdict.UNKNOWN: -1}
_BY_STATUS = {ConditionStatus.TRUE: 1, ConditionStatus.FALSE: 0, ConditionStatus.UNKNOWN: -1}

#: The rows of each stack that has series, by namespace and stack: what the next `set_stack` must take away. Likewise
#: its gates, by component and name, and each series of usage, by metric and component.
_rows: dict[tuple[str, str], dict[str, str]] = {}
_gates: dict[tuple[str, str], set[tuple[str, str]]] = {}
_usages: dict[tuple[str, str], set[tuple[Gauge, str]]] = {}
#: The objectives of each stack that has series, by name and whether they are a dry run.
_objectives: dict[tuple[str, str], set[tuple[str, str]]] = {}
#: The series of each stack that has probes, by metric and the labels beyond namespace and stack.
_probed: dict[tuple[str, str], set[tuple[Gauge, tuple[str, ...]]]] = {}
#: Likewise of each stack that has backups.
_backed_up: dict[tuple[str, str], set[tuple[Gauge, tuple[str, ...]]]] = {}


def set_stack(namespace: str, stack: str, status: CosStackStatus) -> None:
    """Record how a stack and its components are; series of what is no longer so go away."""
    for condition in status.conditions:
        STACK_CONDITION.labels(namespace, stack, condition.type).set(_BY_STATUS[condition.status])
    for absent in set(_OPTIONAL_CONDITIONS) - {condition.type for condition in status.conditions}:
        STACK_CONDITION.remove_by_labels({"namespace": namespace, "stack": stack, "type": absent})
    before = _rows.get((namespace, stack), {})
    rows = {row.name: row.reason for row in status.components}
    for component, reason in before.items():
        if component not in rows:
            for metric in _OF_COMPONENTS:
                metric.remove(namespace, stack, component)
        if rows.get(component) != reason:
            COMPONENT_REASON.remove(namespace, stack, component, reason)
    for row in status.components:
        COMPONENT_READY.labels(namespace, stack, row.name).set(row.ready)
        COMPONENT_SERVING.labels(namespace, stack, row.name).set(row.serving_since is not None)
        changing = (row.effective_revision or row.desired_revision) != row.last_good_revision
        COMPONENT_CHANGING.labels(namespace, stack, row.name).set(changing)
        COMPONENT_REASON.labels(namespace, stack, row.name, row.reason).set(1)
    gates = {(row.name, gate.name.value): gate.verdict for row in status.components for gate in row.gates}
    for gone in _gates.get((namespace, stack), set()) - gates.keys():
        GATE.remove(namespace, stack, *gone)
    for (component, gate), verdict in gates.items():
        GATE.labels(namespace, stack, component, gate).set(_BY_VERDICT[verdict])
    _set_objectives(namespace, stack, status)
    _rows[namespace, stack], _gates[namespace, stack] = rows, set(gates)


def _set_objectives(namespace: str, stack: str, status: CosStackStatus) -> None:
    objectives = {(item.name, str(item.dry_run).lower()): item.verdict for item in status.objectives}
    before = _objectives.get((namespace, stack), set())
    for gone in before - objectives.keys():
        OBJECTIVE.remove(namespace, stack, *gone)
    for labels, verdict in objectives.items():
        OBJECTIVE.labels(namespace, stack, *labels).set(_BY_VERDICT[verdict])
    _objectives[namespace, stack] = set(objectives)


def set_usages(namespace: str, stack: str, facts: Mapping[str, Facts]) -> None:
    """Record what is taken of each component's connections and volume, by what is known of it; all else goes away."""
    found: dict[tuple[Gauge, str], int] = {}
    for component, item in facts.items():
        for usage, used, limit in (
            (item.connections, CONNECTIONS, CONNECTIONS_LIMIT),
            (item.storage, STORAGE, STORAGE_LIMIT),
        ):
            if usage:
                found |= {(used, component): usage.used, (limit, component): usage.limit}
    _rows.setdefault((namespace, stack), {})
    for metric, component in _usages.get((namespace, stack), set()) - found.keys():
        metric.remove(namespace, stack, component)
    for (metric, component), value in found.items():
        metric.labels(namespace, stack, component).set(value)
    _usages[namespace, stack] = set(found)


def set_probes(namespace: str, stack: str, probes: Sequence[StackProbe]) -> None:
    """Record what the ended `probes` of a stack measured, of each check the newest; all else goes away.

    What counts for no objective counts for no alert: `Saturating` load, and what was inconclusive.
    """
    ended = sorted(
        (probe.status for probe in probes if probe.status.completion_time and probe.spec.load == "Paced"),
        key=lambda status: status.completion_time or "",
    )
    found: dict[tuple[Gauge, tuple[str, ...]], float] = {}
    for status in ended:
        for check in status.checks:
            found |= _figures_of(check)
        for row in status.components:
            if row.memory_growth_bytes is not None:
                found[PROBE_GROWTH, (row.name,)] = row.memory_growth_bytes
        if status.phase == "Successful" and status.completion_time:
            found[PROBED_AT, ()] = datetime.fromisoformat(status.completion_time).timestamp()
    _replace(_probed, (namespace, stack), found)
    if not probes:
        _probed.pop((namespace, stack))


def set_backups(
    namespace: str,
    stack: str,
    copies: Mapping[str, CopyStatus],
    proofs: Mapping[str, RestoredStatus] | None = None,
) -> None:
    """Record the newest good copy of each component of a stack, and the newest proof; all else goes away."""
    found: dict[tuple[Gauge, tuple[str, ...]], float] = {}
    for name, row in copies.items():
        if not (row.point_in_time and row.start_time and row.completion_time):
            continue
        began, ended = datetime.fromisoformat(row.start_time), datetime.fromisoformat(row.completion_time)
        found |= {
            (BACKED_UP_AT, (name,)): datetime.fromisoformat(row.point_in_time).timestamp(),
            (BACKUP_BYTES, (name,)): row.bytes or 0,
            (BACKUP_STORED, (name,)): row.stored_bytes or 0,
            (BACKUP_SECONDS, (name,)): (ended - began).total_seconds(),
        }
    for name, proof in (proofs or {}).items():
        if not (proof.point_in_time and proof.start_time and proof.completion_time):
            continue
        began, ended = datetime.fromisoformat(proof.start_time), datetime.fromisoformat(proof.completion_time)
        found |= {
            (VERIFIED_AT, (name,)): ended.timestamp(),
            (VERIFIED_POINT, (name,)): datetime.fromisoformat(proof.point_in_time).timestamp(),
            (VERIFY_SECONDS, (name,)): (ended - began).total_seconds(),
        }
    _replace(_backed_up, (namespace, stack), found)
    if not found:
        _backed_up.pop((namespace, stack))


def backed_up_stacks() -> frozenset[tuple[str, str]]:
    """Namespace and name of every stack that has good copies."""
    return frozenset(_backed_up)


def _replace(
    known: dict[tuple[str, str], set[tuple[Gauge, tuple[str, ...]]]],
    stack: tuple[str, str],
    found: Mapping[tuple[Gauge, tuple[str, ...]], float],
) -> None:
    """Set the series of a stack, and take away those that it had and has no more."""
    for metric, labels in known.get(stack, set()) - found.keys():
        metric.remove(*stack, *labels)
    for (metric, labels), value in found.items():
        metric.labels(*stack, *labels).set(value)
    known[stack] = set(found)


def _figures_of(check: CheckStatus) -> dict[tuple[Gauge, tuple[str, ...]], float]:
    """The series of one check that says something of its engine."""
    asked = check.errors + check.operations
    if check.phase in {"Inconclusive", "Error"} or not asked:
        return {}
    found: dict[tuple[Gauge, tuple[str, ...]], float] = {
        (PROBE_ERRORS, (check.name,)): check.errors / asked,
        (PROBE_RATE, (check.name,)): check.operations * 1000 / max(check.elapsed_milliseconds, 1),
    }
    if latency := check.latency:
        for quantile, value in (
            ("0.5", latency.p50_microseconds),
            ("0.95", latency.p95_microseconds),
            ("0.99", latency.p99_microseconds),
            ("1", latency.max_microseconds),
        ):
            found[PROBE_LATENCY, (check.name, quantile)] = value / 1e6
    return found


def probed_stacks() -> frozenset[tuple[str, str]]:
    """Namespace and name of every stack that has probes."""
    return frozenset(_probed)


def set_failing(namespace: str, stack: str, *, failing: bool) -> None:
    """Record whether the last look at a stack failed. One that succeeded and found no stack leaves nothing."""
    if failing:
        _rows.setdefault((namespace, stack), {})
    if (namespace, stack) in _rows:
        RECONCILE_FAILING.labels(namespace, stack).set(failing)


def remove_stack(namespace: str, stack: str) -> None:
    """Remove every series of a deleted stack. A stack without any is fine."""
    for known in (_rows, _gates, _usages, _objectives):
        known.pop((namespace, stack), None)
    for metric in (*_PRESENT, ROLLBACKS, PROBES, BACKUPS, RESTORES):
        metric.remove_by_labels({"namespace": namespace, "stack": stack})


def stacks() -> frozenset[tuple[str, str]]:
    """Namespace and name of every stack that has series."""
    return frozenset(_rows)


def register_process(version: str) -> None:
    """Add the version and the standard process metrics (memory, CPU, open files). Call once, at start."""
    INFO.info({"version": version})
    ProcessCollector(registry=REGISTRY)


def table() -> list[tuple[str, str, tuple[str, ...], str]]:
    """Name as scraped, type, labels and help of every metric of ours, in order of declaration."""
    rows = []
    for metric in _DESCRIBED:
        (family,) = metric.describe()
        suffix = {"counter": "_total", "info": "_info"}.get(family.type, "")
        labels = ("version",) if metric is INFO else tuple(metric._labelnames)  # noqa: SLF001 no other way
        rows.append((family.name + suffix, family.type, labels, family.documentation))
    return rows
