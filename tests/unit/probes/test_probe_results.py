"""A probe's report: small, the same on both sides, and what its figures are worth."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from probe_world import FAST, figures

from cos_controllers.api.probe import ProbePhase
from cos_controllers.probes.results import (
    LIMIT,
    Figures,
    Percentiles,
    Report,
    Taken,
    UnreadableReport,
    decode,
    encode,
    judged,
    worst,
)

NUMBERS = st.integers(0, 10**9)
PERCENTILES = st.none() | st.builds(Percentiles, NUMBERS, NUMBERS, NUMBERS, NUMBERS)
SHORT = st.text(max_size=20)
FIGURES = st.builds(
    Figures,
    SHORT,
    SHORT,
    PERCENTILES,
    PERCENTILES,
    NUMBERS,
    NUMBERS,
    NUMBERS,
    NUMBERS,
    NUMBERS,
    NUMBERS,
    SHORT,
)
TAKEN = st.builds(Taken, SHORT, *[st.none() | st.integers(-(10**12), 10**12)] * 4)


@given(st.lists(FIGURES, max_size=3), st.lists(TAKEN, max_size=3), NUMBERS)
def test_what_is_encoded_is_decoded(rows: list[Figures], taken: list[Taken], cpu: int) -> None:
    report = Report(tuple(rows), tuple(taken), cpu)
    text = encode(report)
    assert text.isascii()
    assert len(text) <= LIMIT
    assert decode(text) == report


def test_the_largest_report_fits_and_keeps_its_figures() -> None:
    """Eight databases, every check of everything else, four routes, each with the longest names and errors."""
    names = [f"postgres-{'x' * 15}/Mixed"] * 8
    names += ["redis/Latency", "redis/Throughput", "redis/PubSub"]
    names += ["elasticsearch/Index", "elasticsearch/Search", "neo4j/Write", "neo4j/Traverse"]
    names += [f"traefik/Route/{'r' * 40}"] * 4
    slow = Percentiles(59_999_999, 59_999_999, 59_999_999, 59_999_999)
    rows = [
        figures(
            name,
            latency=slow,
            service=slow,
            operations=99_999,
            errors=99_999,
            missed=99_999,
            message="é" * 900,
        )
        for name in names
    ]
    taken = [Taken(f"postgres-{'x' * 15}", 59_999, 10**9, 10_000, 10_000)] * 12
    report = decode(encode(Report(tuple(rows), tuple(taken))))
    assert [item.latency for item in report.figures] == [slow] * len(names)


def test_messages_are_shortened_only_when_they_have_to_be() -> None:
    assert (
        decode(encode(Report((figures("a/B", errors=1, message="x" * 150),)))).figures[0].message == "x" * 150
    )
    broken = Report((Figures("a/B", broken="y" * 9000),))
    assert decode(encode(broken)).figures[0].broken == "y" * 160


def test_a_check_that_could_not_run_stays_an_error_without_its_message() -> None:
    rows = tuple(Figures(f"{'c' * 90}/{number}", broken="why " * 50) for number in range(27))
    (phase,) = {judged(item).phase for item in decode(encode(Report(rows))).figures}
    assert phase is ProbePhase.ERROR


def test_what_can_never_fit_is_refused() -> None:
    with pytest.raises(ValueError, match="a report of 100 checks"):
        encode(Report(tuple(figures("a" * 60) for _ in range(100))))


@pytest.mark.parametrize(
    "text", ["", "null", "[]", '{"f":[[]],"t":[],"c":0}', '{"f":[],"t":[[1,2,3,4,5,6,7]],"c":0}']
)
def test_what_is_no_report_is_told(text: str) -> None:
    with pytest.raises(UnreadableReport):
        decode(text)


@pytest.mark.parametrize(
    ("changes", "phase", "told"),
    [
        ({}, ProbePhase.SUCCESSFUL, ""),
        ({"broken": "no route to host"}, ProbePhase.ERROR, "no route to host"),
        ({"errors": 3, "message": "busy"}, ProbePhase.SUCCESSFUL, "3 of 503 requests failed: busy"),
        (
            {"operations": 0, "errors": 7, "message": "READONLY", "latency": None},
            ProbePhase.FAILED,
            "7 of 7 requests failed: READONLY",
        ),
        (
            {"operations": 0, "missed": 9, "latency": FAST},
            ProbePhase.FAILED,
            "no request was answered within the time",
        ),
        ({"operations": 10, "errors": 9}, ProbePhase.INCONCLUSIVE, "19 requests are too few: 20 are needed"),
        # The worse the engine, the fewer answers: what was asked counts.
        (
            {"operations": 5, "errors": 15, "message": "x"},
            ProbePhase.SUCCESSFUL,
            "15 of 20 requests failed: x",
        ),
        ({"operations": 5, "missed": 95}, ProbePhase.SUCCESSFUL, "95 requests were due and not sent"),
        (
            {"missed": 95, "client_cpu": 4000},
            ProbePhase.INCONCLUSIVE,
            "the prober itself had too little CPU",
        ),
        ({"client_cpu": 4000}, ProbePhase.SUCCESSFUL, ""),
        (
            {"missed": 5},
            ProbePhase.SUCCESSFUL,
            "5 requests were due and not sent: the engine did not keep up",
        ),
        ({"lag": 2000}, ProbePhase.SUCCESSFUL, ""),
        ({"lag": 2001}, ProbePhase.INCONCLUSIVE, "the prober itself was late by 2.001 ms"),
        ({"lag": 9000, "latency": Percentiles(1, 40_000, 1, 1)}, ProbePhase.SUCCESSFUL, ""),
    ],
)
def test_what_figures_are_worth(changes: dict[str, object], phase: ProbePhase, told: str) -> None:
    row = judged(figures("redis/Latency", **changes))
    assert row.phase is phase
    assert row.message.startswith(told)


def test_the_worst_check_names_the_probe_and_none_at_all_is_an_error() -> None:
    good, bad, doubt, error = (
        ProbePhase.SUCCESSFUL,
        ProbePhase.FAILED,
        ProbePhase.INCONCLUSIVE,
        ProbePhase.ERROR,
    )
    assert worst([good, good]) is good
    assert worst([good, doubt, good]) is doubt
    assert worst([doubt, error]) is error
    assert worst([error, bad, doubt]) is bad
    assert worst([]) is error
