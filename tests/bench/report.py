"""The tables of docs/benchmarks.md, from figures that were kept."""

from __future__ import annotations

import itertools
import statistics
from collections.abc import Callable, Sequence
from typing import Any

from bench_cluster import ROOT
from figures import exponent, quantile, spread

Figures = dict[str, Any]

DOCUMENT = ROOT / "docs" / "benchmarks.md"
_MIB = 2**20


def write(results: Sequence[Figures]) -> None:
    """Put the tables between the document's markers; a section without figures stays as it is."""
    text = DOCUMENT.read_text(encoding="utf-8")
    sections = (
        ("scale", scale_section),
        ("apply_ready", apply_section),
        ("probe_delay", delay_section),
        ("probe_cost", cost_section),
        ("probe_soak", soak_section),
        ("probe_throughput", throughput_section),
        ("backup", backup_section),
    )
    for kind, table in sections:
        chosen = [figures for figures in results if figures["kind"] == kind]
        if chosen:
            text = _replace(text, kind, table(chosen))
    DOCUMENT.write_text(text, encoding="utf-8")


def _replace(text: str, kind: str, section: str) -> str:
    begin, end = f"<!-- {kind}: written by tests/bench/bench.py -->", f"<!-- end of {kind} -->"
    before, _, rest = text.partition(begin)
    _, _, after = rest.partition(end)
    return f"{before}{begin}\n{section}\n{end}{after}"


def _sources(results: Sequence[Figures]) -> str:
    lines = {f"* `{f['command']}`, {f['at']}, commit {f['commit']}, Python {f['python']}" for f in results}
    return "\n".join(sorted(lines))


def _load(figures: Figures) -> str:
    return f"Load average before and after: {figures['load_before']} and {figures['load_after']}."


def _phases(prefix: str) -> Callable[[Figures], list[Figures]]:
    return lambda figures: [value for name, value in figures.items() if name.startswith(prefix)]


def _floor(figures: Figures) -> float:
    return float(figures["floor"]["watch_cpu"] + figures["floor"]["write_cpu"])


def _waiting(phase: Figures) -> float:
    """Of all threads together: may exceed 100."""
    return 100 * float(phase["waited"]) / float(phase["seconds"])


#: Name of a row, how it is printed, and its value in one measurement.
_ROWS: tuple[tuple[str, str, Callable[[Figures], float]], ...] = (
    ("**Creation**: all stacks created, s", ".1f", lambda f: f["create"]["created_after"]),
    ("every pod Ready after, s", ".1f", lambda f: f["create"]["pods_ready_after"]),
    ("every stack Ready after, s", ".1f", lambda f: f["create"]["ready_after"]),
    ("operator CPU, s a stack", ".3f", lambda f: f["create"]["cpu"] / f["wish"]["stacks"]),
    (
        "of which hearing events, s a stack",
        ".3f",
        lambda f: f["create"]["cpu_watching"] / f["wish"]["stacks"],
    ),
    ("waiting for a core meanwhile, % of the time", ".0f", lambda f: _waiting(f["create"])),
    ("reads a stack", ".1f", lambda f: f["create"]["reads"] / f["wish"]["stacks"]),
    ("writes a stack", ".1f", lambda f: f["create"]["writes"] / f["wish"]["stacks"]),
    ("looks at a stack", ".1f", lambda f: f["create"]["runs"] / f["wish"]["stacks"]),
    ("floor: events heard, CPU s a stack", ".3f", lambda f: f["floor"]["watch_cpu"] / f["wish"]["stacks"]),
    ("floor: writes sent, CPU s a stack", ".3f", lambda f: f["floor"]["write_cpu"] / f["wish"]["stacks"]),
    ("**operator CPU / floor** (bar: 3)", ".2f", lambda f: f["create"]["cpu"] / _floor(f)),
    ("**Memory**: without stacks, MiB", ".0f", lambda f: f["create"]["resident_empty"] / _MIB),
    ("with all stacks, MiB (bar: 512)", ".0f", lambda f: f["steady"]["resident"] / _MIB),
    (
        "KiB a stack",
        ".1f",
        lambda f: (f["steady"]["resident"] - f["create"]["resident_empty"]) / 1024 / f["wish"]["stacks"],
    ),
    ("**Steady state**: minutes watched", ".1f", lambda f: f["steady"]["seconds"] / 60),
    ("writes (bar: 0)", ".0f", lambda f: f["steady"]["audited_writes"]),
    ("CPU, % of a core", ".1f", lambda f: 100 * f["steady"]["cpu"] / f["steady"]["seconds"]),
    ("looks a second", ".2f", lambda f: f["steady"]["runs"] / f["steady"]["seconds"]),
    ("reads a second", ".1f", lambda f: f["steady"]["reads"] / f["steady"]["seconds"]),
    ("**Edit → child written** p50, ms", ".0f", lambda f: 1000 * f["edits"]["to_written_p50"]),
    ("p99, ms (bar: 50 at 1,000)", ".0f", lambda f: 1000 * f["edits"]["to_written_p99"]),
    ("waiting for a core meanwhile, % of the time", ".0f", lambda f: _waiting(f["edits"])),
    ("edit → child's write received p50, ms", ".0f", lambda f: 1000 * f["edits"]["to_received_p50"]),
    ("p99, ms", ".0f", lambda f: 1000 * f["edits"]["to_received_p99"]),
    (
        "**Cold restart**: slowest fresh edit served after, s (bar: 5)",
        ".1f",
        lambda f: max(phase["slowest_edit_after"] for phase in _phases("restart")(f)),
    ),
    (
        "every stack looked at after, s",
        ".1f",
        lambda f: max(phase["all_seen_after"] for phase in _phases("restart")(f)),
    ),
    (
        "writes to children nobody edited (bar: 0)",
        ".0f",
        lambda f: sum(phase["child_writes"] for phase in _phases("restart")(f)),
    ),
    ("**Churn**: edits", ".0f", lambda f: f["wish"]["churn"]),
    ("CPU, ms an edit", ".1f", lambda f: 1000 * f["churn"]["cpu"] / f["wish"]["churn"]),
    (
        "memory before → after, MiB grown",
        ".1f",
        lambda f: (f["churn"]["resident_after"] - f["churn"]["resident_before"]) / _MIB,
    ),
    ("slope in the second half, KiB an edit (bar: 0)", ".2f", lambda f: f["churn"]["bytes_per_edit"] / 1024),
)


def scale_section(results: Sequence[Figures]) -> str:
    """One column a size; the median and, where a size was measured more than once, lowest and highest."""
    sizes = sorted({figures["wish"]["stacks"] for figures in results})
    by_size = {size: [f for f in results if f["wish"]["stacks"] == size] for size in sizes}
    lines = [
        _sources(results),
        "",
        "| | " + " | ".join(f"{size:,} stacks" for size in sizes) + " |",
        "| --- |" + " --- |" * len(sizes),
    ]
    for name, form, value in _ROWS:
        cells = [_cell(by_size[size], form, value) for size in sizes]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    loads = [_loads(by_size[size]) for size in sizes]
    lines += [
        "| load average (1 min), lowest to highest | " + " | ".join(loads) + " |",
        "",
        *_exponents(by_size),
    ]
    return "\n".join(lines)


def _cell(measured: Sequence[Figures], form: str, value: Callable[[Figures], float]) -> str:
    values = []
    for figures in measured:
        try:
            values.append(value(figures))
        except (KeyError, ValueError):  # a phase that was left out
            continue
    return spread(values, form) if values else "not measured"


def _loads(measured: Sequence[Figures]) -> str:
    found = [
        float(phase[moment].split()[0])
        for figures in measured
        for phase in figures.values()
        if isinstance(phase, dict)
        for moment in ("load_before", "load_after")
        if moment in phase
    ]
    return f"{min(found):.1f} to {max(found):.1f}" if found else "unknown"


def _exponents(by_size: dict[int, list[Figures]]) -> list[str]:
    """How totals grow from one size to the next."""
    sizes = sorted(by_size)
    if len(sizes) < 2:
        return []
    lines = [
        "| growth, as an exponent of the number of stacks (bar: 1.05) | CPU | API calls |",
        "| --- | --- | --- |",
    ]
    for small, large in itertools.pairwise(sizes):
        cells = []
        for value in (
            lambda f: f["create"]["cpu"],
            lambda f: f["create"]["reads"] + f["create"]["writes"],
        ):
            points = [(size, statistics.median(map(value, by_size[size]))) for size in (small, large)]
            cells.append(f"{exponent(*points):.2f}")
        lines.append(f"| creation, {small:,} → {large:,} stacks | " + " | ".join(cells) + " |")
    return lines


def apply_section(results: Sequence[Figures]) -> str:
    """The last measurement of apply → Ready."""
    figures = results[-1]
    stack, pod, children = figures["stack"], figures["pod_of_stack"], figures["children"]
    ratios = [mine / other for mine, other in zip(stack, children, strict=True)]
    lines = [
        _sources([figures]),
        "",
        f"| {len(stack)} pairs, in turns | median | lowest | highest |",
        "| --- | --- | --- | --- |",
    ]
    for name, values in (
        ("`kubectl apply` of the CosStack → stack Ready, s", stack),
        ("`kubectl apply` of the CosStack → its pod Ready, s", pod),
        ("`kubectl apply` of the rendered children → pod Ready, s", children),
        ("ratio within a pair: stack Ready / children's pod Ready", ratios),
    ):
        lines.append(f"| {name} | {quantile(values, 0.5):.2f} | {min(values):.2f} | {max(values):.2f} |")
    ratio = statistics.median(stack) / statistics.median(children)
    lines += [
        f"| **ratio of the medians** (bar: 1.15) | {ratio:.2f} | | |",
        "",
        _load(figures),
    ]
    return "\n".join(lines)


def delay_section(results: Sequence[Figures]) -> str:
    """The last measurement of known delays: by how much the p50 of each check rose."""
    figures = results[-1]
    delays = [delay for delay in next(iter(figures["p50"].values())) if delay != "0"]
    lines = [
        _sources([figures]),
        "",
        "| check | p50 without, ms | " + " | ".join(f"+{delay} ms" for delay in delays) + " |",
        "| --- |" + " --- |" * (len(delays) + 1),
    ]
    for name, row in figures["p50"].items():
        cells = []
        for delay in delays:
            # Within a round: what the machine does meanwhile is in both.
            rises = [late - now for late, now in zip(row[delay], row["0"], strict=True)]
            ratios = [rise / float(delay) for rise in rises]
            cells.append(f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})")
        lines.append(f"| {name} | {statistics.median(row['0']):.2f} | " + " | ".join(cells) + " |")
    lines += [
        "",
        f"Rise of the p50 as a share of the delay: median (lowest to highest) of {len(row['0'])} rounds.",
        "The bar is 0.90 to 1.10.",
        _load(figures),
    ]
    return "\n".join(lines)


def cost_section(results: Sequence[Figures]) -> str:
    """The last measurement of what probes cost."""
    figures = results[-1]
    cpu, window = figures["cpu"], figures["window"]
    without, with_, prober = cpu["without"], cpu["with"], cpu["prober"]
    extra = [more - less + own for more, less, own in zip(with_, without, prober, strict=True)]
    idle = statistics.median(without) / window
    share = statistics.median(extra) / (idle * 3600)
    rows = [
        ("CPU of the stack at rest, cores", [value / window for value in without], ".3f"),
        ("CPU seconds of a probe: the prober", prober, ".2f"),
        ("CPU seconds of a probe: prober and engines", extra, ".2f"),
    ]
    for name in figures["p99"]["without"][0]:
        pairs = zip(figures["p99"]["with"], figures["p99"]["without"], strict=True)
        ratios = [probed[name] / quiet[name] for probed, quiet in pairs]
        quiet = [item[name] for item in figures["p99"]["without"]]
        rows += [
            (f"application's p99 at {name} without a probe, ms", quiet, ".2f"),
            (f"**with / without, within a round** ({name}; bar: 1.1)", ratios, ".2f"),
        ]
    lines = [
        _sources([figures]),
        "",
        f"| {len(without)} rounds, in turns | median | lowest | highest |",
        "| --- | --- | --- | --- |",
    ]
    for name, values, form in rows:
        shown = (statistics.median(values), min(values), max(values))
        lines.append(f"| {name} | " + " | ".join(format(value, form) for value in shown) + " |")
    lines += [
        f"| a probe an hour, share of the CPU of the stack at rest | {100 * share:.2f} % | | |",
        # As docs/how-to/probes.md writes it.
        f"| **a probe every three hours, likewise** (bar: 1 %) | {100 * share / 3:.2f} % | | |",
        "",
        _load(figures),
    ]
    return "\n".join(lines)


def soak_section(results: Sequence[Figures]) -> str:
    """The last soak of a healthy stack."""
    figures = results[-1]

    def told(counts: dict[str, int]) -> str:
        total = sum(counts.values())
        return ", ".join(
            f"{name} {count} ({100 * count / total:.1f} %)" for name, count in sorted(counts.items())
        )

    runs = {phase: figures["runs"].count(phase) for phase in set(figures["runs"])}
    lines = [
        _sources([figures]),
        "",
        f"| of {len(figures['runs'])} probes, {figures['seconds']} s a check | how they ended |",
        "| --- | --- |",
        f"| probes (bar: 5 % Inconclusive at most) | {told(runs)} |",
        f"| checks | {told(figures['checks'])} |",
        f"| verdicts of objectives (bar: none Failed) | {told(figures['verdicts'])} |",
        "",
        _load(figures),
    ]
    return "\n".join(lines)


def backup_section(results: Sequence[Figures]) -> str:
    """The last measurement of backups."""
    figures = results[-1]
    seconds, stored = figures["seconds"], figures["stored"]
    ours, hand = seconds["backup"], seconds["dump and store by hand"]
    proof, raw = seconds["proof"], seconds["restore by hand"]
    later = [second / stored[0] for second in stored[1:]]
    rows = [
        ("the first backup, s", ours[:1], ".0f"),
        ("the same tools by hand, s", hand[:1], ".0f"),
        ("**throughput of the first: operator / by hand** (bar: 0.8)", [hand[0] / ours[0]], ".2f"),
        ("a later backup of unchanged data, s", ours[1:], ".0f"),
        ("the same tools by hand, s", hand[1:], ".0f"),
        ("**bytes that it stores, share of the first** (bar: 10 %)", [100 * share for share in later], ".1f"),
        ("a restore until the engine is proved, s", proof, ".0f"),
        ("the same tools by hand, s", raw, ".0f"),
        (
            "**operator / by hand, within a round** (bar: 1.2)",
            [one / other for one, other in zip(proof, raw, strict=True)],
            ".2f",
        ),
        ("application's p99 at Redis without a backup, ms", figures["p99"]["without"], ".2f"),
        (
            "**with / without, within a round** (bar: 1.25)",
            [
                one / other
                for one, other in zip(figures["p99"]["with"], figures["p99"]["without"], strict=True)
            ],
            ".2f",
        ),
    ]
    lines = [
        _sources([figures]),
        "",
        f"| {figures['bytes'] / 1e6:.0f} MB, {len(ours)} rounds, in turns | median | lowest | highest |",
        "| --- | --- | --- | --- |",
    ]
    for name, values, form in rows:
        if values:
            shown = (statistics.median(values), min(values), max(values))
            lines.append(f"| {name} | " + " | ".join(format(value, form) for value in shown) + " |")
    return "\n".join([*lines, "", _load(figures)])


def throughput_section(results: Sequence[Figures]) -> str:
    """The last comparison with each engine's own tool."""
    figures = results[-1]
    tools = {"redis": "redis-benchmark", "postgres": "pgbench", "traefik": "wrk"}
    lines = [
        _sources([figures]),
        "",
        "| four connections, requests a second | prober | tool | prober / tool, by round | its CPU, ms for 1,000 |",
        "| --- | --- | --- | --- | --- |",
    ]
    for name, tool in tools.items():
        mine, other, cpu = (figures[key][name] for key in ("prober", "tool", "client_cpu"))
        ratios = [own / its for own, its in zip(mine, other, strict=True)]
        lines.append(
            f"| {name}, {tool} | {statistics.median(mine):,.0f} | {statistics.median(other):,.0f} | "
            f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f}) | {statistics.median(cpu):.0f} |"
        )
    lines += ["", _load(figures)]
    return "\n".join(lines)
