"""`spec.slo`: what a stack is to reach, judged by the newest measurements of its probes."""

from __future__ import annotations

import re
from enum import StrEnum
from typing import Annotated, ClassVar

from pydantic import Field

from cos_controllers.api.model import ApiModel, Rule

_NAME = r"^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$"


class Figure(StrEnum):
    """Which figure of a check is judged."""

    P50 = "P50"
    """Median of the latency: a duration such as 500us, 10ms or 1s."""
    P95 = "P95"
    """95th percentile of the latency: a duration."""
    P99 = "P99"
    """99th percentile of the latency: a duration."""
    MAX = "Max"
    """The slowest request: a duration."""
    PER_SECOND = "PerSecond"
    """Requests that succeeded, a second: a number such as 1000."""
    ERROR_PERCENT = "ErrorPercent"
    """Share of requests that failed: a percentage such as 3%. Without `check` that of the worst one."""
    MEMORY_GROWTH = "MemoryGrowth"
    """By how much the engine's memory grew during the probe: bytes such as 100M or 64Mi. `check` is a component."""


DURATIONS = (Figure.P50, Figure.P95, Figure.P99, Figure.MAX)
_DURATION = "^[0-9]{1,9}(us|ms|s)$"
_NUMBER = "^[0-9]{1,9}$"
_PERCENT = "^[0-9]{1,3}([.][0-9]{1,3})?%$"
_NOTHING = "^0+([.]0+)?%$"
_BYTES = "^[0-9]{1,9}(k|M|G|Ki|Mi|Gi)?$"
#: Whose size can be compared: of others a run may have none at all.
_COMPARABLE = (*DURATIONS, Figure.PER_SECOND)
#: How the bound of a figure is written.
FORMS = dict.fromkeys(DURATIONS, _DURATION) | {
    Figure.PER_SECOND: _NUMBER,
    Figure.ERROR_PERCENT: _PERCENT,
    Figure.MEMORY_GROWTH: _BYTES,
}


class Window(ApiModel):
    """How many measurements decide. Those that were `Inconclusive` or an `Error` are none."""

    measurements: Annotated[int, Field(ge=1, le=50)] = 3
    """The newest so many count."""
    failures: Annotated[int, Field(ge=1, le=50)] = 2
    """The objective is missed while so many of them, or more, miss the bound."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            cel="self.failures <= self.measurements",
            message="failures must not exceed measurements: the objective could never be missed",
            holds=lambda self: self.failures <= self.measurements,
            field_path=".failures",
        ),
    )


def _bound(objective: Objective) -> str:
    return objective.at_most if objective.at_most is not None else objective.at_least or ""


def _form_rule(figures: str, form: str, what: str, holds: frozenset[Figure]) -> Rule:
    bound = "(has(self.atMost) ? self.atMost : has(self.atLeast) ? self.atLeast : '')"
    return Rule(
        cel=f"!(self.figure in [{figures}]) || !(has(self.atMost) || has(self.atLeast)) || "
        f"{bound}.matches('{form}')",
        message=f"the bound of {figures.replace(chr(39), '')} is {what}",
        holds=lambda self: (
            self.figure not in holds or not _bound(self) or re.fullmatch(form, _bound(self)) is not None
        ),
    )


class Objective(ApiModel):
    """One thing to reach."""

    name: Annotated[str, Field(pattern=_NAME, max_length=63)]
    """Name of the objective: lower-case letters, digits and dashes."""
    check: Annotated[str, Field(max_length=128)] = ""
    """Check of a probe, as its status names it: redis/Latency, postgres-prod/Mixed, traefik/Route/search."""
    figure: Figure
    """What of it is judged."""
    at_most: Annotated[str, Field(max_length=32)] | None = None
    """The figure may be so large."""
    at_least: Annotated[str, Field(max_length=32)] | None = None
    """The figure may be so small."""
    max_regression: Annotated[str, Field(pattern=_PERCENT, max_length=8)] | None = None
    """By how much the figure may be worse than with the component's revision before: 25% for example (of `PerSecond`:
    of the requests that there were). The first four to eight measurements of the revision are compared with the first
    and the last ones of the one before; worse is what is so by more than the noise between runs, at 95 %."""
    window: Window = Window()
    """How many measurements decide; of no meaning with `maxRegression`."""
    inconclusive_limit: Annotated[int, Field(ge=0, le=50)] = 3
    """After more `Inconclusive` measurements than this in a row the objective is Unknown."""
    consecutive_error_limit: Annotated[int, Field(ge=0, le=50)] = 4
    """After more measurements than this in a row that were an `Error` the objective is Unknown."""
    dry_run: bool = False
    """Whether it is only shown, and has no part in `SLOMet`."""

    @property
    def component(self) -> str:
        """The component that it is of; "" for one of all checks."""
        return self.check.partition("/")[0]

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            cel="[has(self.atMost), has(self.atLeast), has(self.maxRegression)].exists_one(given, given)",
            message="an objective needs exactly one of atMost, atLeast or maxRegression: remove the others",
            holds=lambda self: (self.at_most, self.at_least, self.max_regression).count(None) == 2,  # noqa: PLR2004 - of three
        ),
        Rule(
            cel="!has(self.maxRegression) || !(self.figure in ['ErrorPercent', 'MemoryGrowth'])",
            message="maxRegression compares latencies and PerSecond; give errors and memory a bound by atMost",
            holds=lambda self: self.max_regression is None or self.figure in _COMPARABLE,
            field_path=".maxRegression",
        ),
        Rule(
            cel=f"!has(self.maxRegression) || !self.maxRegression.matches('{_NOTHING}')",
            message="maxRegression must be above 0%: no two runs are the same, 10% for example",
            holds=lambda self: self.max_regression is None or not re.fullmatch(_NOTHING, self.max_regression),
            field_path=".maxRegression",
        ),
        Rule(
            cel="self.figure == 'ErrorPercent' || (has(self.check) && self.check != '')",
            message="check must name a check of a probe, for example redis/Latency; of MemoryGrowth a component",
            holds=lambda self: self.figure is Figure.ERROR_PERCENT or bool(self.check),
            field_path=".check",
        ),
        _form_rule(
            "'P50', 'P95', 'P99', 'Max'", _DURATION, "a duration: 500us, 10ms or 1s", frozenset(DURATIONS)
        ),
        _form_rule("'PerSecond'", _NUMBER, "a number: 1000", frozenset({Figure.PER_SECOND})),
        _form_rule("'ErrorPercent'", _PERCENT, "a percentage: 3%", frozenset({Figure.ERROR_PERCENT})),
        _form_rule("'MemoryGrowth'", _BYTES, "bytes: 100M or 64Mi", frozenset({Figure.MEMORY_GROWTH})),
    )


class SloMode(StrEnum):
    """What follows from an objective that is missed."""

    OBSERVE = "Observe"
    ROLLBACK = "Rollback"


class Slo(ApiModel):
    """What the stack is to reach."""

    mode: SloMode = SloMode.OBSERVE
    """`Observe`: it is told. `Rollback`: a change of a component after which an objective of its own is missed, and was
    not met once, is taken back like one that does not serve, if the objective was met before it; of `maxRegression`, if
    it is missed. Needs `rollback.mode: Automatic`. With `probes.afterChange` a changed stack is probed until that is
    decided."""

    objectives: Annotated[
        list[Objective], Field(max_length=32, json_schema_extra={"x-list-map-keys": ["name"]})
    ] = []
    """The objectives; those of a COS stack, of the components that it has, when empty."""
