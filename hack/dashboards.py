"""Grafana dashboards of the operator and of stacks, as the JSON that Grafana imports.

Schema: Grafana's "Dashboard JSON model", version 39 (Grafana 10.4 on).
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

FOLDER = Path("charts/cos-operator/files/dashboards")
#: Grafana's grid is so many columns wide.
_COLUMNS = 24
_PROMETHEUS = {"type": "prometheus", "uid": "${datasource}"}
_STACK = 'namespace=~"$namespace",stack=~"$stack"'
_WORDS = {
    "1": ("yes", "green"),
    "0": ("no", "red"),
    "-1": ("not known", "orange"),
}


class Panel(NamedTuple):
    """`queries`: legend and expression of each. `words`: what values stand for. `limits`: warning and critical."""

    title: str
    queries: Sequence[tuple[str, str]]
    says: str
    kind: str = "timeseries"
    unit: str = "short"
    width: int = 12
    height: int = 8
    words: Mapping[str, tuple[str, str]] = {}
    limits: tuple[float, float] | None = None


def _of_stacks(metric: str, *labels: str, only: str = "") -> str:
    """A gauge of the chosen stacks, whichever process tells of it."""
    kept = ", ".join(("namespace", "stack", *labels))
    return f"max by ({kept}) ({metric}{{{_STACK}{only}}})"


def _share(used: str, limit: str) -> str:
    return f"{_of_stacks(used, 'component')} / {_of_stacks(limit, 'component')}"


def _rate(metric: str, *labels: str, only: str = "") -> str:
    return f"sum by ({', '.join(labels)}) (rate({metric}{{{only}}}[5m]))"


def _quantile(quantile: float, metric: str, *labels: str) -> str:
    return f"histogram_quantile({quantile}, {_rate(f'{metric}_bucket', 'le', *labels)})"


STACK = (
    Panel(
        "Stacks",
        [
            (
                "{{namespace}}/{{stack}} {{type}}",
                _of_stacks("cos_stack_condition", "type", only=',type!~"Stalled|Reconciling"'),
            )
        ],
        "Conditions of each stack. GatesPassed decides neither of the others.",
        kind="state-timeline",
        words=_WORDS,
        width=24,
    ),
    Panel(
        "Components that serve",
        [("{{stack}} {{component}}", _of_stacks("cos_stack_component_serving", "component"))],
        "Whether a component answers its own protocol, perhaps with an earlier configuration.",
        kind="state-timeline",
        words=_WORDS,
        height=10,
    ),
    Panel(
        "Gates that do not pass",
        [
            (
                "{{stack}} {{component}} {{gate}}",
                f"{_of_stacks('cos_stack_gate', 'component', 'gate')} < 1",
            )
        ],
        "None: all pass.",
        kind="state-timeline",
        words=_WORDS,
        height=10,
    ),
    Panel(
        "Connections taken",
        [("{{stack}} {{component}}", _share("cos_stack_connections", "cos_stack_connections_limit"))],
        "Share of the connections that applications may have. Alerts at 70 and 80 %.",
        unit="percentunit",
        limits=(0.7, 0.8),
    ),
    Panel(
        "Volume taken",
        [
            (
                "{{stack}} {{component}}",
                _share("cos_stack_storage_used_bytes", "cos_stack_storage_limit_bytes"),
            )
        ],
        "Share of the volume, as far as the engine knows. Alerts at 70 and 80 %.",
        unit="percentunit",
        limits=(0.7, 0.8),
    ),
    Panel(
        "Reasons",
        [
            (
                "{{stack}} {{component}}: {{reason}}",
                _of_stacks("cos_stack_component_reason", "component", "reason", only=',reason!="Serving"'),
            )
        ],
        "Why components are as they are, those left out that serve what the spec asks for.",
        kind="state-timeline",
        words={"1": ("so", "orange")},
    ),
    Panel(
        "Changes taken back",
        [
            (
                "{{stack}} {{component}}",
                f"sum by (namespace, stack, component) (increase(cos_stack_rollbacks_total{{{_STACK}}}[1h]))",
            )
        ],
        "Changes that did not serve in time, in the hour before.",
    ),
    Panel(
        "Objectives",
        [("{{stack}} {{objective}}", _of_stacks("cos_stack_objective", "objective"))],
        "Whether each objective of `spec.slo` is met, by the newest measurements.",
        kind="state-timeline",
        words=_WORDS,
    ),
    Panel(
        "Latency by probes, p95",
        [("{{stack}} {{check}}", _of_stacks("cos_probe_latency_seconds", "check", only=',quantile="0.95"'))],
        "From when a request was due to its answer, by the newest probe.",
        unit="s",
    ),
    Panel(
        "Requests a second by probes",
        [("{{stack}} {{check}}", _of_stacks("cos_probe_operations_per_second", "check"))],
        "That succeeded, by the newest probe, which makes a fixed number unless its load is Saturating.",
        unit="ops",
    ),
    Panel(
        "Requests of probes that fail",
        [("{{stack}} {{check}}", _of_stacks("cos_probe_error_ratio", "check"))],
        "By the newest probe. Alert at 3 %.",
        unit="percentunit",
    ),
    Panel(
        "Memory growth during a probe",
        [("{{stack}} {{component}}", _of_stacks("cos_probe_memory_growth_bytes", "component"))],
        "By the engine's own account; alert of Redis at 75 MB.",
        unit="bytes",
    ),
    Panel(
        "Probes that ended",
        [
            (
                "{{stack}} {{phase}}",
                f"sum by (namespace, stack, phase) (increase(cos_probe_runs_total{{{_STACK}}}[1h]))",
            )
        ],
        "By how they ended, in the hour before.",
    ),
    Panel(
        "Since the last good probe",
        [("{{stack}}", f"time() - {_of_stacks('cos_probe_completion_timestamp_seconds')}")],
        "Of those that measured everything.",
        unit="s",
    ),
    Panel(
        "Age of the newest good copy",
        [
            (
                "{{stack}} {{component}}",
                f"time() - {_of_stacks('cos_backup_point_timestamp_seconds', 'component')}",
            )
        ],
        "What would be lost if the volume were lost now.",
        unit="s",
    ),
    Panel(
        "Backups and restores that ended",
        [
            (
                "{{stack}} {{phase}}",
                f"sum by (namespace, stack, phase) (increase(cos_backup_runs_total{{{_STACK}}}[1h]))",
            ),
            (
                "{{stack}} restore {{phase}}",
                f"sum by (namespace, stack, phase) (increase(cos_restore_runs_total{{{_STACK}}}[1h]))",
            ),
        ],
        "By how they ended, in the hour before.",
    ),
    Panel(
        "Size of the newest good copy",
        [
            ("{{stack}} {{component}} data", _of_stacks("cos_backup_bytes", "component")),
            ("{{stack}} {{component}} stored", _of_stacks("cos_backup_stored_bytes", "component")),
        ],
        "Of the data, and of what it added to the repository.",
        unit="bytes",
    ),
    Panel(
        "Duration of the newest good copy",
        [("{{stack}} {{component}}", _of_stacks("cos_backup_duration_seconds", "component"))],
        "From the start of its Job until it was stored.",
        unit="s",
    ),
    Panel(
        "Since copies were last proved",
        [
            (
                "{{stack}} {{component}}",
                f"time() - {_of_stacks('cos_backup_verified_timestamp_seconds', 'component')}",
            ),
            (
                "{{stack}} {{component}} data",
                f"time() - {_of_stacks('cos_backup_verified_point_timestamp_seconds', 'component')}",
            ),
        ],
        "By a restore onto a volume that was thrown away; and how old its data is.",
        unit="s",
    ),
    Panel(
        "Duration of a restore",
        [("{{stack}} {{component}}", _of_stacks("cos_backup_verification_duration_seconds", "component"))],
        "Of the newest that was made for proof, until the engine was proved on it.",
        unit="s",
    ),
)

OPERATOR = (
    Panel(
        "Leads",
        [("leader", "max(cos_operator_leader)")],
        "Whether any operator leads.",
        kind="stat",
        words=_WORDS,
        width=4,
        height=4,
    ),
    Panel(
        "Version",
        [("{{version}}", "max by (version) (cos_operator_info)")],
        "Of every process that is scraped.",
        kind="stat",
        width=4,
        height=4,
    ),
    Panel(
        "Stacks whose looks fail",
        [("failing", "sum(cos_stack_reconcile_failing)")],
        "The last look at each ended in an error.",
        kind="stat",
        width=4,
        height=4,
        limits=(1, 5),
    ),
    Panel(
        "Stacks that wait for a worker",
        [("stacks", "sum(cos_operator_queue_depth)")],
        "Now and again some; for long, edits are served late.",
        height=4,
    ),
    Panel(
        "Looks a second",
        [("{{result}}", _rate("cos_operator_reconcile_total", "result"))],
        "How often stacks are looked at, by result.",
        unit="ops",
    ),
    Panel(
        "Duration of a look",
        [
            ("p50", _quantile(0.5, "cos_operator_reconcile_duration_seconds")),
            ("p99", _quantile(0.99, "cos_operator_reconcile_duration_seconds")),
        ],
        "All results together.",
        unit="s",
    ),
    Panel(
        "API requests a second",
        [("{{verb}} {{kind}}", _rate("cos_operator_api_requests_total", "verb", "kind"))],
        "What the operator asks of the API server.",
        unit="ops",
    ),
    Panel(
        "API requests that fail",
        [
            (
                "{{verb}} {{kind}} {{code}}",
                _rate(
                    "cos_operator_api_requests_total",
                    *("verb", "kind", "code"),
                    only='code=~"4..|5..|unreachable"',
                ),
            )
        ],
        "404 and 409 are part of the work; 403 is a missing right, 429 a limit of the API server.",
        unit="ops",
    ),
    Panel(
        "Duration of an API request, p99",
        [("{{verb}}", _quantile(0.99, "cos_operator_api_request_duration_seconds", "verb"))],
        "Watches aside.",
        unit="s",
    ),
    Panel(
        "Watch events a second",
        [
            ("{{kind}}", _rate("cos_operator_events_received_total", "kind")),
            ("restarts of the watches", "sum(rate(cos_operator_watch_restarts_total[5m]))"),
        ],
        "What the API server tells of, and how often the watches had to be started again.",
        unit="ops",
    ),
    Panel(
        "Memory",
        [("{{instance}}", 'process_resident_memory_bytes{job="$job"}')],
        "Of each process.",
        unit="bytes",
    ),
    Panel(
        "CPU",
        [("{{instance}}", 'rate(process_cpu_seconds_total{job="$job"}[5m])')],
        "Cores taken by each process.",
    ),
)


def dashboards() -> Iterator[tuple[Path, str]]:
    """Each dashboard's file and content."""
    stack = [
        _variable("namespace", "label_values(cos_stack_condition, namespace)"),
        _variable("stack", 'label_values(cos_stack_condition{namespace=~"$namespace"}, stack)'),
    ]
    yield from (
        _file("cos-stacks", "COS stacks", STACK, stack),
        _file(
            "cos-operator",
            "COS operator",
            OPERATOR,
            [_variable("job", "label_values(cos_operator_leader, job)", several=False)],
        ),
    )


def _file(
    name: str, title: str, panels: Sequence[Panel], variables: list[dict[str, Any]]
) -> tuple[Path, str]:
    datasource = {"name": "datasource", "label": "Prometheus", "type": "datasource", "query": "prometheus"}
    content = {
        "uid": name,
        "title": title,
        "tags": ["cos-operator"],
        "schemaVersion": 39,
        "editable": True,
        "graphTooltip": 1,
        "refresh": "30s",
        "time": {"from": "now-3h", "to": "now"},
        "timezone": "browser",
        "templating": {"list": [datasource, *variables]},
        "panels": list(_placed(panels)),
    }
    return FOLDER / f"{name}.json", json.dumps(content, indent=1, ensure_ascii=False) + "\n"


def _variable(name: str, query: str, *, several: bool = True) -> dict[str, Any]:
    return {
        "name": name,
        "type": "query",
        "datasource": _PROMETHEUS,
        "query": {"query": query, "refId": name},
        "definition": query,
        "refresh": 2,
        "sort": 1,
        "includeAll": several,
        "multi": several,
        **({"allValue": ".*", "current": {"text": "All", "value": "$__all"}} if several else {}),
    }


def _placed(panels: Sequence[Panel]) -> Iterator[dict[str, Any]]:
    """From left to right, from top to bottom."""
    x, y, row = 0, 0, 0
    for number, panel in enumerate(panels, 1):
        if x + panel.width > _COLUMNS:
            x, y, row = 0, y + row, 0
        yield _panel(panel, number, {"x": x, "y": y, "w": panel.width, "h": panel.height})
        x, row = x + panel.width, max(row, panel.height)


def _panel(panel: Panel, number: int, place: dict[str, int]) -> dict[str, Any]:
    defaults: dict[str, Any] = {"unit": panel.unit, "min": 0 if not panel.words else None}
    if panel.words:
        options = {value: {"text": text, "color": color} for value, (text, color) in panel.words.items()}
        defaults["mappings"] = [{"type": "value", "options": options}]
    if panel.limits:
        steps = zip(("green", "orange", "red"), (None, *panel.limits), strict=True)
        defaults["thresholds"] = {
            "mode": "absolute",
            "steps": [{"color": color, "value": value} for color, value in steps],
        }
        defaults["custom"] = {"thresholdsStyle": {"mode": "line"}}
    names = {"textMode": "name"} if panel.title == "Version" else {}
    return {
        "id": number,
        "title": panel.title,
        "description": panel.says,
        "type": panel.kind,
        "datasource": _PROMETHEUS,
        "gridPos": place,
        "fieldConfig": {"defaults": {k: v for k, v in defaults.items() if v is not None}, "overrides": []},
        "options": {"reduceOptions": {"calcs": ["lastNotNull"]}, **names} if panel.kind == "stat" else {},
        "targets": [
            {"refId": chr(ord("A") + index), "datasource": _PROMETHEUS, "expr": expr, "legendFormat": legend}
            for index, (legend, expr) in enumerate(panel.queries)
        ],
    }
