"""Whether a stack reaches what it is to reach, by the probes that it has.

N of M: an objective is missed while so many of the newest measurements miss its bound, and met again as soon as they
have left the window. Argo Rollouts' `failureLimit` counts over a run that ends; here nothing ends, and an objective
would never recover. Its `inconclusiveLimit` and `consecutiveErrorLimit` are those of Argo (exceeded at `>`), counted
since the newest measurement.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from cos_controllers.api.probe import MAX_ROUTES, ProbeSettings, StackProbe
from cos_controllers.api.slo import Figure, Objective
from cos_controllers.api.stack import CosStack, CosStackSpec, Route
from cos_controllers.api.status import Verdict
from cos_controllers.comparison import MOST_RUNS
from cos_controllers.regression import compared, sides_of
from cos_controllers.samples import (
    Kind,
    Sample,
    conclusive,
    ended_probes,
    in_words,
    revision_of,
    samples_of,
    target,
)

#: Of a stack that is probed by the clock: so many turns without a measurement, and nothing is known any more.
_STALE_TURNS = 3
_NONE: Mapping[str, Collection[str]] = {}


@dataclass(frozen=True)
class Row:
    """What is said of an objective. `measured` is the newest figure in words, of the probe `probe`.

    `wanted`: how many more measurements of what runs may decide it; 0 if it is decided.
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
    """How many measurements of what runs it is judged by at most."""
    return MOST_RUNS if objective.max_regression else objective.window.measurements


def needed(
    stack: CosStack, probes: Sequence[StackProbe], taken_back: Mapping[str, Collection[str]] = _NONE
) -> set[str]:
    """Names of the probes by which objectives are judged, or will be after the next change."""
    newest = ended_probes(stack, probes)
    names: set[str] = set()
    for objective in objectives_of(stack):
        samples = samples_of(objective, newest)
        if objective.max_regression:
            sides = sides_of(objective, samples, taken_back.get(objective.component, ()))
            kept = [
                *sides.after[:MOST_RUNS],
                *sides.after[-MOST_RUNS:],
                *(s for start in sides.compared_with(MOST_RUNS) for s in start),
            ]
        else:
            kept = conclusive(samples)[: objective.window.measurements]
        names |= {sample.probe.metadata.name for sample in kept}
    return names


def judge_objectives(
    stack: CosStack,
    probes: Sequence[StackProbe] | None,
    now: datetime,
    taken_back: Mapping[str, Collection[str]] = _NONE,
) -> list[Row]:
    """A row for each objective. `probes`: the stack's, in any order; those with `Saturating` load do not count.

    `taken_back`: revisions of each component that nothing is compared with.
    """
    if probes is None:
        unread = "its probes cannot be read: see the operator's log"
        return [Row(objective, Verdict.UNKNOWN, unread) for objective in objectives_of(stack)]
    newest = ended_probes(stack, probes)
    return [_row(stack, objective, newest, now, taken_back) for objective in objectives_of(stack)]


def broken_by(
    stack: CosStack,
    component: str,
    revision: str,
    rows: Iterable[Row],
    probes: Sequence[StackProbe],
) -> Row | None:
    """That of the `rows` which a component's present `revision` breaks; None if none does, or nobody knows.

    With it the objective was missed as often as its window allows no more, and never met; before it, it was met. What
    was met with this revision once has another cause; of what was never met nobody knows. A comparison says so itself.
    """
    newest = ended_probes(stack, probes)
    for row in rows:
        objective = row.objective
        of_it = objective.component == component and not objective.dry_run
        if not of_it or row.verdict is not Verdict.FAILED:
            continue
        samples = samples_of(objective, newest)
        if objective.max_regression:
            if sides_of(objective, samples, ()).present == revision:
                return row
            continue
        measured = conclusive(samples)
        present = [sample.kind for sample in measured if revision_of(sample.probe, component) == revision]
        before = next(
            (s.kind for s in measured if revision_of(s.probe, component) not in {revision, ""}), None
        )
        broken = len(present) >= objective.window.failures and set(present) == {Kind.MISSED}
        if broken and before is Kind.MET:
            return row
    return None


def _row(
    stack: CosStack,
    objective: Objective,
    probes: Sequence[StackProbe],
    now: datetime,
    taken_back: Mapping[str, Collection[str]],
) -> Row:
    """`probes` newest first."""
    samples = samples_of(objective, probes)
    measured = conclusive(samples)
    since = samples[: samples.index(measured[0])] if measured else samples
    newest = measured[0] if measured else None
    row = Row(
        objective,
        Verdict.PASSED,
        measured=in_words(objective.figure, newest.value) if newest else "",
        probe=newest.probe.metadata.name if newest else "",
    )
    if objective.max_regression:
        row = _compared(row, samples, taken_back.get(objective.component, ()))
    else:
        row = _counted(row, measured, stack.status.revision)
    doubt = _doubt(stack, objective, since, newest, now)
    if doubt and row.verdict is not Verdict.FAILED:
        return replace(row, verdict=Verdict.UNKNOWN, message=doubt)
    return row


def _compared(row: Row, samples: Sequence[Sample], taken_back: Collection[str]) -> Row:
    """Judged by what was measured with the revision before."""
    found = compared(row.objective, samples, taken_back)
    first = found.is_first and row.measured
    return replace(
        row,
        verdict=found.verdict,
        message=found.message,
        measured=f"{row.measured}, nothing to compare with" if first else row.measured,
        failures=found.measurements if found.verdict is Verdict.FAILED else 0,
        measurements=found.measurements,
        wanted=found.wanted,
    )


def _counted(row: Row, samples: Sequence[Sample], stack_revision: int | None) -> Row:
    """Judged by how many of the newest samples miss a bound."""
    objective = row.objective
    window = samples[: objective.window.measurements]
    missed = [sample for sample in window if sample.kind is Kind.MISSED]
    row = replace(row, failures=len(missed), measurements=len(window))
    if not missed:
        return row
    message = _why_missed(row, missed[0])
    if len(missed) >= objective.window.failures:
        return replace(row, verdict=Verdict.FAILED, message=message)
    present = sum(sample.probe.status.stack_revision == stack_revision for sample in window)
    row = replace(row, wanted=objective.window.measurements - present)
    if len(missed) == len(window):
        return replace(row, verdict=Verdict.UNKNOWN, message=f"{message}; {objective.window.failures} decide")
    return row


def _why_missed(row: Row, sample: Sample) -> str:
    said = sample.why or f"it was {in_words(row.objective.figure, sample.value)}"
    return f"{target(row.objective)} is missed in {row.failures} of {row.measurements} measurements: {said}"


def _doubt(
    stack: CosStack, objective: Objective, since: Sequence[Sample], newest: Sample | None, now: datetime
) -> str:
    """Why it is not known whether the objective is met; "" if it is. `since`: what came after `newest`."""
    for kind, limit, what in (
        (Kind.ERROR, objective.consecutive_error_limit, "could not run"),
        (Kind.INCONCLUSIVE, objective.inconclusive_limit, "were inconclusive"),
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
