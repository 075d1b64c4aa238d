"""`kubectl cos probe`: what is asked for, and what is said of it."""

from __future__ import annotations

from typing import Any

from cos_operator.cli.following import progress
from cos_operator.cli.output import plain
from cos_operator.cli.probe import Wish, lines

LATENCY = {
    "p50Microseconds": 250,
    "p95Microseconds": 1234,
    "p99Microseconds": 5000,
    "maxMicroseconds": 12_345,
}
STATUS: dict[str, Any] = {
    "phase": "Failed",
    "message": "traefik/Route/app: 40 of 40 requests failed: answered 502 Bad Gateway",
    "checks": [
        {
            "name": "redis/Latency",
            "phase": "Successful",
            "latency": LATENCY,
            "perSecond": 100,
            "errors": 1,
            "missed": 2,
        },
        {"name": "traefik/Route/app", "phase": "Failed", "errors": 40},
    ],
    "components": [
        {
            "name": "redis",
            "cpuMilliseconds": 1234,
            "memoryGrowthBytes": -50_000,
            "connections": 9,
            "connectionsLimit": 100,
        },
        {"name": "elasticsearch", "cpuMilliseconds": 10},
        {"name": "traefik"},
    ],
}


def text_of(status: dict[str, Any]) -> list[str]:
    return [text for item in lines(status) for text in plain(item)]


def test_a_table_of_checks_what_engines_took_and_the_end() -> None:
    told = [" ".join(text.split()) for text in text_of(STATUS)]
    assert told == [
        "CHECK PHASE P50 MS P95 MS P99 MS MAX MS PER SECOND ERRORS MISSED",
        "redis/Latency Successful 0.25 1.23 5.00 12.35 100 1 2",
        "traefik/Route/app Failed - - - - 0 40 0",
        "",
        "COMPONENT CPU S MEMORY MB CONNECTIONS",
        "redis 1.23 -0.1 9/100",
        "elasticsearch 0.01 - -",
        "",
        "Failed: traefik/Route/app: 40 of 40 requests failed: answered 502 Bad Gateway",
    ]


def test_one_that_measured_nothing_says_why_and_shows_no_empty_table() -> None:
    assert text_of({"phase": "Error", "message": "its pod\nwaits"}) == ["", "Error: its pod waits"]


def test_progress_is_what_the_probe_says_of_itself() -> None:
    assert progress({}).startswith("no operator has looked at it yet")
    assert progress({"status": {"phase": "Pending", "message": "waits for redis to serve"}}) == (
        "Pending: waits for redis to serve"
    )
    assert progress({"status": {"phase": "Running"}}) == "Running"


def test_the_wish_is_the_spec() -> None:
    assert Wish(["redis"], ["app"], 2, saturating=True).spec("cos") == {
        "stackRef": {"name": "cos"},
        "components": ["redis"],
        "routes": ["app"],
        "secondsPerCheck": 2,
        "load": "Saturating",
    }
    assert Wish().spec("cos")["load"] == "Paced"
