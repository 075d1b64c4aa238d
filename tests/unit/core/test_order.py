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
    """Redis' workload carries a new template, and its pod is still of the old one; Neo4j waits for its turn."""
    world = World(TWO)
    world.converge()
    world.spec = CHANGED
    world.step()
    world.settle()
    return world


def replaced(world: World) -> list[str]:
    return [delete.ref.name for delete in world.step().deletes]


def turn(world: World) -> list[str]:
    """Pods that are replaced once the next component's objects are written."""
    assert replaced(world) == []
    world.settle()
    return replaced(world)


def template(world: World, component: str) -> dict[str, Any]:
    spec: dict[str, Any] = world.objects[Ref("StatefulSet", f"cos-{component}")]["spec"]["template"]
    return spec


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
    assert turn(world) == ["cos-neo4j-0"]
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
        assert world.row("neo4j")["reason"] in {"Waiting", "HeldBack"}
        world.now += timedelta(minutes=4)
    world.unready.clear()
    world.settle()
    world.step()
    assert world.row("redis")["reason"] == "RolledBack"
    assert world.row("neo4j")["reason"] == "HeldBack"
    assert "redis did not serve with its part" in world.row("neo4j")["message"]
    verdicts = {item["type"]: (item["status"], item["reason"]) for item in world.status["conditions"]}
    assert verdicts["Stalled"] == ("True", "RolledBack"), "the cause before its consequence"
    assert verdicts["Reconciling"] == ("False", "Serving"), "nothing goes on by itself"
    assert verdicts["Available"] == ("True", "Serving")
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
    assert turn(world) == ["cos-neo4j-0"]
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
    assert turn(world) == ["cos-neo4j-0"]


def test_a_component_that_does_not_serve_writes_holds_others_up() -> None:
    world = changed_world()
    replaced(world)
    world.settle()
    world.outcomes["redis"] = Outcome.READ_ONLY
    assert replaced(world) == []
    world.outcomes["redis"] = Outcome.SERVING
    assert turn(world) == ["cos-neo4j-0"]


def test_a_component_that_does_not_serve_waits_for_nobody() -> None:
    world = changed_world()
    world.unready.update({"redis", "neo4j"})
    world.settle()
    assert replaced(world) == ["cos-redis-0"]
    world.settle()
    assert replaced(world) == ["cos-neo4j-0"]


def test_what_waits_for_its_turn_comes_back_as_it_was_if_its_pod_is_lost() -> None:
    world = changed_world()
    before = template(world, "neo4j")
    replaced(world)
    world.unready.add("redis")
    config = world.objects[Ref("ConfigMap", "cos-neo4j-config")]["data"]
    for _ in range(6):
        del world.objects[Ref("Pod", "cos-neo4j-0")]
        world.settle()
        world.step()
        assert world.row("neo4j")["effectiveRevision"] == world.row("neo4j")["lastGoodRevision"]
        assert template(world, "neo4j") == before
        assert world.objects[Ref("ConfigMap", "cos-neo4j-config")]["data"] == config
        world.now += timedelta(minutes=4)
    assert world.row("neo4j")["reason"] == "HeldBack"


def test_what_needs_no_pod_reaches_also_a_component_that_waits() -> None:
    world = changed_world()
    replaced(world)
    world.unready.add("redis")
    before = template(world, "neo4j")
    world.spec = {**CHANGED, "neo4j": {**CHANGED["neo4j"], "storage": {"size": "77Gi"}}}
    world.settle()
    world.step()
    claim = world.objects[Ref("PersistentVolumeClaim", "cos-neo4j-data-0")]
    assert claim["spec"]["resources"]["requests"]["storage"] == "77Gi"
    assert template(world, "neo4j") == before


def test_a_failure_holds_up_no_return_to_what_is_known_to_be_good() -> None:
    world = World(TWO)
    world.converge()
    world.spec = {**TWO, "neo4j": CHANGED["neo4j"]}
    world.converge()
    changed = world.pods()["cos-neo4j-0"]
    world.spec = {**TWO, "redis": CHANGED["redis"]}
    world.unready.add("redis")
    for _ in range(6):
        world.step()
        world.settle()
        world.now += timedelta(minutes=4)
    assert world.pods()["cos-neo4j-0"] == changed
    world.unready.clear()
    for _ in range(6):
        world.settle()
        world.step()
    assert world.row("redis")["reason"] == "RolledBack"
    assert world.row("neo4j")["ready"] is True
    assert world.pods()["cos-neo4j-0"] != changed


def test_a_proxy_waits_too_and_others_wait_for_it() -> None:
    spec: dict[str, Any] = {"redis": {}, "traefik": {}}
    changed: dict[str, Any] = {"redis": {"maxClients": 60}, "traefik": {"image": "traefik:other"}}
    world = World(spec)
    world.converge()
    world.spec = changed
    world.step()
    deployment = world.objects[Ref("Deployment", "cos-traefik")]
    assert deployment["spec"]["template"]["spec"]["containers"][0]["image"] != "traefik:other"
    assert "paused" not in deployment["spec"], "it is as it was"
    assert world.row("traefik")["message"].startswith("a change waits until redis")
    world.bad_images.add("traefik:other")
    for _ in range(4):
        world.settle()
        world.step()
    assert world.row("traefik")["reason"] == "ImagePullFailed"
    world.spec = {**changed, "redis": {"maxClients": 61}}
    world.step()
    world.settle()
    assert replaced(world) == []
    assert world.row("redis")["message"].startswith("a change waits until traefik")


def test_a_component_whose_objects_are_refused_holds_nobody_up() -> None:
    world = World(TWO)
    world.converge()
    world.refused.add(Ref("ConfigMap", "cos-redis-config"))
    world.spec = CHANGED
    for _ in range(4):
        world.step()
        world.settle()
    assert world.row("redis")["reason"] == "ApplyRefused"
    assert world.deleted == [Ref("Pod", "cos-neo4j-0")]


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
