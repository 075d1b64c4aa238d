"""A stack whose component is stopped for a backup: no pod, no alarm, nothing taken back, and a way back in any case."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from world import World

from cos_controllers.api.backup import StackBackup
from cos_controllers.conditions import timestamp
from cos_controllers.k8s import Manifest
from cos_controllers.names import ANNOTATION_HALTED, backup_labels
from cos_controllers.observation import Ref

SPEC: Manifest = {
    "neo4j": {},
    "redis": {},
    "backup": {"repositories": [{"name": "main", "volume": {"size": "1Gi"}}]},
}
WORKLOAD = Ref("StatefulSet", "cos-neo4j")
POD = Ref("Pod", "cos-neo4j-0")


def halting(world: World, **row: Any) -> StackBackup:
    metadata = {"name": "nightly", "namespace": "cos", "uid": "b-1", "generation": 1}
    found = {"name": "neo4j", "phase": "Running", "haltTime": timestamp(world.now), **row}
    return StackBackup.model_validate(
        {
            "apiVersion": "cos.dev/v1alpha1",
            "kind": "StackBackup",
            "metadata": metadata | {"creationTimestamp": timestamp(world.now)},
            "spec": {"stackRef": {"name": "cos"}, "allowDowntime": True},
            "status": {"components": [found]},
        }
    )


def serving() -> World:
    world = World(dict(SPEC))
    world.converge()
    return world


def stopped() -> World:
    world = serving()
    world.backups = [halting(world)]
    look(world)
    look(world)
    assert POD not in world.objects
    return world


def look(world: World, seconds: float = 2) -> None:
    """One pass, and what Kubernetes makes of it."""
    world.step()
    if world.objects[WORKLOAD]["spec"]["replicas"] == 0:
        world.objects.pop(POD, None)
    world.settle()
    world.now += timedelta(seconds=seconds)


def read(world: World) -> None:
    backups = world.backups or []
    (row,) = backups[0].status.components
    done = row.model_copy(update={"resume_time": timestamp(world.now)})
    status = backups[0].status.model_copy(update={"components": [done]})
    world.backups = [backups[0].model_copy(update={"status": status})]


def test_it_is_stopped_and_says_so_and_no_revision_changes() -> None:
    world = serving()
    before = world.row("neo4j")
    world.backups = [halting(world)]
    look(world)
    assert world.objects[WORKLOAD]["spec"]["replicas"] == 0
    assert world.objects[WORKLOAD]["metadata"]["annotations"] == {ANNOTATION_HALTED: "b-1"}
    look(world)
    row = world.row("neo4j")
    assert (row["reason"], row["desiredRevision"]) == ("BackingUp", before["desiredRevision"])
    assert row["message"].startswith("stopped for backup nightly since 20")
    assert "lastProgressTime" not in row
    assert {gate["verdict"] for gate in row["gates"]} == {"Unknown"}
    assert world.condition("Stalled")["status"] == "False"
    assert world.condition("Reconciling")["status"] == "True"
    assert world.condition("Available")["reason"] == "BackingUp"


def test_it_starts_again_without_an_alarm_once_its_data_is_read() -> None:
    world = stopped()
    world.unready.add("neo4j")
    read(world)
    look(world)
    look(world)
    assert world.row("neo4j")["reason"] == "BackingUp"
    assert world.row("neo4j")["message"].startswith("it starts again, its data is read: ")
    world.unready.clear()
    world.converge()
    assert world.row("neo4j")["reason"] == "Serving"
    assert ANNOTATION_HALTED not in (world.objects[WORKLOAD]["metadata"].get("annotations") or {})


def test_nothing_is_taken_back_however_long_it_is_stopped() -> None:
    world = stopped()
    for _ in range(3):
        look(world, 3600)
    assert world.row("neo4j")["reason"] == "BackingUp"
    assert "failedRevision" not in world.row("neo4j")
    read(world)
    world.converge()
    assert world.row("neo4j")["reason"] == "Serving"


def test_what_does_not_start_again_is_told_in_its_time() -> None:
    world = stopped()
    world.unready.add("neo4j")
    read(world)
    look(world)
    look(world, 700)
    look(world)
    assert world.row("neo4j")["reason"] == "NotStarting"


def test_other_components_wait_for_it() -> None:
    world = stopped()
    world.spec = {**SPEC, "redis": {"maxClients": 77}}
    world.generation += 1
    pods = world.pods()
    look(world)
    assert world.pods() == pods
    assert "waits until neo4j serves again" in world.row("redis")["message"]


@pytest.mark.parametrize("change", ["deleted", "ended", "unconfigured", "paused", "blocked"])
def test_whatever_becomes_of_the_backup_it_starts_again(change: str) -> None:
    world = stopped()
    if change == "deleted":
        world.backups = []
    elif change == "ended":
        world.backups = [halting(world, phase="Failed", completionTime=timestamp(world.now))]
    elif change == "unconfigured":
        world.spec = {name: value for name, value in SPEC.items() if name != "backup"}
        world.generation += 1
    elif change == "paused":
        world.spec = {**SPEC, "paused": True}
        world.generation += 1
        read(world)
    else:
        world.spec = {**SPEC, "neo4j": {"authSecretRef": {"name": "nowhere"}}}
        world.generation += 1
        read(world)
    look(world)
    look(world)
    assert world.objects[WORKLOAD]["spec"]["replicas"] == 1
    assert ANNOTATION_HALTED not in (world.objects[WORKLOAD]["metadata"].get("annotations") or {})
    assert POD in world.objects


def test_what_a_person_has_scaled_in_a_paused_stack_stays_so() -> None:
    world = serving()
    world.spec = {**SPEC, "paused": True}
    world.generation += 1
    world.objects[WORKLOAD]["spec"]["replicas"] = 0
    world.objects.pop(POD)
    world.step()
    assert world.objects[WORKLOAD]["spec"]["replicas"] == 0


def test_it_does_not_start_while_a_job_may_read_it() -> None:
    world = stopped()
    labels = backup_labels("cos", "neo4j", "nightly", "b-1")
    world.jobs = [{"metadata": {"name": "cos-neo4j-backup", "labels": labels}, "status": {}}]
    world.backups = []
    look(world)
    assert world.objects[WORKLOAD]["spec"]["replicas"] == 0
    world.jobs = []
    look(world)
    assert world.objects[WORKLOAD]["spec"]["replicas"] == 1


def test_while_backups_cannot_be_read_all_stays_as_it_is() -> None:
    world = stopped()
    world.backups = None
    look(world)
    assert world.objects[WORKLOAD]["spec"]["replicas"] == 0
    assert world.row("neo4j")["reason"] == "BackingUp"
    other = serving()
    other.backups = None
    look(other)
    assert other.objects[WORKLOAD]["spec"]["replicas"] == 1
