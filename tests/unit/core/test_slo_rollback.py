"""A change that serves and breaks an objective is taken back, if that is asked for and known to be its doing."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from world import World

from cos_controllers.api.probe import StackProbe
from cos_controllers.conditions import timestamp

OBJECTIVE = {"name": "fast", "check": "redis/Latency", "figure": "P95", "atMost": "10ms"}
SLO: dict[str, Any] = {"mode": "Rollback", "objectives": [OBJECTIVE]}
SPEC: dict[str, Any] = {"redis": {}, "neo4j": {}, "slo": SLO}
#: Serves, and slowly.
SLOW: dict[str, Any] = {**SPEC, "redis": {"maxClients": 3}}


def edit(world: World, spec: dict[str, Any]) -> None:
    world.spec = spec
    world.generation += 1


def run(world: World, minutes: float = 2) -> None:
    for _ in range(int(minutes * 6)):
        world.step()
        world.settle()
        world.now += timedelta(seconds=10)


def measure(world: World, milliseconds: float, *, revision: str = "", name: str = "redis/Latency") -> None:
    """A probe of the stack ends."""
    latency = {f"{q}Microseconds": round(milliseconds * 1000) for q in ("p50", "p95", "p99", "max")}
    component = name.partition("/")[0]
    running = revision or world.row(component)["effectiveRevision"]
    world.now += timedelta(seconds=60)
    world.probes.append(
        StackProbe.model_validate(
            {
                "apiVersion": "cos.dev/v1alpha1",
                "kind": "StackProbe",
                "metadata": {"name": f"p{len(world.probes)}", "namespace": "cos"},
                "spec": {"stackRef": {"name": "cos"}},
                "status": {
                    "phase": "Successful",
                    "startTime": timestamp(world.now),
                    "completionTime": timestamp(world.now),
                    "checks": [{"name": name, "phase": "Successful", "operations": 500, "latency": latency}],
                    "components": [{"name": component, "revision": running}],
                },
            }
        )
    )


def changed(spec: dict[str, Any] | None = None, *before: float) -> World:
    """A stack that was measured, and then changed; the change serves."""
    world = World(spec or SPEC)
    world.converge()
    run(world, 1)
    for milliseconds in before or (2.0,):
        measure(world, milliseconds)
    edit(world, {**(spec or SPEC), "redis": SLOW["redis"]})
    run(world)
    assert world.row("redis")["ready"]
    return world


def test_it_is_taken_back_when_its_objective_is_missed_as_often_as_the_window_says() -> None:
    world = changed()
    before, pods = world.row("redis"), world.pods()
    measure(world, 50)
    run(world)
    assert world.row("redis")["ready"], "one measurement is none"
    measure(world, 60)
    run(world)
    row = world.row("redis")
    assert row["reason"] == "RolledBack"
    assert row["effectiveRevision"] != before["effectiveRevision"] == row["failedRevision"]
    assert row["message"].startswith(
        f"revision {before['effectiveRevision']} served, and was taken back (ObjectiveMissed: objective fast: "
        "redis/Latency P95 at most 10ms is missed in 2 of 3 measurements: it was 60ms)"
    )
    assert world.condition("Available")["status"] == "True"
    assert world.condition("Ready")["status"] == "False"
    assert world.pods()["cos-neo4j-0"] == pods["cos-neo4j-0"], "nobody else is touched"
    run(world, 3)
    assert world.row("redis")["reason"] == "RolledBack", "and stays so"


def test_writing_the_old_spec_back_settles_it_and_another_change_is_tried() -> None:
    world = changed()
    for _ in range(2):
        measure(world, 50)
    run(world)
    edit(world, SPEC)
    run(world)
    assert world.row("redis")["reason"] == "Serving"
    edit(world, {**SPEC, "redis": {"maxClients": 9}})
    run(world)
    assert world.row("redis")["reason"] == "Serving", "what was measured is of other revisions"


@pytest.mark.parametrize(
    ("spec", "before", "after", "why"),
    [
        (SPEC | {"slo": {**SLO, "mode": "Observe"}}, (2.0,), (50, 60), "only told"),
        (SPEC | {"rollback": {"mode": "Off"}}, (2.0,), (50, 60), "nothing is ever taken back"),
        (SPEC, (50.0,), (50, 60), "it was not met before either"),
        (SPEC, (2.0, 50.0), (50, 60), "it was no longer met before"),
        (SPEC, (2.0,), (2, 50, 60), "it was met with this revision: something else has changed"),
        (
            SPEC | {"slo": {**SLO, "objectives": [OBJECTIVE | {"dryRun": True}]}},
            (2.0,),
            (50, 60),
            "a dry run",
        ),
    ],
)
def test_it_is_left_alone(
    spec: dict[str, Any], before: tuple[float, ...], after: tuple[float, ...], why: str
) -> None:
    world = changed(spec, *before)
    for milliseconds in after:
        measure(world, milliseconds)
    run(world)
    assert world.row("redis")["ready"], why


def test_a_paused_stack_is_left_alone_until_it_is_resumed() -> None:
    world = changed()
    edit(world, {**world.spec, "paused": True})
    for _ in range(2):
        measure(world, 50)
    run(world)
    assert world.row("redis")["reason"] != "RolledBack"
    edit(world, {**world.spec, "paused": False})
    run(world)
    assert world.row("redis")["reason"] == "RolledBack"


COMPARED = {"name": "no-worse", "check": "redis/Latency", "figure": "P95", "maxRegression": "10%"}


@pytest.mark.parametrize(
    ("before", "after", "reason"),
    [
        ((5.0, 5.1, 4.9, 5.0), (9.0, 9.1, 8.9, 9.0), "RolledBack"),
        ((5.0, 5.1, 4.9, 5.0), (9.0, 9.1, 8.9), "Serving"),
        ((5.0, 5.1, 4.9), (9.0, 9.1, 8.9, 9.0), "Serving"),
        ((5.0, 5.1, 4.9, 5.0), (5.1, 5.0, 5.2, 5.1), "Serving"),
        ((5.0, 9.1, 3.0, 12.0), (9.0, 5.1, 8.9, 11.0), "Serving"),
        # What was well with this revision at first, something else has slowed.
        ((5.0, 5.1, 4.9, 5.0), (5.1, 5.0, 5.2, 5.1, *[9.0, 9.1, 8.9] * 4), "Serving"),
    ],
)
def test_what_is_worse_than_before_beyond_the_noise_is_taken_back(
    before: tuple[float, ...], after: tuple[float, ...], reason: str
) -> None:
    world = changed(SPEC | {"slo": {**SLO, "objectives": [COMPARED]}}, *before)
    for milliseconds in after:
        assert world.row("redis")["reason"] == "Serving"
        measure(world, milliseconds)
        run(world)
    row = world.row("redis")
    assert row["reason"] == reason
    if reason == "RolledBack":
        assert (
            "objective no-worse: redis/Latency P95 at most 10% worse than before is missed" in row["message"]
        )
        run(world, 3)
        assert world.row("redis")["reason"] == "RolledBack", "and stays so"
        assert world.condition("SLOMet")["status"] == "False", "what was tried is missed until it is left"


def test_what_follows_a_change_that_was_taken_back_is_compared_with_what_ran_before_it() -> None:
    world = changed(SPEC | {"slo": {**SLO, "objectives": [COMPARED]}}, 5.0, 5.1, 4.9, 5.0)
    for milliseconds in (15, 15.1, 14.9, 15):
        measure(world, milliseconds)
        run(world)
    assert world.row("redis")["reason"] == "RolledBack"
    taken = world.row("redis")["failedRevision"]
    edit(world, {**world.spec, "redis": {"maxClients": 9}})
    run(world)
    assert world.row("redis")["reason"] == "Serving"
    assert world.row("redis")["takenBackRevisions"] == [taken]
    for milliseconds in (14.5, 14.6, 14.4, 14.5):
        measure(world, milliseconds)
        run(world)
    assert world.row("redis")["reason"] == "RolledBack"


def test_another_components_objective_takes_nothing_of_this_one_back() -> None:
    other = OBJECTIVE | {"check": "neo4j/Write"}
    world = World(SPEC | {"slo": {**SLO, "objectives": [other]}})
    world.converge()
    run(world, 1)
    measure(world, 2, name="neo4j/Write")
    edit(world, {**world.spec, "redis": SLOW["redis"]})
    run(world)
    for _ in range(2):
        measure(world, 50, name="neo4j/Write")
    run(world)
    assert world.condition("SLOMet")["status"] == "False"
    assert {world.row(name)["reason"] for name in ("redis", "neo4j")} == {"Serving"}
