"""What probes say of an objective: its figure in each of them, or why there is none; and figures in words."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from enum import StrEnum
from typing import NamedTuple

from cos_controllers.api.probe import CheckStatus, Load, ProbePhase, StackProbe
from cos_controllers.api.quantity import parse_quantity
from cos_controllers.api.slo import DURATIONS, Figure, Objective
from cos_controllers.api.stack import CosStack

_MICROSECONDS = {"us": 1, "ms": 1000, "s": 1_000_000}
_PERCENTILES = {
    Figure.P50: "p50_microseconds",
    Figure.P95: "p95_microseconds",
    Figure.P99: "p99_microseconds",
    Figure.MAX: "max_microseconds",
}


class Kind(StrEnum):
    """What a probe is to an objective."""

    MET = "met"
    MISSED = "missed"
    INCONCLUSIVE = "inconclusive"
    ERROR = "error"


class Sample(NamedTuple):
    """What one probe says of an objective: `value` in the figure's unit, None if it has none; `why` in words."""

    kind: Kind
    probe: StackProbe
    value: float | None = None
    why: str = ""


def measured_of(stack: CosStack, probes: Iterable[StackProbe]) -> Iterator[StackProbe]:
    """Those that have started on this very stack: one of its name that was deleted may have left some."""
    created = stack.metadata.creation_timestamp
    return (probe for probe in probes if probe.status.start_time and probe.status.start_time >= created)


def ended_probes(stack: CosStack, probes: Iterable[StackProbe]) -> list[StackProbe]:
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


def revision_of(probe: StackProbe, component: str) -> str:
    """Which revision of a component a probe measured."""
    return next((row.revision for row in probe.status.components if row.name == component), "")


def samples_of(objective: Objective, probes: Sequence[StackProbe]) -> list[Sample]:
    """What probes say of an objective, those left out of which it was no part."""
    return [sample for probe in probes if (sample := _sample(objective, probe))]


def conclusive(samples: Sequence[Sample]) -> list[Sample]:
    """Those that are measurements."""
    return [sample for sample in samples if sample.kind in {Kind.MET, Kind.MISSED}]


def _sample(objective: Objective, probe: StackProbe) -> Sample | None:
    """What a probe says of an objective; None if that was no part of it."""
    rows = [row for row in probe.status.checks if _is_of(objective, row)]
    if not rows:
        # One that broke down says of no check how it went.
        broken = probe.status.phase is ProbePhase.ERROR and not probe.status.checks
        return Sample(Kind.ERROR, probe, why=probe.status.message) if broken else None
    # The worst first: what answers nothing misses whatever is asked of it, however good the others are.
    for phase, kind in (
        (ProbePhase.FAILED, Kind.MISSED),
        (ProbePhase.ERROR, Kind.ERROR),
        (ProbePhase.INCONCLUSIVE, Kind.INCONCLUSIVE),
    ):
        if row := next((row for row in rows if row.phase is phase), None):
            why = row.message if objective.check else f"{row.name}: {row.message}"
            return Sample(kind, probe, why=why)
    if objective.figure is Figure.MEMORY_GROWTH:
        grown = _growth(objective, probe)
        return None if grown is None else _judged(objective, probe, grown)
    return _judged(objective, probe, max(_value(objective.figure, row) for row in rows))


def _is_of(objective: Objective, row: CheckStatus) -> bool:
    """Whether a check has a part in an objective."""
    if objective.figure is Figure.MEMORY_GROWTH:
        return row.name.partition("/")[0] == objective.check
    return not objective.check or row.name == objective.check


def _judged(objective: Objective, probe: StackProbe, value: float) -> Sample:
    return Sample(Kind.MET if _holds(objective, value) else Kind.MISSED, probe, value)


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
