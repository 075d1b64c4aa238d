"""The time that an operator is away is not the time that a change had."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import Any

from world import World

DEADLINE: dict[str, Any] = {"progressDeadlineSeconds": 60}
OUTAGE = timedelta(hours=1)


def failures(world: World) -> dict[str, Any]:
    return {
        name: json.loads(obj["metadata"]["annotations"]["cos.dev/failed"])
        for (kind, name), obj in world.objects.items()
        if kind == "ControllerRevision" and "cos.dev/failed" in obj["metadata"].get("annotations", {})
    }


def begun() -> World:
    """A change that has been written, and whose pod has still to be replaced when the operator goes away."""
    world = World({"redis": {"maxClients": 60}} | DEADLINE)
    world.converge()
    world.spec = {"redis": {"maxClients": 61}} | DEADLINE
    world.generation += 1
    world.step()
    world.settle()
    assert "lastProgressTime" not in world.row("redis"), "nothing has been tried yet"
    world.now += OUTAGE
    return world


def test_a_change_that_was_begun_before_an_outage_is_not_taken_back_untried() -> None:
    world = begun()
    world.converge()
    assert failures(world) == {}
    row = world.row("redis")
    assert row["reason"] == "Serving"
    assert row["effectiveRevision"] == row["desiredRevision"] == row["lastGoodRevision"]


def test_after_the_outage_it_has_the_whole_time_and_not_more() -> None:
    world = begun()
    world.unready.add("redis")
    world.step()
    world.settle()
    world.now += timedelta(seconds=DEADLINE["progressDeadlineSeconds"] - 1)
    world.step()
    assert failures(world) == {}
    world.now += timedelta(seconds=1)
    world.step()
    assert [list(found) for found in failures(world).values()] == [["redis"]]
