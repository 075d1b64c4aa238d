"""Objectives whose bound is what was measured before: a revision of a component against the one before it.

See `comparison` for the statistics, docs/adr/0015 for why these runs.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from itertools import takewhile
from typing import NamedTuple

from cos_controllers.api.probe import StackProbe
from cos_controllers.api.slo import Figure, Objective
from cos_controllers.api.status import Verdict
from cos_controllers.comparison import FEWEST_RUNS, MOST_RUNS, Change, compare
from cos_controllers.samples import Sample, amount, conclusive, revision_of, target

#: For an engine that answered nothing: microseconds, more than any request takes.
_NO_ANSWER = 1e12
#: Beyond it, ten times as much, nobody counts.
_MOST_SHARE = 10.0


@dataclass(frozen=True)
class Comparison:
    """What a comparison says. `message`: of what is missed or not decided; `measurements`: of the present revision.

    `is_first`: there is nothing to compare with; `wanted`: so many more measurements may decide it.
    """

    verdict: Verdict
    measurements: int
    message: str = ""
    wanted: int = 0
    is_first: bool = False


class Sides(NamedTuple):
    """Measurements of two revisions of a component, oldest first, and the names of these."""

    earlier: str
    present: str
    before: list[Sample]
    after: list[Sample]

    def compared_with(self, count: int) -> tuple[list[Sample], list[Sample]]:
        """What the first `count` of the later revision are compared with: as many first ones, and the last ones."""
        return self.before[:count], self.before[-MOST_RUNS:]


def compared(objective: Objective, samples: Sequence[Sample], taken_back: Collection[str]) -> Comparison:
    """How the first runs of the revision that runs stand to those of the one before it. `samples`: newest first.

    To its first ones, which were as near to a start, and to its last ones, which are of the same days: it is missed
    if both say so, and met if one does. The fewest runs that decide settle it: what comes later has another cause.
    Without enough of the revision before there is nothing that it could be worse than: it is the measure of the next.
    """
    sides = sides_of(objective, samples, taken_back)
    after = sides.after[:MOST_RUNS]
    if len(sides.before) < FEWEST_RUNS:
        # Of what was never measured, nobody knows that it can be.
        wanted = max(FEWEST_RUNS - len(after), 0) if samples else 0
        return Comparison(Verdict.PASSED, len(after), wanted=wanted, is_first=True)
    wanted = MOST_RUNS - len(after)
    message = (
        f"{len(after)} of {FEWEST_RUNS} measurements that are compared with those of revision {sides.earlier}"
    )
    limit = amount(Figure.ERROR_PERCENT, objective.max_regression or "") / 100
    for count in range(FEWEST_RUNS, len(after) + 1):
        changes = [_change(objective, before, after[:count]) for before in sides.compared_with(count)]
        verdicts = {change.verdict(limit) for change in changes}
        if Verdict.PASSED in verdicts:
            return Comparison(Verdict.PASSED, count)
        told = f"{_in_words(min(changes, key=lambda change: change.low))} than with revision {sides.earlier}"
        if silent := sum(sample.value is None for sample in after[:count]):
            told += f", and {silent} of {count} runs got no answer at all"
        if verdicts == {Verdict.FAILED}:
            return Comparison(Verdict.FAILED, count, f"{target(objective)} is missed: {told}")
        message = f"{target(objective)} is not decided by {count} runs: {told}"
    return Comparison(Verdict.UNKNOWN, len(after), message, wanted=wanted)


def sides_of(objective: Objective, samples: Sequence[Sample], taken_back: Collection[str]) -> Sides:
    """Those that an objective compares, of all its `samples`, newest first.

    The revision of the newest one, since it came to run; and the one before it that was not `taken_back`. Only what was
    measured alike: a longer check meets slower requests.
    """
    runs = [
        (revision, sample)
        for sample in samples
        if (revision := revision_of(sample.probe, objective.component))
        and _alike(sample.probe, samples[0].probe)
    ]
    present = runs[0][0] if runs else ""
    stint = list(takewhile(lambda run: run[0] == present, runs))
    older = [run for run in runs[len(stint) :] if run[0] not in {present, *taken_back}]
    earlier = older[0][0] if older else ""

    def measured(found: Iterable[tuple[str, Sample]]) -> list[Sample]:
        return conclusive([sample for _, sample in found])[::-1]

    return Sides(earlier, present, measured(run for run in older if run[0] == earlier), measured(stint))


def _alike(one: StackProbe, other: StackProbe) -> bool:
    """Whether two probes were asked for the same load."""
    return all(
        getattr(one.spec, name) == getattr(other.spec, name)
        for name in ("seconds_per_check", "connections", "resources")
    )


def _change(objective: Objective, before: Sequence[Sample], after: Sequence[Sample]) -> Change:
    old, new = ([_comparable(objective, sample) for sample in side] for side in (before, after))
    return compare(old, new, more_is_worse=objective.figure is not Figure.PER_SECOND)


def _comparable(objective: Objective, sample: Sample) -> float:
    """The figure of a sample, above zero; of an engine that answered nothing one that is worse than any."""
    worst = 1 / _NO_ANSWER if objective.figure is Figure.PER_SECOND else _NO_ANSWER
    return worst if sample.value is None else max(sample.value, 1 / _NO_ANSWER)


def _in_words(change: Change) -> str:
    def share(value: float) -> str:
        return f"{100 * value:.3g}%" if value < _MOST_SHARE else f"more than {100 * _MOST_SHARE:.0f}%"

    bounds = f"{share(change.low)} to {share(change.high)}; " if change.low < _MOST_SHARE else ""
    noise = f"runs of one revision differ by {share(change.noise)}"
    return f"worse by {share(change.estimate)} ({bounds}{noise})"
