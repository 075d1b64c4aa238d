"""What a probe's Job says when it ends: figures, small enough for a container's termination message.

The one form that both sides know: the runner encodes, the operator decodes and judges.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from cos_controllers.api.probe import CheckStatus, Latency, ProbePhase, UsageStatus

#: Bytes of a termination message that Kubernetes keeps.
LIMIT = 4096
#: Characters of each message at first; shorter ones until all fits.
_MESSAGE_LENGTHS = (160, 60, 20, 0)

#: The share of a core that a prober of one process can hardly exceed: one that took it was itself what was slow.
_CPU_SHARE = 0.8
#: Fewer requests than this say nothing of a 95th percentile.
FEWEST = 20
#: The prober's own lateness, at its 95th percentile, that says nothing of the engine: below the first, microseconds, or
#: below a share of what was measured.
_LATE_MICROSECONDS = 2000
_LATE_SHARE = 0.25

#: The worst first: what a probe of several checks ends in.
_WORST = (ProbePhase.FAILED, ProbePhase.ERROR, ProbePhase.INCONCLUSIVE)


class UnreadableReport(ValueError):
    """It is not a report."""


class Percentiles(NamedTuple):
    """Microseconds."""

    p50: int
    p95: int
    p99: int
    max: int


@dataclass(frozen=True)
class Figures:
    """One check. `name`: see `checks.Check.name`.

    `broken`: why it could not run, "" if it did; then `message` is the first error, if any. `latency` is counted from
    when requests were due, `service` from when they were sent; None if none was answered. `lag`: how late the
    prober itself was at the 95th percentile, in microseconds. Times are milliseconds.
    """

    name: str
    broken: str = ""
    latency: Percentiles | None = None
    service: Percentiles | None = None
    operations: int = 0
    errors: int = 0
    missed: int = 0
    elapsed: int = 0
    client_cpu: int = 0
    lag: int = 0
    message: str = ""


@dataclass(frozen=True)
class Taken:
    """What a component took: see `api.probe.UsageStatus`."""

    component: str
    cpu: int | None = None
    memory_growth: int | None = None
    connections: int | None = None
    connections_limit: int | None = None


@dataclass(frozen=True)
class Report:
    """All of one run. `cpu`: of the prober from its start on, in milliseconds."""

    figures: tuple[Figures, ...] = ()
    taken: tuple[Taken, ...] = ()
    cpu: int = 0


def encode(report: Report) -> str:
    """The report in ASCII, at most `LIMIT` bytes: messages are shortened until it fits.

    Raises `ValueError` if it does not fit without any, which needs more checks than a probe may have.
    """
    for length in _MESSAGE_LENGTHS:
        text = _encoded(report, length)
        if len(text) <= LIMIT:
            return text
    raise ValueError(f"a report of {len(report.figures)} checks takes {len(text)} bytes, more than {LIMIT}")


def decode(text: str) -> Report:
    """The report that `encode` wrote. Raises `UnreadableReport`."""
    try:
        data = json.loads(text)
        taken = tuple(Taken(*row) for row in data["t"])
        return Report(tuple(map(_figures, data["f"])), taken, int(data["c"]))
    except (ValueError, TypeError, KeyError, IndexError) as error:
        raise UnreadableReport(str(error)) from error


def _encoded(report: Report, length: int) -> str:
    def short(text: str) -> str:
        return text if len(text) <= length else text[:length]

    rows = [
        [
            item.name,
            short(item.broken) or " " if item.broken else "",
            item.latency,
            item.service,
            item.operations,
            item.errors,
            item.missed,
            item.elapsed,
            item.client_cpu,
            item.lag,
            short(item.message),
        ]
        for item in report.figures
    ]
    taken = [
        [item.component, item.cpu, item.memory_growth, item.connections, item.connections_limit]
        for item in report.taken
    ]
    return json.dumps({"f": rows, "t": taken, "c": report.cpu}, separators=(",", ":"), ensure_ascii=True)


def _figures(row: Sequence[Any]) -> Figures:
    name, broken, latency, service, *rest = row
    return Figures(name, broken, _percentiles(latency), _percentiles(service), *rest)


def _percentiles(row: Sequence[int] | None) -> Percentiles | None:
    return Percentiles(*map(int, row)) if row is not None else None


def judged(item: Figures) -> CheckStatus:
    """The row of a check, with what its figures are worth."""
    phase, message = _judgement(item)
    return CheckStatus(
        name=item.name,
        phase=phase,
        message=message,
        latency=_latency(item.latency),
        service_time=_latency(item.service),
        operations=item.operations,
        errors=item.errors,
        missed=item.missed,
        per_second=round(item.operations * 1000 / item.elapsed) if item.elapsed else 0,
        elapsed_milliseconds=item.elapsed,
        client_cpu_milliseconds=item.client_cpu,
    )


def _judgement(item: Figures) -> tuple[ProbePhase, str]:
    failed = f"{item.errors} of {item.operations + item.errors} requests failed: {item.message}"
    if item.broken:
        return ProbePhase.ERROR, item.broken.strip() or "it could not run"
    if not item.operations:
        return ProbePhase.FAILED, failed if item.errors else "no request was answered within the time"
    if doubt := _doubt(item):
        return ProbePhase.INCONCLUSIVE, doubt
    if item.errors:
        return ProbePhase.SUCCESSFUL, failed
    if item.missed:
        return (
            ProbePhase.SUCCESSFUL,
            f"{item.missed} requests were due and not sent: the engine did not keep up",
        )
    return ProbePhase.SUCCESSFUL, ""


def _doubt(item: Figures) -> str:
    """Why the figures say nothing of the engine; "" if they do."""
    asked = item.operations + item.errors + item.missed
    if item.latency is None or asked < FEWEST:
        return f"{asked} requests are too few: {FEWEST} are needed"
    if item.missed and item.client_cpu >= _CPU_SHARE * item.elapsed:
        return (
            "the prober itself had too little CPU for its requests: give its Job more, or its node less to do"
        )
    if item.lag > max(_LATE_MICROSECONDS, _LATE_SHARE * item.latency.p95):
        return (
            f"the prober itself was late by {item.lag / 1000:g} ms at the 95th percentile: give its Job more CPU, or "
            "its node less to do"
        )
    return ""


def _latency(found: Percentiles | None) -> Latency | None:
    if found is None:
        return None
    return Latency(
        p50_microseconds=found.p50,
        p95_microseconds=found.p95,
        p99_microseconds=found.p99,
        max_microseconds=found.max,
    )


def usage(item: Taken, revision: str) -> UsageStatus:
    """The row of a component."""
    return UsageStatus(
        name=item.component,
        revision=revision,
        cpu_milliseconds=item.cpu,
        memory_growth_bytes=item.memory_growth,
        connections=item.connections,
        connections_limit=item.connections_limit,
    )


def worst(phases: Iterable[ProbePhase]) -> ProbePhase:
    """What a probe of checks in these phases ended in. Nothing at all is an Error: it measured nothing."""
    found = set(phases)
    if not found:
        return ProbePhase.ERROR
    return next((phase for phase in _WORST if phase in found), ProbePhase.SUCCESSFUL)
