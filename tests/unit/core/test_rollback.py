"""A change that does not serve takes itself back, from situations as data."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from world import World

from cos_controllers.api.stack import CosStackSpec
from cos_controllers.components.registry import ENGINES
from cos_controllers.conditions import rolled_back, timestamp, turned
from cos_controllers.history import read_history
from cos_controllers.observation import Outcome, Ref

BAD = "redis:does-not-exist"
SPEC: dict[str, Any] = {"redis": {}, "traefik": {}, "progressDeadlineSeconds": 60}
WRONG: dict[str, Any] = {**SPEC, "redis": {"image": BAD}}
WORKLOADS = {"redis": "StatefulSet", "traefik": "Deployment"}


def good_world(spec: dict[str, Any] | None = None) -> World:
    world = World(spec or SPEC)
    world.bad_images.add(BAD)
    world.converge()
    assert world.condition("Ready")["status"] == "True"
    return world


def edit(world: World, spec: dict[str, Any]) -> None:
    world.spec = spec
    world.generation += 1


def run(world: World, minutes: float) -> None:
    """Passes of operator and cluster, each 10 s after the last."""
    for _ in range(int(minutes * 6)):
        world.step()
        world.settle()
        world.now += timedelta(seconds=10)


def image_of(world: World, component: str) -> str:
    workload = world.objects[Ref(WORKLOADS[component], f"cos-{component}")]
    return str(workload["spec"]["template"]["spec"]["containers"][0]["image"])


def rolled_back_world() -> World:
    world = good_world()
    edit(world, WRONG)
    run(world, 3)
    return world


def test_the_image_to_go_back_to_is_one_that_a_pod_can_ask_for() -> None:
    """As cri-dockerd tells it."""
    world = World(SPEC)
    world.image_prefix = "docker-pullable://"
    world.bad_images.add(BAD)
    world.converge()
    edit(world, WRONG)
    run(world, 3)
    assert world.row("redis")["reason"] == "RolledBack"
    assert image_of(world, "redis").startswith("redis@sha256:")


def test_a_bad_image_is_taken_back_and_the_rest_is_not_touched() -> None:
    world = good_world()
    before, digest = world.pods(), None
    row = world.row("redis")
    good = row["desiredRevision"]
    edit(world, WRONG)
    run(world, 0.8)
    assert world.row("redis")["reason"] == "ImagePullFailed"
    assert world.condition("Available")["status"] == "False"
    run(world, 2)
    row = world.row("redis")
    assert row["reason"] == "RolledBack"
    assert row["effectiveRevision"] == row["lastGoodRevision"] == good
    assert row["desiredRevision"] == row["failedRevision"] != good
    assert good in row["message"]
    assert row["failedRevision"] in row["message"]
    assert f"no image {BAD}" in row["message"]
    assert {c["type"]: (c["status"], c["reason"]) for c in world.status["conditions"]} == {
        "Ready": ("False", "RolledBack"),
        "Stalled": ("True", "RolledBack"),
        "Available": ("True", "Serving"),
        "Reconciling": ("False", "Serving"),
        "GatesPassed": ("Unknown", "GateUnknown"),
    }
    digest = image_of(world, "redis")
    assert digest.startswith("redis@sha256:"), "pinned to what ran"
    untouched = {name: uid for name, uid in before.items() if "traefik" in name}
    assert untouched.items() <= world.pods().items()
    assert world.spec == WRONG, "the spec is the user's"


def test_what_was_taken_back_is_not_tried_again_and_nothing_is_written() -> None:
    world = rolled_back_world()
    pods = world.pods()
    status = world.status
    for _ in range(5):
        world.now += timedelta(hours=1)
        decided = world.step()
        assert (decided.applies, decided.deletes) == ((), ())
    assert world.status == status
    world.status = {}
    run(world, 3)
    assert world.pods() == pods, "what is known of it is not in the status"
    assert world.row("redis")["reason"] == "RolledBack"


def test_writing_the_old_spec_back_restarts_nothing() -> None:
    world = rolled_back_world()
    pods = world.pods()
    edit(world, SPEC)
    world.converge()
    assert world.condition("Ready")["status"] == "True"
    assert "failedRevision" not in world.row("redis")
    assert world.pods() == pods


def test_the_same_spec_is_tried_anew_after_another() -> None:
    world = rolled_back_world()
    edit(world, SPEC)
    world.converge()
    world.bad_images.clear()
    edit(world, WRONG)
    world.converge()
    assert world.condition("Ready")["status"] == "True"
    assert image_of(world, "redis") == BAD


def test_a_corrected_spec_is_tried_at_once() -> None:
    world = rolled_back_world()
    edit(world, {**WRONG, "redis": {"maxClients": 61}})
    world.converge()
    assert world.condition("Ready")["status"] == "True"
    assert image_of(world, "redis") == "redis:8.0"


def test_mode_off_takes_nothing_back_and_tries_again_what_was() -> None:
    off: dict[str, Any] = {"rollback": {"mode": "Off"}}
    world = good_world()
    edit(world, {**WRONG, **off})
    run(world, 5)
    assert world.row("redis")["reason"] == "ImagePullFailed"
    edit(world, WRONG)
    run(world, 1)
    assert world.row("redis")["reason"] == "RolledBack"
    edit(world, {**WRONG, **off})
    world.bad_images.clear()
    world.converge()
    assert world.condition("Ready")["status"] == "True"


def test_a_first_start_has_nothing_to_fall_back_to() -> None:
    world = World(WRONG)
    world.bad_images.add(BAD)
    run(world, 5)
    assert world.row("redis")["reason"] == "ImagePullFailed"
    assert world.row("traefik")["reason"] == "Serving"


def test_a_revision_that_has_served_is_not_taken_back_when_it_fails_later() -> None:
    world = good_world()
    edit(world, {**SPEC, "redis": {"maxClients": 61}})
    world.converge()
    world.unready.add("redis")
    run(world, 5)
    assert world.row("redis")["reason"] == "NotStarting"
    assert "failedRevision" not in world.row("redis")


def test_an_engine_that_serves_for_a_moment_only_has_not_served() -> None:
    world = good_world()
    edit(world, {**SPEC, "redis": {"maxClients": 61}})
    for _ in range(20):
        world.unready ^= {"redis"}
        world.step()
        world.settle()
        world.now += timedelta(seconds=8)
    assert world.row("redis").get("failedRevision"), world.row("redis")


def test_one_answer_does_not_make_a_revision_good() -> None:
    """A pod that kubelet calls ready for long, of an engine that has not answered the operator."""
    world = good_world()
    edit(world, {**SPEC, "redis": {"maxClients": 61}})
    world.outcomes["redis"] = Outcome.NOT_ANSWERING
    run(world, 0.5)
    world.outcomes["redis"] = Outcome.SERVING
    world.step()
    row = world.row("redis")
    assert row["lastGoodRevision"] != row["desiredRevision"]
    world.now += timedelta(seconds=10)
    world.step()
    assert world.row("redis")["lastGoodRevision"] == row["desiredRevision"]


def unwatched_world() -> World:
    """A change whose pod came up while no operator ran, for hours."""
    world = good_world()
    edit(world, {**SPEC, "redis": {"maxClients": 61}})
    while Ref("Pod", "cos-redis-0") not in world.deleted:
        world.step()
        world.settle()
    world.now += timedelta(hours=3)
    return world


@pytest.mark.parametrize("paused", [False, True])
def test_a_change_is_taken_back_to_what_ran_also_if_nobody_watched_it(paused: bool) -> None:  # noqa: FBT001
    world = unwatched_world()
    ran = world.objects[Ref("Pod", "cos-redis-0")]["metadata"]["annotations"]["cos.dev/revision"]
    if paused:
        edit(world, {**world.spec, "paused": True})
        run(world, 1)
    edit(world, WRONG)
    run(world, 3)
    assert world.row("redis")["reason"] == "RolledBack"
    assert world.row("redis")["effectiveRevision"] == ran


def test_a_change_waits_until_it_is_known_whether_what_runs_is_good_and_not_longer() -> None:
    world = unwatched_world()
    edit(world, {**SPEC, "redis": {"maxClients": 62}})
    decided = world.step()
    assert "whether what runs is good" in world.row("redis")["message"]
    assert decided.requeue_after
    assert decided.requeue_after <= 10
    world.now += timedelta(seconds=10)
    assert world.step().requeue_after == 0.1, "what was learnt is written first"
    world.step()
    assert world.row("redis")["message"] == "a change is being applied"
    other = unwatched_world()
    other.unready.add("redis")
    other.settle()
    edit(other, {**SPEC, "redis": {"maxClients": 62}})
    other.step()
    assert "good" not in other.row("redis")["message"], "what does not serve has nothing to lose"


@pytest.mark.parametrize("ahead", [timedelta(minutes=3), timedelta(days=30)])
def test_a_clock_that_is_ahead_puts_nothing_off(ahead: timedelta) -> None:
    world = World(SPEC)
    for _ in range(4):
        world.step()
        world.settle()
        for ref, pod in world.objects.items():
            if ref.kind == "Pod":
                pod["status"]["conditions"][0]["lastTransitionTime"] = timestamp(world.now + ahead)
        world.now += timedelta(seconds=10)
    world.step()
    assert world.row("redis")["lastGoodRevision"] == world.row("redis")["desiredRevision"]


def test_a_change_that_could_not_be_written_has_not_failed() -> None:
    world = good_world()
    world.refused.add(Ref("StatefulSet", "cos-redis"))
    edit(world, {**SPEC, "redis": {"maxClients": 61}})
    run(world, 10)
    assert world.row("redis")["reason"] == "ApplyRefused"
    assert "failedRevision" not in world.row("redis")
    before = world.status
    world.step()
    assert world.status == before, "and nothing is written meanwhile"
    world.refused.clear()
    world.converge()
    assert world.condition("Ready")["status"] == "True"


def test_a_last_good_spec_that_breaks_a_newer_rule_is_told_once(monkeypatch: pytest.MonkeyPatch) -> None:
    world = good_world()
    edit(world, WRONG)

    def refused(_: Any) -> Any:
        return CosStackSpec.model_validate({"redis": {"version": "17 "}})

    monkeypatch.setattr("cos_controllers.resolve.spec_of", refused)
    run(world, 3)
    row = world.row("redis")
    assert row["reason"] == "RollbackRefused"
    assert "breaks a rule that is newer than it: redis.version" in row["message"]
    decided = world.decide()
    assert (decided.applies, decided.deletes) == ((), ())
    assert decided.requeue_after
    assert decided.requeue_after >= 2


def test_a_foreign_revision_of_our_name_is_a_conflict_and_no_loop() -> None:
    world = good_world()
    edit(world, WRONG)
    name = read_history(world.stack, world.snapshot()).current.name
    owner = {"kind": "Other", "name": "x", "uid": "y", "controller": True}
    world.objects[Ref("ControllerRevision", name)] = {
        "apiVersion": "apps/v1",
        "kind": "ControllerRevision",
        "metadata": {"name": name, "uid": "z", "ownerReferences": [owner]},
    }
    run(world, 3)
    assert world.row("redis")["reason"] == "NameConflict"
    decided = world.decide()
    assert (decided.applies, decided.deletes) == ((), ())
    assert decided.requeue_after
    assert decided.requeue_after >= 2


def recovering_world() -> World:
    """A Postgres that does not serve yet after a change."""
    world = World({"postgres": [{"name": "prod"}], "progressDeadlineSeconds": 60})
    world.converge()
    edit(world, {**world.spec, "postgres": [{"name": "prod", "parameters": {"max_connections": "50"}}]})
    world.unready.add("postgres-prod")
    return world


def test_progress_puts_the_deadline_off() -> None:
    world = recovering_world()
    line = "LOG:  redo in progress, elapsed time: {}.00 s, current LSN: 0/{:X}\n"
    for step in range(30):
        noise = "FATAL:  the database system is not yet accepting connections\n" * 3
        world.logs["postgres-prod"] = line.format(step, step) + noise
        run(world, 0.2)
    row = world.row("postgres-prod")
    assert (row["reason"], row["progress"]) == ("Starting", "0/1D")
    run(world, 2)
    assert world.row("postgres-prod")["failedRevision"], "and no longer"


def test_an_engine_that_crashes_on_its_way_makes_no_progress_by_beginning_anew() -> None:
    world = recovering_world()
    line = "LOG:  redo in progress, elapsed time: 10.00 s, current LSN: 0/{:X}\n"
    for step in range(60):
        world.logs["postgres-prod"] = line.format((0xF0, 0x100, 0x110)[step % 3])
        run(world, 0.2)
    assert world.row("postgres-prod")["failedRevision"]


def test_what_needs_no_pod_stays_as_the_spec_has_it_now() -> None:
    world = rolled_back_world()
    routes = [{"name": "web", "service": {"name": "web", "port": 80}}]
    edit(world, {**WRONG, "redis": {"image": BAD, "storage": {"size": "3Gi"}}, "traefik": {"routes": routes}})
    run(world, 1)
    claim = world.objects[Ref("PersistentVolumeClaim", "cos-redis-data-0")]
    assert claim["spec"]["resources"]["requests"]["storage"] == "3Gi"
    assert world.row("redis")["reason"] == "RolledBack"
    assert world.row("traefik")["reason"] == "Serving"


def test_a_bad_proxy_is_taken_back_while_the_old_one_serves() -> None:
    world = good_world()
    pods = world.pods()
    edit(world, {**SPEC, "traefik": {"image": BAD}})
    run(world, 3)
    assert world.row("traefik")["reason"] == "RolledBack"
    assert world.condition("Available")["status"] == "True"
    assert f"no image {BAD}" in world.row("traefik")["message"]
    assert world.pods() == pods, "what serves is left alone"
    edit(world, SPEC)
    world.converge()
    assert world.condition("Ready")["status"] == "True"
    assert world.pods() == pods


def test_everyone_is_told_once() -> None:
    world = good_world()
    edit(world, WRONG)
    told: list[str] = []
    counted = 0
    for _ in range(40):
        decided = world.decide()
        told += [item.message for item in turned(world.stack, decided.status) if item.reason == "RolledBack"]
        counted += len(rolled_back(world.stack, decided.status))
        run(world, 0.17)
    assert counted == 1
    (message,) = told
    assert message.startswith(f"redis: revision {world.row('redis')['failedRevision']} did not serve in time")
    assert f"revision {world.row('redis')['lastGoodRevision']} runs again" in message
    assert f"no image {BAD}" in message


@given(cuts=st.lists(st.integers(min_value=0, max_value=3), max_size=40))
@settings(max_examples=6, deadline=None)
def test_dying_between_any_two_writes_changes_nothing(cuts: list[int]) -> None:
    whole, cut = rolled_back_world(), good_world()
    edit(cut, WRONG)
    for number in cuts:
        cut.step(writes=number)
        cut.settle()
        cut.now += timedelta(seconds=2)
    run(cut, 5)
    assert cut.row("redis")["reason"] == "RolledBack"
    assert image_of(cut, "redis") == image_of(whole, "redis")
    assert {ref for ref in cut.objects if ref.kind != "Pod"} == {
        ref for ref in whole.objects if ref.kind != "Pod"
    }


MAY_OPEN = [
    ("postgres", "17", "17.5", True),
    ("postgres", "17.5", "17.2", True),
    ("postgres", "16", "17", False),
    ("postgres", "", "17", True),
    ("redis", "8.0", "8.2", True),
    ("redis", "8.2", "8.0", False),
    ("redis", "8.2.3", "8.2", True),
    ("redis", "8.2.3", "8.2.1", True),
    ("elasticsearch", "8.18.2", "8.19.5", True),
    ("elasticsearch", "8.19.5", "8.19.4", False),
    ("elasticsearch", "8.19.5", "8.18.9", False),
    ("elasticsearch", "7.17.29", "8.19.5", True),
    ("elasticsearch", "7.10.2", "8.19.5", False),
    ("elasticsearch", "", "8.19.5", True),
    ("neo4j", "5.26", "5.26.12", True),
    ("neo4j", "5.26.12", "5.26.1", True),
    ("neo4j", "5.26", "5.25", False),
    ("neo4j", "4.4", "5.26", False),
    ("traefik", "v3.6.12", "v3.5.0", True),
]


@pytest.mark.parametrize(("engine", "data", "target", "allowed"), MAY_OPEN)
def test_what_may_run_on_a_volume(engine: str, data: str, target: str, allowed: bool) -> None:  # noqa: FBT001
    found = next(item for item in ENGINES if item.kind == engine).may_open(data, target)
    assert (found == "") is allowed, found
    if found:
        assert data in found
        assert "empty volume" in found or "instance of another name" in found, "the way out"


def claim_version(world: World, component: str) -> str | None:
    claim = world.objects[Ref("PersistentVolumeClaim", f"cos-{component}-data-0")]
    version: str | None = (claim["metadata"].get("annotations") or {}).get("cos.dev/data-version")
    return version


ES: dict[str, Any] = {"elasticsearch": {"version": "8.18.2"}, "progressDeadlineSeconds": 60}
NEWER: dict[str, Any] = {**ES, "elasticsearch": {"version": "8.19.5"}}


def test_the_volume_knows_what_was_started_on_it() -> None:
    world = good_world(ES)
    assert claim_version(world, "elasticsearch") == "8.18.2"
    edit(world, NEWER)
    world.converge()
    assert claim_version(world, "elasticsearch") == "8.19.5"


def test_the_volume_knows_what_an_image_started_on_it() -> None:
    world = good_world(ES)
    edit(
        world,
        {**ES, "elasticsearch": {"version": "8.18.2", "image": "mirror.example.com/elasticsearch:8.19.5"}},
    )
    world.converge()
    assert claim_version(world, "elasticsearch") == "8.19.5"
    edit(world, ES)
    world.step()
    assert world.row("elasticsearch")["reason"] == "VersionRefused"


def newer_has_started() -> World:
    """The newer version has opened the volume, and no pass has seen it yet."""
    world = good_world(ES)
    edit(world, NEWER)
    world.unready.add("elasticsearch")
    while not world.deleted:
        world.step()
        world.settle()
    assert claim_version(world, "elasticsearch") == "8.18.2"
    return world


def test_a_growth_that_is_refused_keeps_no_version_from_being_recorded() -> None:
    world = good_world(ES)
    world.may_grow = False
    edit(world, {**NEWER, "elasticsearch": {"version": "8.19.5", "storage": {"size": "99Gi"}}})
    for _ in range(20):
        world.step()
        world.settle()
    assert claim_version(world, "elasticsearch") == "8.19.5"


def test_what_has_opened_the_volume_is_recorded_also_when_the_spec_no_longer_wants_it() -> None:
    world = newer_has_started()
    edit(world, ES)
    world.step()
    assert claim_version(world, "elasticsearch") == "8.19.5"
    assert world.row("elasticsearch")["reason"] == "VersionRefused"


def test_a_component_goes_only_after_it_is_recorded_what_has_opened_its_volume() -> None:
    world = newer_has_started()
    edit(world, {"redis": {}})
    decided = world.step(writes=0)
    assert Ref("StatefulSet", "cos-elasticsearch") not in [delete.ref for delete in decided.deletes]
    world.step()
    assert claim_version(world, "elasticsearch") == "8.19.5"
    world.converge()
    assert Ref("StatefulSet", "cos-elasticsearch") not in world.objects
    claim = world.objects[Ref("PersistentVolumeClaim", "cos-elasticsearch-data-0")]
    assert claim["spec"]["resources"], "nothing else of the volume has changed"


def test_no_pod_is_replaced_before_it_is_recorded_what_has_opened_its_volume() -> None:
    world = newer_has_started()
    edit(world, {**NEWER, "elasticsearch": {"version": "8.19.6"}})
    world.settle()
    assert world.step(writes=0).deletes == ()


def test_a_forbidden_step_is_refused_before_anything_is_touched() -> None:
    world = good_world(NEWER)
    pods = world.pods()
    edit(world, ES)
    decided = world.step()
    assert [apply.obj["kind"] for apply in decided.applies] == ["ControllerRevision"]
    assert world.row("elasticsearch")["reason"] == "VersionRefused"
    assert "write 8.19.5 or newer" in world.row("elasticsearch")["message"]
    assert world.condition("Available")["status"] == "True"
    world.converge()
    assert world.pods() == pods


def test_a_retained_volume_is_not_opened_by_a_version_that_may_not() -> None:
    world = good_world({**NEWER, "redis": {}})
    edit(world, {"redis": {}})
    world.converge()
    assert world.status["retained"] == [{"component": "elasticsearch", "claim": "cos-elasticsearch-data-0"}]
    edit(world, {**ES, "redis": {}})
    world.step()
    assert world.row("elasticsearch")["reason"] == "VersionRefused"
    edit(world, {**NEWER, "redis": {}})
    world.converge()
    assert world.condition("Ready")["status"] == "True"


def test_a_newer_version_that_never_started_is_taken_back() -> None:
    world = good_world(ES)
    world.bad_images.add("docker.elastic.co/elasticsearch/elasticsearch:8.19.5")
    edit(world, NEWER)
    run(world, 4)
    assert world.row("elasticsearch")["reason"] == "RolledBack"
    assert claim_version(world, "elasticsearch") == "8.18.2"


def test_a_newer_version_that_has_opened_the_volume_cannot_be_taken_back() -> None:
    world = good_world(ES)
    edit(world, NEWER)
    world.unready.add("elasticsearch")
    run(world, 4)
    row = world.row("elasticsearch")
    assert row["reason"] == "RollbackRefused"
    assert "8.18.2 refuses data that 8.19.5 has opened" in row["message"]
    assert image_of_elasticsearch(world).endswith(":8.19.5")
    world.unready.clear()
    world.converge()
    assert world.condition("Ready")["status"] == "True", "what serves after all has not failed"
    history = [obj for ref, obj in world.objects.items() if ref.kind == "ControllerRevision"]
    assert not any(json.loads(o["metadata"]["annotations"].get("cos.dev/failed", "{}")) for o in history)


def image_of_elasticsearch(world: World) -> str:
    workload = world.objects[Ref("StatefulSet", "cos-elasticsearch")]
    return str(workload["spec"]["template"]["spec"]["containers"][0]["image"])


def test_an_engine_that_refuses_writes_is_taken_back_too() -> None:
    world = good_world()
    edit(world, {**SPEC, "redis": {"maxClients": 61}})
    for _ in range(30):
        pod = world.objects.get(Ref("Pod", "cos-redis-0"))
        is_new = pod and pod["metadata"]["annotations"]["cos.dev/revision"] == world.row("redis").get(
            "desiredRevision"
        )
        world.outcomes["redis"] = Outcome.READ_ONLY if is_new else Outcome.SERVING
        run(world, 0.17)
    assert world.row("redis")["reason"] == "RolledBack"
