"""What is decided, from situations as data."""

from __future__ import annotations

import base64
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from world import World

from cos_controllers.conditions import turned
from cos_controllers.drift import needs_apply
from cos_controllers.names import MANAGER
from cos_controllers.observation import Outcome, Ref, WarningEvent
from cos_controllers.plan import Plan

REDIS: dict[str, Any] = {"redis": {}}


def writes(plan: Plan) -> int:
    return len(plan.applies) + len(plan.deletes) + len(plan.provisions)


def kinds(plan: Plan) -> list[str]:
    return [apply.obj["kind"] for apply in plan.applies]


def ready_world(spec: dict[str, Any] | None = None) -> World:
    world = World(spec or REDIS)
    world.converge()
    assert world.condition("Ready")["status"] == "True", world.status
    return world


def secret(name: str, **data: str) -> dict[str, Any]:
    encoded = {key: base64.b64encode(value.encode()).decode() for key, value in data.items()}
    return {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name, "uid": name}, "data": encoded}


def test_a_new_stack_becomes_ready_and_then_rests() -> None:
    world = World(REDIS)
    first = world.step()
    assert [apply.force for apply in first.applies] == [False] * len(first.applies)
    assert world.row("redis")["reason"] == "Creating"
    assert world.condition("Ready")["status"] == "False"
    rest = world.converge()
    assert writes(rest) == 0
    assert world.status["summary"] == "1/1"
    assert world.row("redis")["reason"] == "Serving"
    assert {c["type"]: c["status"] for c in world.status["conditions"]} == {
        "Ready": "True",
        "Available": "True",
        "Reconciling": "False",
        "Stalled": "False",
        "GatesPassed": "Unknown",
    }
    assert rest.requeue_after is None, "it rests"


@given(cuts=st.lists(st.integers(min_value=0, max_value=12), max_size=12))
@settings(max_examples=25, deadline=None)
def test_dying_between_any_two_writes_is_repaired_by_the_next_pass(cuts: list[int]) -> None:
    whole, cut = ready_world(), World(REDIS)
    for number in cuts:
        cut.step(writes=number)
        cut.settle()
    cut.converge()
    assert set(cut.objects) == set(whole.objects)
    assert cut.condition("Ready")["status"] == "True"
    seed = cut.objects[Ref("Secret", "cos-seed")]["data"]["seed"]
    assert cut.objects[Ref("Secret", "cos-redis-admin")]["data"]["seed"] == seed


def test_a_changed_parameter_replaces_the_pod_once() -> None:
    world = ready_world()
    before = world.pods()
    world.spec = {"redis": {"maxClients": 60}}
    world.generation += 1
    world.step()
    assert world.pods() == before, "the workload changes before its pod is replaced"
    world.settle()
    decided = world.step()
    assert [delete.ref for delete in decided.deletes] == [Ref("Pod", "cos-redis-0")]
    assert world.row("redis")["reason"] == "Restarting"
    assert world.condition("Reconciling")["status"] == "True"
    world.converge()
    assert world.pods() != before
    assert world.deleted == [Ref("Pod", "cos-redis-0")]
    assert world.row("redis")["desiredRevision"] == world.row("redis")["effectiveRevision"]


def test_a_pod_is_not_replaced_before_the_workload_controller_has_seen_the_change() -> None:
    world = ready_world()
    world.spec = {"redis": {"maxClients": 60}}
    world.step()
    assert world.decide().deletes == ()


def test_a_crash_looping_pod_of_an_earlier_template_is_replaced() -> None:
    world = ready_world()
    world.unready.add("redis")
    world.settle()
    world.spec = {"redis": {"maxClients": 60}}
    world.step()
    world.settle()
    assert [delete.ref.name for delete in world.decide().deletes] == ["cos-redis-0"]


def test_paused_writes_nothing_and_keeps_status_live() -> None:
    world = ready_world()
    world.spec = {"redis": {"maxClients": 60}, "paused": True}
    world.unready.add("redis")
    world.settle()
    decided = world.step()
    assert writes(decided) == 0
    assert world.row("redis")["reason"] == "Starting"
    assert world.condition("Reconciling")["reason"] == "Paused"


def test_a_missing_secret_stalls_with_a_reason_and_heals() -> None:
    world = World({"redis": {"authSecretRef": {"name": "mine"}}})
    decided = world.step()
    assert kinds(decided) == ["ControllerRevision"]
    assert world.condition("Stalled") == {
        **world.condition("Stalled"),
        "status": "True",
        "reason": "SecretNotFound",
        "message": "redis: Secret mine (authSecretRef) does not exist: create it with a key password",
    }
    world.references["mine"] = secret("mine", password="correct-horse")
    world.converge()
    assert world.condition("Ready")["status"] == "True"
    assert world.condition("Stalled")["status"] == "False"
    data = world.objects[Ref("Secret", "cos-redis-app")]["data"]
    assert base64.b64decode(data["password"]).decode() == "correct-horse"


@pytest.mark.parametrize(
    "password", ["", "short", "with space", "line\nbreak", "ends-with-newline\n", "x" * 129]
)
def test_an_unusable_password_is_refused_by_name(password: str) -> None:
    world = World({"redis": {"authSecretRef": {"name": "mine"}}})
    world.references["mine"] = secret("mine", password=password)
    world.step()
    assert world.row("redis")["reason"] == "SecretInvalid"
    assert "Secret mine" in world.row("redis")["message"]
    assert password == "" or password not in world.row("redis")["message"]


def test_a_secret_that_vanishes_later_prunes_nothing() -> None:
    world = World({"redis": {"authSecretRef": {"name": "mine"}}})
    world.references["mine"] = secret("mine", password="correct-horse")
    world.converge()
    before = set(world.objects)
    del world.references["mine"]
    assert writes(world.step()) == 0
    assert set(world.objects) == before


def test_a_foreign_object_of_a_needed_name_is_never_taken_over() -> None:
    world = World(REDIS)
    foreign = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "cos-redis", "uid": "x"},
        "spec": {},
    }
    world.objects[Ref("Service", "cos-redis")] = foreign
    decided = world.step()
    assert kinds(decided) == ["ControllerRevision"]
    assert world.row("redis")["reason"] == "NameConflict"
    assert "Service cos-redis" in world.row("redis")["message"]


def test_what_a_deleted_stack_of_the_same_name_left_is_waited_for() -> None:
    world = ready_world()
    world.uid = "another-stack"
    world.step()
    assert world.row("redis")["reason"] == "Creating"
    assert "is being removed" in world.row("redis")["message"]
    assert world.condition("Stalled")["status"] == "False"


def test_a_foreign_seed_blocks_what_needs_it() -> None:
    world = World(REDIS)
    world.objects[Ref("Secret", "cos-seed")] = secret("cos-seed", seed="00")
    assert kinds(world.step()) == ["ControllerRevision"]
    assert world.row("redis")["reason"] == "NameConflict"


def test_deleted_children_come_back_with_the_same_credentials() -> None:
    world = ready_world()
    before = {ref: world.objects[ref]["data"] for ref in world.objects if ref.kind == "Secret"}
    for ref, data in before.items():
        del world.objects[ref]
        world.converge()
        assert world.objects[ref]["data"] == data, ref


def test_a_removed_component_keeps_volume_and_credentials_and_finds_them_again() -> None:
    spec = {"redis": {}, "postgres": []}
    world = ready_world(spec)
    kept = world.objects[Ref("PersistentVolumeClaim", "cos-redis-data-0")]["metadata"]["uid"]
    world.uid, world.spec = "another-stack", {"redis": {}}
    # Deletion of the stack: the garbage collector removes what has an owner.
    for ref, obj in list(world.objects.items()):
        if obj["metadata"].get("ownerReferences"):
            del world.objects[ref]
    names = {ref.name for ref in world.objects}
    assert names == {"cos-seed", "cos-redis-admin", "cos-redis-app", "cos-redis-data-0"}
    world.converge()
    assert world.objects[Ref("PersistentVolumeClaim", "cos-redis-data-0")]["metadata"]["uid"] == kept


def test_deletion_policy_delete_gives_volumes_and_credentials_an_owner() -> None:
    world = ready_world({"redis": {}, "deletionPolicy": "Delete"})
    without = [ref for ref, obj in world.objects.items() if not obj["metadata"].get("ownerReferences")]
    assert without == []


def test_the_newest_serial_of_a_volume_is_used() -> None:
    world = ready_world()
    claim = world.objects.pop(Ref("PersistentVolumeClaim", "cos-redis-data-0"))
    for serial in (0, 2, 10):
        name = f"cos-redis-data-{serial}"
        world.objects[Ref("PersistentVolumeClaim", name)] = {
            **claim,
            "metadata": {**claim["metadata"], "name": name},
        }
    world.converge()
    spec = world.objects[Ref("StatefulSet", "cos-redis")]["spec"]["template"]["spec"]
    claims = [
        v["persistentVolumeClaim"]["claimName"] for v in spec["volumes"] if "persistentVolumeClaim" in v
    ]
    assert claims == ["cos-redis-data-10"]


def test_a_volume_never_shrinks_and_the_way_out_is_named() -> None:
    world = ready_world({"redis": {"storage": {"size": "2Gi"}}})
    world.spec = {"redis": {"storage": {"size": "1Gi"}}}
    assert kinds(world.step()) == ["ControllerRevision"]
    row = world.row("redis")
    assert (row["reason"], row["ready"]) == ("ShrinkRefused", False)
    assert "write 2Gi or more" in row["message"]
    assert world.condition("Available")["status"] == "True"
    world.spec = {"redis": {"storage": {"size": "3Gi"}}}
    world.converge()
    claim = world.objects[Ref("PersistentVolumeClaim", "cos-redis-data-0")]
    assert claim["spec"]["resources"]["requests"]["storage"] == "3Gi"


def test_refused_credentials_are_provisioned_and_after_a_minute_a_person_is_told() -> None:
    world = ready_world()
    world.outcomes["redis"] = Outcome.CREDENTIALS_REFUSED
    decided = world.decide()
    assert [target.component for target in decided.provisions] == ["redis"]
    world.step(writes=None)
    world.outcomes["redis"] = Outcome.CREDENTIALS_REFUSED
    assert world.row("redis")["reason"] == "Provisioning"
    world.now += timedelta(seconds=61)
    world.step()
    world.outcomes["redis"] = Outcome.CREDENTIALS_REFUSED
    assert world.row("redis")["reason"] == "CredentialsRefused"
    assert world.condition("Stalled")["status"] == "True"
    assert world.decide().provisions, "it is still tried"
    world.step()
    world.step()
    assert world.condition("Ready")["status"] == "True"


@pytest.mark.parametrize(
    ("outcome", "reason", "stalled"),
    [(Outcome.NOT_ANSWERING, "NotAnswering", "False"), (Outcome.READ_ONLY, "ReadOnly", "True")],
)
def test_an_engine_that_does_not_serve_is_not_ready(outcome: Outcome, reason: str, stalled: str) -> None:
    world = ready_world()
    before = world.stack
    world.outcomes["redis"] = outcome
    decided = world.step()
    assert world.row("redis")["reason"] == reason
    assert world.condition("Ready")["status"] == "False"
    assert world.condition("Available")["status"] == "False"
    assert world.condition("Stalled")["status"] == stalled
    assert decided.requeue_after == 2
    assert "Warning" in [notice.type for notice in turned(before, decided.status)]
    world.now += timedelta(seconds=60)
    assert world.decide().requeue_after == 15, "a sick stack is looked at ever more seldom"
    world.now += timedelta(hours=1)
    assert world.decide().requeue_after == 30


def pod_with(status: dict[str, Any]) -> World:
    world = ready_world()
    world.objects[Ref("Pod", "cos-redis-0")]["status"] = {"conditions": [], **status}
    world.step()
    return world


def waiting(reason: str, message: str = "") -> dict[str, Any]:
    return {
        "containerStatuses": [{"name": "redis", "state": {"waiting": {"reason": reason, "message": message}}}]
    }


@pytest.mark.parametrize(
    ("status", "reason", "said"),
    [
        (waiting("ImagePullBackOff", "no such tag"), "ImagePullFailed", "no such tag"),
        (waiting("ErrImagePull", "refused"), "ImagePullFailed", "refused"),
        (waiting("CreateContainerConfigError", "secret gone"), "ContainerFailed", "secret gone"),
        (waiting("ContainerCreating"), "Starting", "not ready"),
        (
            {"conditions": [{"type": "PodScheduled", "status": "False", "message": "0/1 nodes"}]},
            "Unschedulable",
            "0/1 nodes",
        ),
        (
            {
                "containerStatuses": [
                    {
                        "name": "redis",
                        "state": {"waiting": {"reason": "CrashLoopBackOff"}},
                        "lastState": {"terminated": {"exitCode": 1, "message": "Bad file format"}},
                    }
                ]
            },
            "CrashLooping",
            "exit code 1: Bad file format",
        ),
        (
            {
                "initContainerStatuses": [
                    {
                        "name": "init",
                        "state": {"waiting": {"reason": "CrashLoopBackOff"}},
                        "lastState": {
                            "terminated": {
                                "exitCode": 1,
                                "message": '{"reason":"Foreign","message":"a file"}',
                            }
                        },
                    }
                ]
            },
            "CrashLooping",
            "container init ended with exit code 1: Foreign: a file",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_why_a_pod_is_not_ready_is_said(status: dict[str, Any], reason: str, said: str) -> None:
    row = pod_with(status).row("redis")
    assert row["reason"] == reason
    assert said in row["message"]


def test_a_volume_that_cannot_be_made_is_said() -> None:
    world = World(REDIS)
    world.step()
    ref = Ref("PersistentVolumeClaim", "cos-redis-data-0")
    world.warnings[ref] = WarningEvent("ProvisioningFailed", 'storageclass "fast" not found')
    world.step()
    assert world.row("redis")["reason"] == "VolumePending"
    assert 'storageclass "fast" not found' in world.row("redis")["message"]


def test_a_pod_that_admission_refuses_is_said() -> None:
    world = World(REDIS)
    world.step()
    ref = Ref("StatefulSet", "cos-redis")
    world.warnings[ref] = WarningEvent("RecreatingFailedPod", "of an hour ago")
    world.step()
    assert world.row("redis")["reason"] == "Starting"
    world.warnings[ref] = WarningEvent("FailedCreate", "pods forbidden: exceeded quota")
    world.step()
    assert world.row("redis")["reason"] == "PodRefused"


def test_since_and_transition_times_move_only_with_a_change() -> None:
    world = ready_world()
    before = world.status
    world.now += timedelta(hours=1)
    world.step()
    assert world.status == before


def test_changed_files_touch_the_pod_without_replacing_it() -> None:
    world = ready_world()
    before = world.pods()
    world.spec = {"redis": {"authSecretRef": {"name": "mine"}}}
    world.references["mine"] = secret("mine", password="correct-horse")
    decided = world.decide()
    assert kinds(decided) == ["ControllerRevision", "Secret", "Secret", "Pod"]
    world.converge()
    assert world.pods() == before


def live_with_manager(obj: dict[str, Any], fields: dict[str, Any]) -> dict[str, Any]:
    entry = {"manager": MANAGER, "operation": "Apply", "fieldsV1": fields}
    return {**obj, "metadata": {**obj["metadata"], "managedFields": [entry]}}


@pytest.mark.parametrize(
    ("intent", "live", "expected"),
    [
        ({"data": {"a": "1"}}, {"data": {"a": "1", "b": "2"}}, False),
        ({"data": {"a": "1"}}, {"data": {"a": "2"}}, True),
        ({"data": {"a": "1"}}, {}, True),
        ({"data": {}}, {}, False),
        ({"items": []}, {}, False),
        ({"ports": [{"name": "a", "port": 1}]}, {"ports": [{"name": "a", "port": 1, "nodePort": 3}]}, False),
        ({"ports": [{"name": "a", "port": 1}]}, {"ports": [{"name": "b"}, {"name": "a", "port": 1}]}, False),
        ({"args": ["a", "b"]}, {"args": ["b", "a"]}, True),
        ({"args": ["a"]}, {"args": ["a", "b"]}, True),
        ({"limits": {"memory": "1024Mi"}}, {"limits": {"memory": "1Gi"}}, False),
        ({"limits": {"cpu": "1000m"}}, {"limits": {"cpu": "1"}}, False),
        ({"limits": {"cpu": "1"}}, {"limits": {"cpu": "2"}}, True),
        ({"text": "1024Mi"}, {"text": "1Gi"}, True),
    ],
)
def test_what_counts_as_drift(intent: dict[str, Any], live: dict[str, Any], expected: bool) -> None:  # noqa: FBT001
    assert needs_apply(intent, {"metadata": {}, **live}) is expected


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"f:data": {".": {}, "f:a": {}}}, False),
        ({"f:data": {"f:a": {}, "f:gone": {}}}, True),
        ({"f:metadata": {"f:ownerReferences": {'k:{"uid":"x"}': {}}}}, True),
        ({"f:list": {'k:{"name":"n"}': {".": {}, "f:name": {}}}}, False),
        ({"f:list": {'k:{"name":"n","protocol":"TCP"}': {".": {}, "f:name": {}}}}, False),
        ({"f:list": {'k:{"name":"other"}': {".": {}, "f:name": {}}}}, True),
        ({"f:set": {'v:"one"': {}}}, False),
        ({"f:set": {'v:"two"': {}}}, True),
        ({"i:0": {}}, True),
    ],
)
def test_fields_that_we_own_and_no_longer_want_are_drift(fields: dict[str, Any], expected: bool) -> None:  # noqa: FBT001
    intent: dict[str, Any] = {"metadata": {}, "data": {"a": "1"}, "list": [{"name": "n"}], "set": ["one"]}
    assert needs_apply(intent, live_with_manager(intent, fields)) is expected


CLAIM = Ref("PersistentVolumeClaim", "cos-redis-data-0")


def test_a_pod_whose_volume_is_being_deleted_is_left_alone() -> None:
    world = ready_world()
    world.objects[CLAIM]["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    world.spec = {"redis": {"maxClients": 60}}
    for _ in range(3):
        assert world.step().deletes == ()
        world.settle()
    assert world.row("redis")["reason"] == "VolumeTerminating"
    assert world.condition("Stalled")["status"] == "True"
    assert world.condition("Available")["status"] == "True"


def test_a_volume_that_is_gone_is_not_silently_replaced_by_an_empty_one() -> None:
    world = ready_world()
    del world.objects[CLAIM]
    assert writes(world.step()) == 0
    assert world.row("redis")["reason"] == "VolumeLost"
    assert "delete StatefulSet cos-redis" in world.row("redis")["message"]
    del world.objects[Ref("StatefulSet", "cos-redis")]
    world.settle()
    world.converge()
    assert world.condition("Ready")["status"] == "True"


@pytest.mark.parametrize("spec", [{"traefik": {}}, {"redis": {"authSecretRef": {"name": "missing"}}}])
def test_retain_protects_the_data_of_components_that_are_not_rendered(spec: dict[str, Any]) -> None:
    world = ready_world({"redis": {}, "deletionPolicy": "Delete"})
    world.spec = {**spec, "deletionPolicy": "Retain"}
    released = {apply.obj["metadata"]["name"]: apply.obj for apply in world.decide().applies}
    for name in ("cos-redis-data-0", "cos-redis-admin", "cos-redis-app"):
        assert "ownerReferences" not in released[name]["metadata"]
    secret_ = world.objects[Ref("Secret", "cos-redis-admin")]
    assert released["cos-redis-admin"]["data"] == secret_["data"], "an apply without data would remove it"


def test_no_pod_is_replaced_before_all_that_it_rests_on_is_written() -> None:
    world = ready_world()
    world.spec = {"redis": {"maxClients": 60}}
    for apply in world.decide().applies:
        if apply.obj["kind"] == "StatefulSet":
            world.perform(apply)
    world.settle()
    assert world.decide().deletes == (), "the ConfigMap is still the old one"


def test_ready_is_not_said_of_a_spec_that_is_not_yet_applied() -> None:
    world = ready_world({"traefik": {}})
    world.spec = {"traefik": {"replicas": 3, "service": {"type": "NodePort"}}}
    world.generation += 1
    world.step()
    assert world.condition("Ready")["status"] == "False"
    assert world.condition("Available")["status"] == "True"
    assert world.row("traefik")["message"] == "a change is being applied"
    world.converge()
    world.spec = {**world.spec, "paused": True, "traefik": {"replicas": 2}}
    world.step()
    assert world.condition("Ready")["status"] == "False"
    assert world.row("traefik")["message"] == "a change waits: spec.paused"


def test_a_volume_keeps_its_storage_class() -> None:
    world = ready_world()
    world.objects[CLAIM]["spec"]["storageClassName"] = "default-class"
    assert writes(world.decide()) == 0
    world.spec = {"redis": {"storage": {"size": "2Gi", "storageClassName": "fast"}}}
    world.step()
    assert world.objects[CLAIM]["spec"]["storageClassName"] == "default-class"
    assert world.objects[CLAIM]["spec"]["resources"]["requests"]["storage"] == "2Gi"
    world.step()
    assert world.row("redis")["reason"] == "StorageClassFixed"
    assert "default-class" in world.row("redis")["message"]


def test_pods_and_secrets_that_only_carry_our_labels_are_left_alone() -> None:
    world = ready_world()
    pod = world.objects[Ref("Pod", "cos-redis-0")]
    stray = {**pod, "metadata": {**pod["metadata"], "name": "debug", "uid": "x", "ownerReferences": []}}
    stray["metadata"]["annotations"] = {}
    world.objects[Ref("Pod", "debug")] = stray
    copy = world.objects[Ref("Secret", "cos-redis-app")]
    world.objects[Ref("Secret", "backup")] = {**copy, "metadata": {**copy["metadata"], "name": "backup"}}
    assert writes(world.decide()) == 0


def test_a_blocked_component_that_runs_is_available() -> None:
    world = ready_world()
    world.spec = {"redis": {"authSecretRef": {"name": "missing"}}}
    world.step()
    assert world.condition("Stalled")["status"] == "True"
    assert world.condition("Available")["status"] == "True"


def test_a_start_without_an_end_is_told_with_what_kubernetes_says() -> None:
    world = ready_world()
    world.unready.add("redis")
    world.warnings[Ref("Pod", "cos-redis-0")] = WarningEvent("FailedAttachVolume", "Multi-Attach error")
    world.settle()
    world.step()
    assert world.row("redis")["message"] == "pod cos-redis-0 is not ready yet: Multi-Attach error"
    world.now += timedelta(seconds=601)
    for _ in range(2):
        world.step()
        assert world.row("redis")["reason"] == "NotStarting"
        assert world.condition("Stalled")["status"] == "True"
    world.unready.clear()
    world.settle()
    world.step()
    assert world.condition("Ready")["status"] == "True"


def test_a_pod_that_does_not_end_is_told_with_its_node() -> None:
    world = ready_world()
    pod = world.objects[Ref("Pod", "cos-redis-0")]
    pod["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    pod["spec"]["nodeName"] = "node-7"
    world.step()
    assert "pod cos-redis-0 on node-7 is to end by" in world.row("redis")["message"]


def test_an_evicted_pod_of_a_deployment_keeps_nobody_unready() -> None:
    world = ready_world({"traefik": {}})
    (pod,) = (obj for ref, obj in world.objects.items() if ref.kind == "Pod")
    evicted = {
        **pod,
        "metadata": {**pod["metadata"], "name": "cos-traefik-old", "annotations": {}, "uid": "old"},
    }
    world.objects[Ref("Pod", "cos-traefik-old")] = {
        **evicted,
        "status": {"phase": "Failed", "conditions": []},
    }
    decided = world.step()
    assert writes(decided) == 0
    assert world.condition("Ready")["status"] == "True"


def test_a_rolling_change_that_cannot_go_on_is_told_while_the_old_pod_serves() -> None:
    world = ready_world({"traefik": {}})
    (pod,) = (obj for ref, obj in world.objects.items() if ref.kind == "Pod")
    waiting_status = waiting("ImagePullBackOff", "no such tag")
    surge = {**pod, "metadata": {**pod["metadata"], "name": "cos-traefik-new", "uid": "new"}}
    world.objects[Ref("Pod", "cos-traefik-new")] = {**surge, "status": {**waiting_status, "conditions": []}}
    world.step()
    assert world.row("traefik")["reason"] == "ImagePullFailed"
    assert world.condition("Available")["status"] == "True"
