"""Measure a stack: `probe` creates a StackProbe, follows it, and shows what was measured."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from cos_operator.cli import Manifest, output
from cos_operator.cli.errors import one_line
from cos_operator.cli.following import Operation, carry_out
from cos_operator.cli.output import BAD, GOOD, WAITS, Line, Span, line
from cos_operator.cli.session import Target

_STYLES = {"Successful": GOOD, "Failed": BAD, "Error": BAD, "Inconclusive": WAITS}
_QUANTILES = ("p50", "p95", "p99", "max")


@dataclass(frozen=True)
class Wish:
    """What is to be tried; see `StackProbe`."""

    components: Sequence[str] = ()
    routes: Sequence[str] = ()
    seconds: int = 5
    saturating: bool = False

    def spec(self, stack: str) -> Manifest:
        """The spec of the probe."""
        return {
            "stackRef": {"name": stack},
            "components": list(self.components),
            "routes": list(self.routes),
            "secondsPerCheck": self.seconds,
            "load": "Saturating" if self.saturating else "Paced",
        }


async def probe(target: Target, wish: Wish, *, timeout: float, as_json: bool) -> int:  # noqa: ASYNC109 - told to people
    """Create a probe and wait for its end, for so many seconds; 0 if it is Successful, else 1."""
    wanted = Operation("StackProbe", wish.spec, lines, "Successful")
    return await carry_out(target, wanted, timeout=timeout, as_json=as_json)


def lines(status: Manifest) -> Iterator[Line]:
    """What was measured: a table of checks, what is to be said of them, and what engines took."""
    phase = status.get("phase", "Pending")
    checks = status.get("checks") or []
    if checks:
        header = ("CHECK", "PHASE", "P50 MS", "P95 MS", "P99 MS", "MAX MS", "PER SECOND", "ERRORS", "MISSED")
        yield from output.table(header, [_row(check) for check in checks])
    taken = [row for row in status.get("components") or () if _has_figures(row)]
    if taken:
        yield line()
        yield from output.table(
            ("COMPONENT", "CPU S", "MEMORY MB", "CONNECTIONS"), [_taken(row) for row in taken]
        )
    yield line()
    yield line(Span(phase, _STYLES.get(phase, "")), f": {one_line(status.get('message') or '')}")


def _row(check: Manifest) -> list[str | Span]:
    latency = check.get("latency")
    figures = [f"{latency[f'{q}Microseconds'] / 1000:.2f}" if latency else "-" for q in _QUANTILES]
    return [
        check["name"],
        Span(check["phase"], _STYLES.get(check["phase"], "")),
        *figures,
        *(str(check.get(name, 0)) for name in ("perSecond", "errors", "missed")),
    ]


def _has_figures(row: Manifest) -> bool:
    return any(name in row for name in ("cpuMilliseconds", "memoryGrowthBytes", "connections"))


def _taken(row: Manifest) -> list[str | Span]:
    def figure(name: str, unit: float, form: str) -> str:
        value: Any = row.get(name)
        return "-" if value is None else format(value / unit, form)

    used, limit = row.get("connections"), row.get("connectionsLimit")
    connections = "-" if used is None else f"{used}/{limit}" if limit else str(used)
    return [
        row["name"],
        figure("cpuMilliseconds", 1000, ".2f"),
        figure("memoryGrowthBytes", 1e6, "+.1f"),
        connections,
    ]
