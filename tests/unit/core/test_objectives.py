"""Objectives: N of M, and silence that is never a pass."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cos_controllers.api.probe import StackProbe
from cos_controllers.api.slo import Figure, Objective
from cos_controllers.api.stack import CosStack
from cos_controllers.api.status import Verdict
from cos_controllers.conditions import timestamp
from cos_controllers.objectives import Row, judge_objectives, needed, objectives_of
from cos_controllers.parsing import parse_stack
from cos_controllers.samples import amount, in_words, target

START = datetime(2026, 1, 1, tzinfo=UTC)
LATENCY = {"name": "p95", "check": "redis/Latency", "figure": "P95", "atMost": "10ms"}
#: What a probe says of `redis/Latency`, by a letter.
ROWS: dict[str, dict[str, Any]] = {
    "m": {"phase": "Successful", "operations": 500, "latency": 5000},
    "x": {"phase": "Successful", "operations": 500, "latency": 25_000},
    "f": {"phase": "Failed", "message": "7 of 7 requests failed: READONLY"},
    "i": {"phase": "Inconclusive", "operations": 500, "latency": 90_000, "message": "the prober was late"},
    "e": {"phase": "Error", "message": "no route to host"},
}


def stack(*objectives: dict[str, Any], **spec: Any) -> CosStack:
    return parse_stack(
        {
            "apiVersion": "cos.dev/v1alpha1",
            "kind": "CosStack",
            "metadata": {"name": "cos", "namespace": "cos", "uid": "u", "generation": 1},
            "spec": {"redis": {}, "slo": {"objectives": list(objectives)}, **spec},
        }
    )


def probe(number: int, rows: list[dict[str, Any]], *, components: Any = (), **changes: Any) -> StackProbe:
    status = {
        "phase": "Successful",
        "startTime": timestamp(START + timedelta(hours=number)),
        "completionTime": timestamp(START + timedelta(hours=number)),
        "checks": rows,
        "components": list(components),
        **changes.pop("status", {}),
    }
    return StackProbe.model_validate(
        {
            "apiVersion": "cos.dev/v1alpha1",
            "kind": "StackProbe",
            "metadata": {"name": f"p{number}", "namespace": "cos"},
            "spec": {"stackRef": {"name": "cos"}, **changes},
            "status": status,
        }
    )


def row(letter: str, name: str = "redis/Latency") -> dict[str, Any]:
    found = {**ROWS[letter], "name": name, "elapsedMilliseconds": 5000}
    if value := found.pop("latency", 0):
        found["latency"] = {f"{q}Microseconds": value for q in ("p50", "p95", "p99", "max")}
    return found


def history(letters: str) -> list[StackProbe]:
    """One probe a letter, oldest first."""
    return [probe(number, [row(letter)]) for number, letter in enumerate(letters)]


def judged(letters: str, **objective: Any) -> Row:
    (found,) = judge_objectives(stack({**LATENCY, **objective}), history(letters), START)
    return found


@pytest.mark.parametrize(
    ("letters", "verdict"),
    [
        ("", "Unknown"),
        ("m", "Passed"),
        ("x", "Unknown"),
        ("mx", "Passed"),
        ("xx", "Failed"),
        ("xmx", "Failed"),
        ("xmm", "Passed"),
        ("xxm", "Failed"),
        ("xxmm", "Passed"),
        ("ff", "Failed"),
        # What says nothing of the engine neither fills the window nor empties it.
        ("xiex", "Failed"),
        ("mi", "Passed"),
        ("miii", "Passed"),
        ("miiii", "Unknown"),
        ("meeee", "Passed"),
        ("meeeee", "Unknown"),
        ("xxeeeee", "Failed"),
        ("miiiim", "Passed"),
        ("i", "Unknown"),
        ("e", "Unknown"),
    ],
)
def test_the_newest_measurements_decide(letters: str, verdict: str) -> None:
    assert judged(letters).verdict is Verdict(verdict)


def test_the_message_has_the_target_and_the_figure() -> None:
    found = judged("mxx")
    assert (found.measured, found.probe, found.failures, found.measurements) == ("25ms", "p2", 2, 3)
    assert found.message == "redis/Latency P95 at most 10ms is missed in 2 of 3 measurements: it was 25ms"
    assert judged("ff").message.endswith("in 2 of 2 measurements: 7 of 7 requests failed: READONLY")
    assert judged("").message == "not measured yet"
    assert judged("e").message == "no route to host"
    assert judged("miiii").message == "the last 4 measurements were inconclusive: the prober was late"
    assert judged("eeeee").message == "the last 5 measurements could not run: no route to host"


@given(st.text("mxfie", max_size=12), st.integers(1, 5), st.integers(1, 5))
def test_it_is_met_only_by_measurements_and_missed_only_by_enough(
    letters: str, failures: int, more: int
) -> None:
    window = {"measurements": failures + more - 1, "failures": failures}
    found = judged(letters, window=window)
    conclusive = [letter for letter in letters if letter in "mxf"][-window["measurements"] :]
    missed = sum(letter in "xf" for letter in conclusive)
    assert (found.verdict is Verdict.FAILED) == (missed >= failures)
    if found.verdict is Verdict.PASSED:
        assert conclusive


def test_what_a_deleted_stack_of_the_same_name_left_is_not_of_this_one() -> None:
    later = stack(LATENCY)
    born = later.metadata.model_copy(update={"creation_timestamp": timestamp(START + timedelta(hours=2))})
    (found,) = judge_objectives(later.model_copy(update={"metadata": born}), history("xxm"), START)
    assert (found.verdict, found.measurements) == (Verdict.PASSED, 1)


def test_a_saturating_probe_measures_something_else() -> None:
    loud = [probe(number, [row("x")], load="Saturating") for number in range(3)]
    (found,) = judge_objectives(stack(LATENCY), loud, START)
    assert found.message == "not measured yet"


def test_one_that_runs_or_was_of_other_components_says_nothing() -> None:
    running = probe(1, [], status={"completionTime": None, "phase": "Running"})
    other = probe(2, [row("m", "postgres-prod/Mixed")])
    (found,) = judge_objectives(stack(LATENCY), [running, other], START)
    assert found.message == "not measured yet"


def test_one_that_broke_down_is_an_error_for_every_objective() -> None:
    broken = [probe(n, [], status={"phase": "Error", "message": "OOMKilled"}) for n in range(1, 6)]
    (found,) = judge_objectives(stack(LATENCY), [*history("m"), *broken], START)
    assert found.message == "the last 5 measurements could not run: OOMKilled"


def test_a_clock_that_has_stopped_makes_it_unknown() -> None:
    ticking = stack(LATENCY, probes={"intervalSeconds": 3600})
    probes = history("mmm")
    assert judge_objectives(ticking, probes, START + timedelta(hours=5))[0].verdict is Verdict.PASSED
    (found,) = judge_objectives(ticking, probes, START + timedelta(hours=5, seconds=1))
    assert (found.verdict, found.message) == (
        Verdict.UNKNOWN,
        "the newest measurement is of 2026-01-01T02:00:00Z",
    )


@pytest.mark.parametrize(
    ("objective", "met"),
    [
        ({"figure": "PerSecond", "atLeast": "100"}, True),
        ({"figure": "PerSecond", "atLeast": "101"}, False),
        ({"figure": "P50", "atMost": "5ms"}, True),
        ({"figure": "P99", "atMost": "4999us"}, False),
        ({"figure": "Max", "atMost": "1s"}, True),
        ({"figure": "ErrorPercent", "atMost": "0%"}, True),
        ({"figure": "MemoryGrowth", "check": "redis", "atMost": "100M"}, True),
        ({"figure": "MemoryGrowth", "check": "redis", "atMost": "95Mi"}, False),
    ],
)
def test_each_figure_in_its_unit(objective: dict[str, str], met: bool) -> None:  # noqa: FBT001
    grown = {"name": "redis", "memoryGrowthBytes": 100_000_000}
    wanted = {
        "name": "o",
        "check": "redis/Latency",
        "window": {"measurements": 1, "failures": 1},
        **objective,
    }
    (found,) = judge_objectives(stack(wanted), [probe(0, [row("m")], components=[grown])], START)
    assert found.verdict is (Verdict.PASSED if met else Verdict.FAILED)


def test_errors_without_a_check_are_those_of_the_worst() -> None:
    rows = [row("m"), {**row("m", "redis/PubSub"), "operations": 450, "errors": 50}]
    lost = [row("m"), row("f", "elasticsearch/Search")]
    unsure = [row("m"), row("e", "elasticsearch/Search")]
    wanted = {"name": "errors", "figure": "ErrorPercent", "atMost": "3%", "window": {"failures": 1}}
    (found,) = judge_objectives(stack(wanted), [probe(0, rows)], START)
    assert (found.verdict, found.measured) == (Verdict.FAILED, "10%")
    assert found.message.startswith("ErrorPercent at most 3% is missed in 1 of 1 measurements")
    (found,) = judge_objectives(stack(wanted), [probe(0, lost)], START)
    assert (found.verdict, "elasticsearch/Search: 7 of 7" in found.message) == (Verdict.FAILED, True)
    (found,) = judge_objectives(stack(wanted), [probe(0, unsure)], START)
    assert (found.verdict, found.message) == (Verdict.UNKNOWN, "elasticsearch/Search: no route to host")


def test_a_check_that_answered_nothing_misses_whatever_is_asked_of_it() -> None:
    wanted = LATENCY | {"atMost": "10s", "window": {"failures": 1}}
    few = {**row("f"), "latency": {f"{q}Microseconds": 950_000 for q in ("p50", "p95", "p99", "max")}}
    (found,) = judge_objectives(stack(wanted), [probe(0, [few])], START)
    assert found.verdict is Verdict.FAILED


def test_of_memory_nothing_is_known_where_its_checks_say_nothing() -> None:
    grown = [{"name": "redis", "memoryGrowthBytes": -900_000_000}]
    wanted = {"name": "m", "check": "redis", "figure": "MemoryGrowth", "atMost": "100M"}
    for letter in "ie":
        (found,) = judge_objectives(stack(wanted), [probe(0, [row(letter)], components=grown)], START)
        assert found.verdict is Verdict.UNKNOWN
    (found,) = judge_objectives(stack(wanted), [probe(0, [row("m")], components=grown)], START)
    assert found.verdict is Verdict.PASSED


def test_probes_that_cannot_be_read_leave_every_objective_unknown() -> None:
    (found,) = judge_objectives(stack(LATENCY), None, START)
    assert (found.verdict, found.message) == (
        Verdict.UNKNOWN,
        "its probes cannot be read: see the operator's log",
    )


def test_a_stack_that_asks_for_no_more_gets_the_missions_objectives_for_what_it_has() -> None:
    found = objectives_of(
        stack(
            postgres=[{"name": "prod"}],
            elasticsearch={},
            traefik={"routes": [{"name": "search", "component": "elasticsearch"}]},
        )
    )
    assert [f"{item.name}: {target(item)}" for item in found] == [
        "redis-latency: redis/Latency P95 at most 10ms",
        "redis-messages: redis/Throughput PerSecond at least 1000",
        "redis-pubsub: redis/PubSub P95 at most 10ms",
        "redis-memory: redis MemoryGrowth at most 100M",
        "postgres-prod-operations: postgres-prod/Mixed PerSecond at least 20",
        "postgres-prod-latency: postgres-prod/Mixed P95 at most 100ms",
        "route-search-requests: traefik/Route/search PerSecond at least 50",
        "route-search-latency: traefik/Route/search P95 at most 500ms",
        "errors: ErrorPercent at most 3%",
    ]
    without = stack().model_copy(update={"spec": stack().spec.model_copy(update={"slo": None})})
    assert judge_objectives(without, history("xx"), START) == []


@pytest.mark.parametrize(
    ("figure", "value", "text"),
    [
        ("P95", 0.0, "0us"),
        ("P95", 999, "999us"),
        ("P95", 1234, "1.23ms"),
        ("P95", 24_960, "25ms"),
        ("P95", 2_500_000, "2.5s"),
        ("PerSecond", 1199.7, "1200"),
        ("PerSecond", 19.96, "20"),
        ("ErrorPercent", 0.123456, "0.123%"),
        ("MemoryGrowth", -50_000.0, "-0.05M"),
        ("MemoryGrowth", 123_456_789, "123M"),
    ],
)
def test_figures_in_words(figure: str, value: float, text: str) -> None:
    assert in_words(Figure(figure), value) == text


@given(st.integers(0, 10**9 - 1), st.sampled_from(["us", "ms", "s"]))
def test_a_duration_is_read_in_microseconds(number: int, unit: str) -> None:
    assert amount(Figure.P95, f"{number}{unit}") == number * {"us": 1, "ms": 1000, "s": 10**6}[unit]


@pytest.mark.parametrize(
    "wrong",
    [
        {"atMost": "10"},
        {"atMost": "10m"},
        {"atMost": "1.5ms"},
        {"figure": "PerSecond", "atMost": None, "atLeast": "10/s"},
        {"figure": "ErrorPercent", "atMost": "3"},
        {"figure": "MemoryGrowth", "atMost": "100 MB"},
        {"atLeast": "5ms"},
        {"atMost": None},
        {"check": ""},
        {"window": {"measurements": 1, "failures": 2}},
        {"maxRegression": "10%"},
        {"atMost": None, "maxRegression": "10%", "figure": "ErrorPercent"},
        {"atMost": None, "maxRegression": "0%"},
        {"atMost": None, "maxRegression": "0.0%"},
        {"atMost": None, "maxRegression": "10%", "figure": "MemoryGrowth", "check": "redis"},
    ],
)
def test_what_cannot_be_judged_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(
        ValueError, match=r"bound of|exactly one|must name|must not exceed|compares latencies|above 0%"
    ):
        Objective.model_validate({**LATENCY, **wrong})


COMPARED = {"name": "no-worse", "check": "redis/Latency", "figure": "P95", "maxRegression": "10%"}


def of_revisions(*runs: tuple[str, float | str]) -> list[StackProbe]:
    """Probes, oldest first: the revision of Redis and its p95 in milliseconds, or a letter of `ROWS`."""
    found = []
    for number, (revision, value) in enumerate(runs):
        figures = row(value) if isinstance(value, str) else row("m")
        if not isinstance(value, str):
            figures["latency"] |= {"p95Microseconds": round(value * 1000)}
        found.append(probe(number, [figures], components=[{"name": "redis", "revision": revision}]))
    return found


def compared(*runs: tuple[str, float | str], taken_back: tuple[str, ...] = (), **objective: Any) -> Row:
    asked = stack({**COMPARED, **objective})
    (found,) = judge_objectives(asked, of_revisions(*runs), START, {"redis": taken_back})
    return found


A = [("a", value) for value in (5.0, 5.1, 4.9, 5.05, 4.95, 5.0, 5.1, 4.9)]


def scaled(revision: str, factor: float, count: int = 4) -> list[tuple[str, float]]:
    return [(revision, value * factor) for _, value in A[:count]]


def test_the_first_revision_is_the_measure_of_those_that_follow() -> None:
    assert (compared().verdict, compared().wanted) == (Verdict.UNKNOWN, 0)
    found = compared(*A)
    said = "4.9ms, nothing to compare with"
    assert (found.verdict, found.measured, found.wanted) == (Verdict.PASSED, said, 0)
    assert compared(*A[:1]).wanted == 3
    assert compared(*A[:3], *scaled("b", 9)).verdict is Verdict.PASSED, "three runs are no measure"


def test_a_revision_is_compared_with_the_one_before_it_once_it_was_measured_often_enough() -> None:
    found = compared(*A, *scaled("b", 3, 3))
    assert (found.verdict, found.wanted, found.measurements) == (Verdict.UNKNOWN, 5, 3)
    assert found.message == "3 of 4 measurements that are compared with those of revision a"
    found = compared(*A, *scaled("b", 3))
    assert (found.verdict, found.wanted, found.failures) == (Verdict.FAILED, 0, 4)
    assert found.message == (
        "redis/Latency P95 at most 10% worse than before is missed: worse by 200% (191% to 209%; runs of one revision "
        "differ by 2.02%) than with revision a"
    )
    found = compared(*A, *scaled("b", 1.02))
    assert (found.verdict, found.measured, found.wanted) == (Verdict.PASSED, "5.15ms", 0)


def test_what_is_not_decided_asks_for_more_as_long_as_more_are_compared() -> None:
    found = compared(*A, *scaled("b", 1.1, 4))
    assert (found.verdict, found.wanted) == (Verdict.UNKNOWN, 4)
    assert "is not decided by 4 runs: worse by 10% (" in found.message
    assert compared(*A, *scaled("b", 1.1, 8)).wanted == 0
    assert compared(*A, ("b", "i")).wanted == 8, "one that says nothing is made up for"


def test_what_was_decided_stays_so_whatever_comes_later() -> None:
    assert compared(*A, *scaled("b", 1), *scaled("b", 3, 8), *scaled("b", 3, 8)).verdict is Verdict.PASSED
    assert compared(*A, *scaled("b", 3), *scaled("b", 1, 8)).verdict is Verdict.FAILED


def test_what_is_slow_at_each_start_is_compared_with_what_was_too() -> None:
    """The JVMs compile: the first runs of any revision are slower than its last ones."""
    start = [("a", 9.0), ("a", 8.5), ("a", 8.0), ("a", 7.5)]
    assert compared(*start, *A, *[("b", value) for _, value in start]).verdict is Verdict.UNKNOWN
    assert compared(*start, *A, *[("b", value * 0.9) for _, value in start]).verdict is Verdict.PASSED
    slower_now = [("a", value * 2) for _, value in A]
    assert compared(*A, *slower_now, *scaled("b", 2)).verdict is Verdict.PASSED, (
        "so was what ran before it, at last"
    )


def test_what_returns_is_not_compared_with_what_it_was_taken_back_from() -> None:
    runs = [*A, *scaled("b", 3), *scaled("a", 1, 2)]
    assert compared(*runs, taken_back=("b",)).verdict is Verdict.PASSED
    found = compared(*runs, *scaled("c", 1.5), taken_back=("b",))
    assert found.verdict is Verdict.FAILED
    assert found.message.endswith("than with revision a")


def test_what_follows_a_revision_that_was_taken_back_is_compared_with_what_ran_before_that() -> None:
    fast, slow = scaled("b", 0.3), scaled("c", 2.9)
    assert compared(*A, *scaled("b", 3), *slow, taken_back=("b",)).verdict is Verdict.FAILED
    assert compared(*A, *fast, *scaled("c", 1), taken_back=("b",)).verdict is Verdict.PASSED


def test_what_was_measured_otherwise_is_another_thing() -> None:
    probes = of_revisions(*A, *scaled("b", 3))
    longer = [
        item.model_copy(update={"spec": item.spec.model_copy(update={"seconds_per_check": 60})})
        for item in probes[8:]
    ]
    (found,) = judge_objectives(stack(COMPARED), [*probes[:8], *longer], START)
    assert (found.verdict, found.measured) == (Verdict.PASSED, "15.2ms, nothing to compare with")


def test_what_answers_nothing_is_worse_and_what_is_no_measurement_is_none() -> None:
    found = compared(*A, *[("b", "f")] * 4)
    assert found.verdict is Verdict.FAILED
    assert "worse by more than 1000% (runs of one" in found.message
    assert found.message.endswith("than with revision a, and 4 of 4 runs got no answer at all")
    assert compared(*A, *[("b", "i")] * 3, *scaled("b", 3, 3)).measurements == 3
    assert compared(*A, *[("b", "e")] * 5).message.startswith("the last 5 measurements could not run")
    assert compared(*A, *[("", 9.0)] * 5).measurements == 8, "of which revision it was is not known"


def test_fewer_requests_a_second_are_worse_by_their_share_of_what_there_were() -> None:
    probes = []
    for number, (revision, operations) in enumerate([("a", 500)] * 4 + [("b", 200)] * 4):
        checks = [row("m") | {"operations": operations}]
        probes.append(probe(number, checks, components=[{"name": "redis", "revision": revision}]))
    for limit, verdict in (("50%", Verdict.FAILED), ("70%", Verdict.PASSED)):
        objective = {**COMPARED, "figure": "PerSecond", "maxRegression": limit}
        (found,) = judge_objectives(stack(objective), probes, START)
        assert found.verdict is verdict
        assert ("worse by 60%" in found.message) == (verdict is Verdict.FAILED)


def test_probes_that_decide_are_kept() -> None:
    after = [("b", 5.0 + number / 100) for number in range(30)]
    probes = of_revisions(*A, *scaled("a", 1, 8), *scaled("a", 1, 8), *after)
    kept = sorted(int(name[1:]) for name in needed(stack(COMPARED), probes))
    assert kept == [*range(8), *range(16, 32), *range(46, 54)]
