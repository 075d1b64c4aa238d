"""The operator's Prometheus metrics: names, labels, help. The table in the docs is generated from here."""

from __future__ import annotations

from collections.abc import Mapping

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Info, ProcessCollector

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
WATCH_RESTARTS = Counter(
    "cos_operator_watch_restarts_total",
    "Times that the watches ended and were started again.",
    registry=REGISTRY,
)
EVENTS_RECEIVED = Counter(
    "cos_operator_events_received_total",
    "Watch events received, by kind; the first listing of an object counts as one.",
    ("kind",),
    registry=REGISTRY,
)
STACK_READY = Gauge(
    "cos_stack_ready",
    "1 while the stack's condition Ready is True, else 0.",
    ("namespace", "stack"),
    registry=REGISTRY,
)
COMPONENT_READY = Gauge(
    "cos_stack_component_ready",
    "1 while the component answers its own protocol, else 0.",
    ("namespace", "stack", "component"),
    registry=REGISTRY,
)

ROLLBACKS = Counter(
    "cos_stack_rollbacks_total",
    "Changes of a component that did not serve in time and were taken back.",
    ("namespace", "stack", "component"),
    registry=REGISTRY,
)

_DESCRIBED = (
    INFO,
    LEADER,
    QUEUE_DEPTH,
    RECONCILE_SECONDS,
    RECONCILES,
    API_REQUESTS,
    API_SECONDS,
    WATCH_RESTARTS,
    EVENTS_RECEIVED,
    STACK_READY,
    COMPONENT_READY,
    ROLLBACKS,
)

#: Components with a series, by namespace and stack: what `set_stack` and `remove_stack` must take away.
_components: dict[tuple[str, str], set[str]] = {}


def set_stack(namespace: str, stack: str, *, ready: bool, components: Mapping[str, bool]) -> None:
    """Record the readiness of a stack and all its components; series of components it lost go away."""
    STACK_READY.labels(namespace, stack).set(ready)
    for gone in _components.get((namespace, stack), set()) - set(components):
        COMPONENT_READY.remove(namespace, stack, gone)
    for component, component_ready in components.items():
        COMPONENT_READY.labels(namespace, stack, component).set(component_ready)
    _components[namespace, stack] = set(components)


def remove_stack(namespace: str, stack: str) -> None:
    """Remove every series of a deleted stack. A stack without any is fine."""
    known = _components.pop((namespace, stack), None)
    if known is None:
        return
    STACK_READY.remove(namespace, stack)
    for component in known:
        COMPONENT_READY.remove(namespace, stack, component)
    ROLLBACKS.remove_by_labels({"namespace": namespace, "stack": stack})


def stacks() -> frozenset[tuple[str, str]]:
    """Namespace and name of every stack that has series."""
    return frozenset(_components)


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
