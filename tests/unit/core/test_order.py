"""Several components: what is changed together is restarted one after the other, and nobody waits for ever."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from world import World

from cos_controllers.observation import Outcome, Ref

TWO: dict[str, Any] = {"redis": {}, "neo4j": {}}
CHANGED: dict[str, Any] = {
    "redis": {"maxClients": 60},
    "neo4j": {"settings": {"db.transaction.timeout": "30s"}},
}


def changed_world() -> World:
    """Both workloads carry a new template; both pods are still of the old one."""
    world = World(TWO)
    world.converge()
    world.spec = CHANGED
    world.step()
    world.settle()
    return world


def replaced(world: World) -> list[str]:
    return [delete.ref.name for delete in world.step().deletes]


def test_components_are_restarted_one_at_a_time() -> None:
    world = changed_world()
    assert replaced(world) == ["cos-redis-0"]
    assert world.row("neo4j")["reason"] == "Waiting"
    assert world.row("neo4j")["ready"] is False
    world.unready.add("redis")
    world.settle()
    assert replaced(world) == [], "Redis is not back yet"
    world.unready.clear()
    world.settle()
    assert replaced(world) == ["cos-neo4j-0"]
    world.converge()
    assert world.status["summary"] == "2/2"


def test_a_spec_that_fails_on_one_component_is_not_tried_on_the_next() -> None:
    world = changed_world()
    replaced(world)
    neo4j = world.pods()["cos-neo4j-0"]
    world.unready.add("redis")
    for _ in range(6):
        world.settle()
        assert "cos-neo4j-0" not in replaced(world)
        assert world.row("neo4j")["reason"] == "Waiting"
        world.now += timedelta(minutes=4)
    world.unready.clear()
    world.settle()
    world.step()
    assert world.row("redis")["reason"] == "RolledBack"
    assert "redis did not serve with its part" in world.row("neo4j")["message"]
    assert world.pods()["cos-neo4j-0"] == neo4j
    world.spec = {**CHANGED, "redis": {"maxClients": 61}}
    world.converge()
    assert world.status["summary"] == "2/2", "the mended spec goes on to the others"
    assert world.pods()["cos-neo4j-0"] != neo4j


def test_what_was_taken_back_holds_up_no_later_spec() -> None:
    world = changed_world()
    world.spec = {**TWO, "redis": {"maxClients": 60}}
    world.unready.add("redis")
    for _ in range(6):
        world.step()
        world.settle()
        world.now += timedelta(minutes=4)
    world.unready.clear()
    world.settle()
    world.spec = CHANGED
    world.step()
    world.settle()
    assert replaced(world) == ["cos-neo4j-0"]
    assert world.row("redis")["reason"] == "RolledBack", "an edit elsewhere does not try it again"


def test_nobody_waits_for_ever_for_one_that_fails_for_reasons_of_its_own() -> None:
    world = World(TWO)
    world.converge()
    world.unready.add("redis")
    world.settle()
    world.spec = {**TWO, "neo4j": CHANGED["neo4j"]}
    world.step()
    world.settle()
    assert replaced(world) == []
    world.now += timedelta(minutes=11)
    assert replaced(world) == ["cos-neo4j-0"]


def test_a_component_that_does_not_serve_writes_holds_others_up() -> None:
    world = changed_world()
    replaced(world)
    world.settle()
    world.outcomes["redis"] = Outcome.READ_ONLY
    assert replaced(world) == []
    world.outcomes["redis"] = Outcome.SERVING
    assert replaced(world) == ["cos-neo4j-0"]


def test_a_component_that_does_not_serve_waits_for_nobody() -> None:
    world = changed_world()
    world.unready.update({"redis", "neo4j"})
    world.settle()
    assert replaced(world) == ["cos-redis-0", "cos-neo4j-0"]


def test_available_while_a_change_waits() -> None:
    world = changed_world()
    world.step()
    conditions = {item["type"]: item["status"] for item in world.status["conditions"]}
    assert conditions == {"Ready": "False", "Available": "False", "Reconciling": "True", "Stalled": "False"}
    assert world.condition("Available")["message"].startswith("redis: ")


def test_a_removed_component_leaves_its_volume_listed() -> None:
    world = World(TWO)
    world.converge()
    world.spec = {"redis": {}}
    world.converge()
    assert world.status["retained"] == [{"component": "neo4j", "claim": "cos-neo4j-data-0"}]
    assert {ref.kind for ref in world.objects if "neo4j" in ref.name} == {"PersistentVolumeClaim", "Secret"}
    volume = world.objects[Ref("PersistentVolumeClaim", "cos-neo4j-data-0")]["metadata"]["uid"]
    world.spec = TWO
    world.converge()
    assert "retained" not in world.status or world.status["retained"] == []
    assert world.objects[Ref("PersistentVolumeClaim", "cos-neo4j-data-0")]["metadata"]["uid"] == volume


def test_one_blocked_component_does_not_stop_the_others() -> None:
    world = World({"redis": {"authSecretRef": {"name": "missing"}}, "neo4j": {}})
    world.converge()
    assert world.row("neo4j")["ready"] is True
    assert world.row("redis")["reason"] == "SecretNotFound"
    assert world.status["summary"] == "1/2"
