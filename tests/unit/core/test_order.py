"""Several components: what is changed together is restarted one after the other, and nobody waits for ever."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from world import World

from cos_controllers.observation import Outcome, Ref, ref_of

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


def test_what_never_served_waits_for_nobody() -> None:
    world = World(TWO)
    world.unready.update({"redis", "neo4j"})
    world.step()
    world.settle()
    world.spec = CHANGED
    world.step()
    world.settle()
    assert replaced(world) == ["cos-redis-0", "cos-neo4j-0"]


def test_what_served_waits_while_the_spec_is_tried_on_another_and_not_longer() -> None:
    world = changed_world()
    world.unready.update({"redis", "neo4j"})
    world.settle()
    assert replaced(world) == ["cos-redis-0"]
    world.settle()
    assert replaced(world) == []
    world.unready.discard("redis")
    world.settle()
    assert turn(world) == ["cos-neo4j-0"]


def halted_world(**more: Any) -> World:
    """Redis failed with its part of the spec and is taken back; Neo4j is held back."""
    world = World({**TWO, **more})
    world.converge()
    world.spec = {**CHANGED, **more}
    world.generation += 1
    world.unready.add("redis")
    for _ in range(6):
        world.step()
        world.settle()
        world.now += timedelta(minutes=4)
    world.unready.clear()
    passes(world, 4)
    assert world.row("redis")["reason"] == "RolledBack"
    assert world.row("neo4j")["reason"] == "HeldBack"
    world.deleted.clear()
    return world


def passes(world: World, number: int, seconds: float = 5) -> None:
    for _ in range(number):
        world.settle()
        world.step()
        world.now += timedelta(seconds=seconds)


def drain(world: World) -> None:
    pod = world.objects[Ref("Pod", "cos-neo4j-0")]
    pod["metadata"]["deletionTimestamp"] = "2026-01-01T02:00:00Z"


def lose_pod(world: World) -> None:
    del world.objects[Ref("Pod", "cos-neo4j-0")]


def start_slowly(world: World) -> None:
    lose_pod(world)
    world.unready.add("neo4j")


def answer_not(world: World) -> None:
    world.outcomes["neo4j"] = Outcome.NOT_ANSWERING


@pytest.mark.parametrize("mishap", [drain, lose_pod, start_slowly, answer_not])
def test_what_is_held_back_stays_as_it_runs_whatever_befalls_its_pod(mishap: Callable[[World], None]) -> None:
    world = halted_world()
    before = template(world, "neo4j")
    mishap(world)
    for _ in range(4):
        decided = world.step()
        written = {ref_of(item.obj) for item in decided.applies}
        # A new pod is touched once, so that its files are fresh.
        assert written <= {Ref("Pod", "cos-neo4j-0")}
        assert template(world, "neo4j") == before
        if mishap is not drain:
            world.settle()
    assert world.deleted == []


def test_what_is_held_back_is_so_as_long_as_its_part_is_that_of_the_failed_spec() -> None:
    world = halted_world(traefik={})
    world.spec = {**CHANGED, "traefik": {"replicas": 2}}
    passes(world, 6)
    assert world.row("neo4j")["reason"] == "HeldBack"
    assert world.deleted == []
    world.spec = {**world.spec, "neo4j": {"settings": {"db.transaction.timeout": "31s"}}}
    passes(world, 6)
    assert world.deleted == [Ref("Pod", "cos-neo4j-0")], "another part is another try"


def test_a_wrong_spec_takes_only_one_component_down_whichever_is_down_already() -> None:
    for sick in ("redis", "neo4j"):
        world = World(TWO)
        world.converge()
        world.unready.add(sick)
        world.settle()
        world.spec = CHANGED
        passes(world, 8)
        assert world.deleted == [Ref("Pod", f"cos-{sick}-0")]


NEVER_AGAIN: dict[str, dict[str, Any]] = {
    "nothing is taken back": {"rollback": {"mode": "Off"}},
    "what ran does not come up either": {},
}


@pytest.mark.parametrize("case", NEVER_AGAIN)
def test_nobody_waits_longer_than_the_deadline(case: str) -> None:
    world = World(TWO)
    world.converge()
    world.spec = {"redis": {"maxClients": 60}, "neo4j": {}, **NEVER_AGAIN[case]}
    world.unready.add("redis")
    passes(world, 10, seconds=120)
    world.spec = {**world.spec, "neo4j": CHANGED["neo4j"]}
    passes(world, 20, seconds=120)
    assert Ref("Pod", "cos-neo4j-0") in world.deleted
    assert world.row("neo4j")["ready"] is True


def test_what_is_refused_and_does_not_serve_lets_another_change_and_does_not_take_that_back() -> None:
    spec: dict[str, Any] = {"redis": {}, "traefik": {}}
    world = World(spec)
    world.converge()
    world.refused.add(Ref("Deployment", "cos-traefik"))
    world.outcomes["traefik"] = Outcome.READ_ONLY
    world.spec = {**spec, "traefik": {"image": "ci/traefik:other"}}
    passes(world, 2)
    world.spec = {**world.spec, "redis": {"maxClients": 60}}
    passes(world, 6)
    assert world.deleted == [Ref("Pod", "cos-redis-0")]
    assert world.row("redis")["ready"] is True


def test_a_new_component_that_is_refused_holds_nobody_up() -> None:
    world = World({"redis": {}})
    world.converge()
    world.refused.add(Ref("PersistentVolumeClaim", "cos-neo4j-data-0"))
    world.spec = {"redis": {"maxClients": 60}, "neo4j": {}}
    passes(world, 8)
    assert world.row("neo4j")["reason"] == "ApplyRefused"
    assert world.row("redis")["ready"] is True


def test_a_change_that_must_not_touch_its_volume_is_not_tried_and_has_not_failed() -> None:
    world = World(TWO)
    world.converge()
    before = template(world, "redis")
    claim = world.objects[Ref("PersistentVolumeClaim", "cos-redis-data-0")]
    claim["metadata"]["deletionTimestamp"] = "2026-01-01T02:00:00Z"
    world.spec = {**TWO, "redis": {"maxClients": 60}}
    passes(world, 10, seconds=120)
    assert world.row("redis")["reason"] == "VolumeTerminating"
    assert "failedRevision" not in world.row("redis")
    assert template(world, "redis") == before


@pytest.mark.parametrize(
    "image", [None, "reg/postgres:v17.5", "reg/postgres:17-trixie", "reg/postgres@sha256:0a"]
)
def test_what_waits_is_rendered_as_it_runs_whatever_its_image(image: str | None) -> None:
    own = {"name": "a", "image": image} if image else {"name": "a"}
    world = World({"postgres": [own], "redis": {}})
    world.converge()
    before = template(world, "postgres-a")
    world.unready.add("redis")
    world.settle()
    world.spec = {"postgres": [{**own, "parameters": {"max_connections": "90"}}], "redis": {}}
    decided = world.step()
    assert [item.obj["kind"] for item in decided.applies] == ["ControllerRevision"]
    assert template(world, "postgres-a") == before


def test_what_nobody_knows_how_to_render_is_left_as_it_is() -> None:
    world = World(TWO)
    world.converge()
    for ref in [ref for ref in world.objects if ref.kind == "ControllerRevision"]:
        del world.objects[ref]
    before = template(world, "neo4j")
    world.unready.add("redis")
    world.settle()
    world.spec = CHANGED
    world.step()
    assert template(world, "neo4j") == before


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
    assert conditions == {
        "Ready": "False",
        "Available": "False",
        "Reconciling": "True",
        "Stalled": "False",
        "GatesPassed": "Unknown",
    }
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
