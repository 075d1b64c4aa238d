"""Whether a stack reaches what it is to reach, by the probes that it has.

N of M: an objective is missed while so many of the newest measurements miss its bound, and met again as soon as they
have left the window. Argo Rollouts' `failureLimit` counts over a run that ends; here nothing ends, and an objective
would never recover. Its `inconclusiveLimit` and `consecutiveErrorLimit` are those of Argo (exceeded at `>`), counted
since the newest measurement.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import StrEnum
from typing import NamedTuple

from cos_controllers.api.probe import MAX_ROUTES, CheckStatus, Load, ProbePhase, ProbeSettings, StackProbe
from cos_controllers.api.quantity import parse_quantity
from cos_controllers.api.slo import DURATIONS, Figure, Objective
from cos_controllers.api.stack import CosStack, CosStackSpec, Route
from cos_controllers.api.status import Verdict
from cos_controllers.comparison import FEWEST_RUNS, MOST_RUNS, compare

#: Of a stack that is probed by the clock: so many turns without a measurement, and nothing is known any more.
_STALE_TURNS = 3
#: For an engine that answered nothing: microseconds, more than any request takes.
_NO_ANSWER = 1e12
_MICROSECONDS = {"us": 1, "ms": 1000, "s": 1_000_000}
_PERCENTILES = {
    Figure.P50: "p50_microseconds",
    Figure.P95: "p95_microseconds",
    Figure.P99: "p99_microseconds",
    Figure.MAX: "max_microseconds",
}


class _Kind(StrEnum):
    MET = "met"
    MISSED = "missed"
    INCONCLUSIVE = "inconclusive"
    ERROR = "error"


class _Sample(NamedTuple):
    """What one probe says of an objective: `value` in the figure's unit, None if it has none; `why` in words."""

    kind: _Kind
    probe: StackProbe
    value: float | None = None
    why: str = ""


@dataclass(frozen=True)
class Row:
    """What is said of an objective. `measured` is the newest figure in words, of the probe `probe`.

    `wanted`: how many measurements of what runs would decide it; 0 if it is decided.
    """

    objective: Objective
    verdict: Verdict
    message: str = ""
    measured: str = ""
    probe: str = ""
    failures: int = 0
    measurements: int = 0
    wanted: int = 0


def objectives_of(stack: CosStack) -> list[Objective]:
    """Those of the spec, else those of a COS stack (the mission's figures) for the components that it has."""
    if stack.spec.slo is None:
        return []
    return stack.spec.slo.objectives or _of_the_mission(stack)


def _of_the_mission(stack: CosStack) -> list[Objective]:
    spec, found = stack.spec, []
    if spec.redis:
        found += [
            Objective(name="redis-latency", check="redis/Latency", figure=Figure.P95, at_most="10ms"),
            Objective(
                name="redis-messages", check="redis/Throughput", figure=Figure.PER_SECOND, at_least="1000"
            ),
            Objective(name="redis-pubsub", check="redis/PubSub", figure=Figure.P95, at_most="10ms"),
            Objective(name="redis-memory", check="redis", figure=Figure.MEMORY_GROWTH, at_most="100M"),
        ]
    for item in spec.postgres:
        check = f"postgres-{item.name}/Mixed"
        found += [
            Objective(
                name=f"postgres-{item.name}-operations", check=check, figure=Figure.PER_SECOND, at_least="20"
            ),
            Objective(name=f"postgres-{item.name}-latency", check=check, figure=Figure.P95, at_most="100ms"),
        ]
    for route in probed_routes(spec, spec.probes.template):
        check = f"traefik/Route/{route.name}"
        found += [
            Objective(
                name=f"route-{route.name}-requests", check=check, figure=Figure.PER_SECOND, at_least="50"
            ),
            Objective(name=f"route-{route.name}-latency", check=check, figure=Figure.P95, at_most="500ms"),
        ]
    return [*found, Objective(name="errors", figure=Figure.ERROR_PERCENT, at_most="3%")]


def probed_routes(stack: CosStackSpec, settings: ProbeSettings) -> list[Route]:
    """The routes that a probe tries: those named, else the first to a component, of which nobody minds the requests."""
    routes = stack.traefik.routes if stack.traefik else []
    if settings.routes:
        return [route for route in routes if route.name in settings.routes]
    return [route for route in routes if route.component][:MAX_ROUTES]


def runs_of(objective: Objective) -> int:
    """How many measurements it is judged by at most."""
    return 2 * MOST_RUNS if objective.max_regression else objective.window.measurements


def measured_of(stack: CosStack, probes: Iterable[StackProbe]) -> Iterator[StackProbe]:
    """Those that have started on this very stack: one of its name that was deleted may have left some."""
    created = stack.metadata.creation_timestamp
    return (probe for probe in probes if probe.status.start_time and probe.status.start_time >= created)


def judge_objectives(stack: CosStack, probes: Sequence[StackProbe] | None, now: datetime) -> list[Row]:
    """A row for each objective. `probes`: the stack's, in any order; those with `Saturating` load do not count."""
    if probes is None:
        unread = "its probes cannot be read: see the operator's log"
        return [Row(objective, Verdict.UNKNOWN, unread) for objective in objectives_of(stack)]
    ended = _ended(stack, probes)
    return [_row(stack, objective, ended, now) for objective in objectives_of(stack)]


def _ended(stack: CosStack, probes: Iterable[StackProbe]) -> list[StackProbe]:
    """The probes that count, newest first."""
    return sorted(
        (
            probe
            for probe in measured_of(stack, probes)
            if probe.status.completion_time and probe.spec.load is Load.PACED
        ),
        key=lambda probe: (probe.status.completion_time or "", probe.metadata.name),
        reverse=True,
    )


def broken_by(
    stack: CosStack, component: str, revision: str, probes: Sequence[StackProbe], now: datetime
) -> Row | None:
    """The objective of a component that its present `revision` breaks; None if none does, or nobody knows.

    With it the objective was missed as often as its window allows no more, and never met; before it, it was met. What
    was met with this revision once has another cause; of what was never met nobody knows. A comparison says so itself.
    """
    ended = _ended(stack, probes)
    for objective in objectives_of(stack):
        if objective.dry_run or objective.check.partition("/")[0] != component:
            continue
        row, samples = _row(stack, objective, ended, now), _conclusive(_samples(objective, ended))
        present = [sample.kind for sample in samples if _revision(sample.probe, component) == revision]
        if objective.max_regression:
            if (
                row.verdict is Verdict.FAILED
                and samples
                and _revision(samples[0].probe, component) == revision
            ):
                return row
            continue
        before = next((s.kind for s in samples if _revision(s.probe, component) not in {revision, ""}), None)
        broken = len(present) >= objective.window.failures and set(present) == {_Kind.MISSED}
        if row.verdict is Verdict.FAILED and broken and before is _Kind.MET:
            return row
    return None


def _revision(probe: StackProbe, component: str) -> str:
    """Which revision of a component a probe measured."""
    return next((row.revision for row in probe.status.components if row.name == component), "")


def _samples(objective: Objective, probes: Sequence[StackProbe]) -> list[_Sample]:
    """What probes say of an objective, those left out of which it was no part."""
    return [sample for probe in probes if (sample := _sample(objective, probe))]


def _conclusive(samples: Sequence[_Sample]) -> list[_Sample]:
    """Those that are measurements."""
    return [sample for sample in samples if sample.kind in {_Kind.MET, _Kind.MISSED}]


def _row(stack: CosStack, objective: Objective, probes: Sequence[StackProbe], now: datetime) -> Row:
    """`probes` newest first."""
    samples = _samples(objective, probes)
    conclusive = _conclusive(samples)
    since = samples[: samples.index(conclusive[0])] if conclusive else samples
    newest = conclusive[0] if conclusive else None
    row = Row(
        objective,
        Verdict.PASSED,
        measured=in_words(objective.figure, newest.value) if newest else "",
        probe=newest.probe.metadata.name if newest else "",
    )
    row = (_compared if objective.max_regression else _counted)(row, conclusive)
    doubt = _doubt(stack, objective, since, newest, now)
    if doubt and row.verdict is not Verdict.FAILED:
        return replace(row, verdict=Verdict.UNKNOWN, message=doubt)
    return row


def _counted(row: Row, samples: Sequence[_Sample]) -> Row:
    """Judged by how many of the newest samples miss a bound."""
    objective = row.objective
    window = samples[: objective.window.measurements]
    missed = [sample for sample in window if sample.kind is _Kind.MISSED]
    row = replace(row, failures=len(missed), measurements=len(window))
    if not missed:
        return row
    message = _why_missed(row, missed[0])
    if len(missed) >= objective.window.failures:
        return replace(row, verdict=Verdict.FAILED, message=message)
    row = replace(row, wanted=objective.window.measurements)
    if len(missed) == len(window):
        return replace(row, verdict=Verdict.UNKNOWN, message=f"{message}; {objective.window.failures} decide")
    return row


def _compared(row: Row, samples: Sequence[_Sample]) -> Row:
    """Judged by how samples of the revision that runs stand to those of the one before it.

    Without enough of that one there is nothing that it could be worse than: it becomes the measure of what follows.
    """
    objective = row.objective
    component = objective.check.partition("/")[0]
    runs = [(revision, sample) for sample in samples if (revision := _revision(sample.probe, component))]
    present = next((revision for revision, _ in runs), "")
    earlier = next((revision for revision, _ in runs if revision != present), "")
    before, after = (
        [_comparable(objective, sample) for revision, sample in runs if revision == of][:MOST_RUNS]
        for of in (earlier, present)
    )
    row = replace(row, measurements=len(after))
    if len(before) < FEWEST_RUNS:
        measured = f"{row.measured}, nothing to compare with" if row.measured else ""
        return replace(row, measured=measured, wanted=FEWEST_RUNS if len(after) < FEWEST_RUNS else 0)
    undecided = replace(row, verdict=Verdict.UNKNOWN, wanted=MOST_RUNS if len(after) < MOST_RUNS else 0)
    if len(after) < FEWEST_RUNS:
        told = (
            f"{len(after)} of {FEWEST_RUNS} measurements that are compared with those of revision {earlier}"
        )
        return replace(undecided, message=told)
    change = compare(before, after, more_is_worse=objective.figure is not Figure.PER_SECOND)
    told = (
        f"worse by {change.estimate:.0%} ({change.low:.0%} to {change.high:.0%}) than with revision {earlier}, where "
        f"runs differ by {change.noise:.0%}: {len(after)} against {len(before)} measurements"
    )
    verdict = change.verdict(amount(Figure.ERROR_PERCENT, objective.max_regression or "") / 100)
    if verdict is Verdict.UNKNOWN:
        return replace(undecided, message=f"{target(objective)} is not decided: {told}")
    if verdict is Verdict.FAILED:
        return replace(
            row, verdict=verdict, failures=len(after), message=f"{target(objective)} is missed: {told}"
        )
    return row


def _comparable(objective: Objective, sample: _Sample) -> float:
    """The figure of a sample, above zero; of an engine that answered nothing one that is worse than any."""
    worst = 1 / _NO_ANSWER if objective.figure is Figure.PER_SECOND else _NO_ANSWER
    return worst if sample.value is None else max(sample.value, 1 / _NO_ANSWER)


def _why_missed(row: Row, sample: _Sample) -> str:
    said = sample.why or f"it was {in_words(row.objective.figure, sample.value)}"
    return f"{target(row.objective)} is missed in {row.failures} of {row.measurements} measurements: {said}"


def _doubt(
    stack: CosStack, objective: Objective, since: Sequence[_Sample], newest: _Sample | None, now: datetime
) -> str:
    """Why it is not known whether the objective is met; "" if it is. `since`: what came after `newest`."""
    for kind, limit, what in (
        (_Kind.ERROR, objective.consecutive_error_limit, "could not run"),
        (_Kind.INCONCLUSIVE, objective.inconclusive_limit, "were inconclusive"),
    ):
        found = [sample for sample in since if sample.kind is kind]
        if len(found) > limit:
            return f"the last {len(found)} measurements {what}: {found[0].why}"
    if newest is None:
        return since[0].why if since else "not measured yet"
    interval = stack.spec.probes.interval_seconds
    ended = datetime.fromisoformat(newest.probe.status.completion_time or "")
    if interval and now - ended > timedelta(seconds=_STALE_TURNS * interval):
        return f"the newest measurement is of {newest.probe.status.completion_time}"
    return ""


def _sample(objective: Objective, probe: StackProbe) -> _Sample | None:
    """What a probe says of an objective; None if that was no part of it."""
    rows = [row for row in probe.status.checks if _is_of(objective, row)]
    if not rows:
        # One that broke down says of no check how it went.
        broken = probe.status.phase is ProbePhase.ERROR and not probe.status.checks
        return _Sample(_Kind.ERROR, probe, why=probe.status.message) if broken else None
    # The worst first: what answers nothing misses whatever is asked of it, however good the others are.
    for phase, kind in (
        (ProbePhase.FAILED, _Kind.MISSED),
        (ProbePhase.ERROR, _Kind.ERROR),
        (ProbePhase.INCONCLUSIVE, _Kind.INCONCLUSIVE),
    ):
        if row := next((row for row in rows if row.phase is phase), None):
            why = row.message if objective.check else f"{row.name}: {row.message}"
            return _Sample(kind, probe, why=why)
    if objective.figure is Figure.MEMORY_GROWTH:
        grown = _growth(objective, probe)
        return None if grown is None else _judged(objective, probe, grown)
    return _judged(objective, probe, max(_value(objective.figure, row) for row in rows))


def _is_of(objective: Objective, row: CheckStatus) -> bool:
    """Whether a check has a part in an objective."""
    if objective.figure is Figure.MEMORY_GROWTH:
        return row.name.partition("/")[0] == objective.check
    return not objective.check or row.name == objective.check


def _judged(objective: Objective, probe: StackProbe, value: float) -> _Sample:
    return _Sample(_Kind.MET if _holds(objective, value) else _Kind.MISSED, probe, value)


def _growth(objective: Objective, probe: StackProbe) -> float | None:
    """By how much the memory of a component grew; None if the engine does not say."""
    rows = (row for row in probe.status.components if row.name == objective.check)
    return next((row.memory_growth_bytes for row in rows if row.memory_growth_bytes is not None), None)


def _value(figure: Figure, row: CheckStatus) -> float:
    """The figure in its unit (microseconds, a second, percent) of a check that measured something."""
    if figure is Figure.ERROR_PERCENT:
        return 100 * row.errors / max(row.errors + row.operations, 1)
    if figure is Figure.PER_SECOND:
        return row.operations * 1000 / max(row.elapsed_milliseconds, 1)
    return float(getattr(row.latency, _PERCENTILES[figure]))


def _holds(objective: Objective, value: float) -> bool:
    """Whether the bound is kept; what is compared has none."""
    if objective.max_regression:
        return True
    bound = amount(objective.figure, objective.at_most or objective.at_least or "")
    return value <= bound if objective.at_most is not None else value >= bound


def amount(figure: Figure, text: str) -> float:
    """A bound as a number in the figure's unit. Raises `ValueError` for what the API refuses."""
    if figure in DURATIONS:
        number = text.rstrip("mus")
        return float(number) * _MICROSECONDS[text[len(number) :]]
    if figure is Figure.ERROR_PERCENT:
        return float(text.removesuffix("%"))
    return float(parse_quantity(text))


def target(objective: Objective) -> str:
    """An objective in words."""
    if objective.max_regression:
        bound = f"at most {objective.max_regression} worse than before"
    elif objective.at_most is not None:
        bound = f"at most {objective.at_most}"
    else:
        bound = f"at least {objective.at_least}"
    return " ".join(filter(None, (objective.check, objective.figure.value, bound)))


def in_words(figure: Figure, value: float | None) -> str:
    """A figure with its unit, three digits."""
    if value is None:
        return "not measured"
    if figure in DURATIONS:
        unit, factor = next(
            (u, f) for u, f in (("s", 1e6), ("ms", 1e3), ("us", 1)) if value >= f or u == "us"
        )
        return f"{_digits(value / factor)}{unit}"
    if figure is Figure.ERROR_PERCENT:
        return f"{_digits(value)}%"
    if figure is Figure.MEMORY_GROWTH:
        return f"{_digits(value / 1e6)}M"
    return _digits(value)


def _digits(value: float) -> str:
    """Three significant digits, all of those before the point."""
    if not value:
        return "0"
    decimals = max(0, 2 - math.floor(math.log10(abs(value))))
    text = f"{value:.{min(decimals, 6)}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text
