"""What becomes of restores, step by step."""

from __future__ import annotations

import json
from typing import Any

import pytest
from backup_world import START, World, claim_named, report

from cos_controllers.api.restore import RestorePhase
from cos_controllers.backups.job import LOAD, told
from cos_controllers.backups.order import Fetch
from cos_controllers.conditions import timestamp
from cos_controllers.names import ANNOTATION_CANDIDATE, ANNOTATION_DATA_VERSION

LOADED = json.dumps({"entries": 3})


def with_backup() -> World:
    world = World()
    world.create("b")
    world.step()
    world.step()
    world.end(report())
    for _ in range(3):
        world.step()
    assert not world.jobs
    return world


def filling(**spec: Any) -> World:
    world = with_backup()
    world.restore("r", existingData="SetAside", **spec)
    for _ in range(4):
        world.step()
    return world


def test_a_volume_is_filled_beside_the_one_in_use_and_then_taken() -> None:
    world = filling()
    assert (world.restored().phase, world.current()) == (RestorePhase.RUNNING, "cos-redis-data-0")
    new = world.claims["cos-redis-data-1"]["metadata"]["annotations"]
    assert new == {
        ANNOTATION_CANDIDATE: world.restores["r"]["metadata"]["uid"],
        ANNOTATION_DATA_VERSION: "8.0.2",
    }
    world.end(LOADED, container=LOAD)
    world.step()
    assert (world.restored().phase, world.current()) == (RestorePhase.SWITCHING, "cos-redis-data-0")
    world.step()
    assert world.current() == "cos-redis-data-1", "the status that says so is stored before"
    assert not world.jobs
    assert world.step().restored == {}, "it waits for a pod on the new volume"
    world.switch()
    world.step()
    status = world.restored()
    (row,) = status.components
    assert (status.phase, status.message) == (RestorePhase.SUCCEEDED, "restored; kept: cos-redis-data-0")
    assert (row.claim, row.previous_claim, row.entries) == ("cos-redis-data-1", "cos-redis-data-0", 3)
    assert row.point_in_time == timestamp(START.replace(minute=1))
    assert status.conditions[0].reason == "Succeeded"
    plan = world.step()
    assert (plan.restored, plan.claims, plan.begin, plan.again) == ({}, (), (), None)


def test_the_job_fetches_as_the_operator_and_loads_as_the_engine() -> None:
    world = filling(activeDeadlineSeconds=120)
    pod = world.jobs["cos-redis-backup"]["spec"]["template"]["spec"]
    (fetch,), (load,) = pod["initContainers"], pod["containers"]
    assert (fetch["image"], load["image"]) == ("cos-operator:1", "redis:8.0.2")
    order = told(world.jobs["cos-redis-backup"], Fetch)
    assert order
    copy = world.row("b")
    assert (order.snapshot, order.sha256, order.limit) == (copy.snapshot, copy.sha256, 120)
    assert order.repository == f"/repository/{copy.path}"
    mounted = [{item["name"] for item in container["volumeMounts"]} for container in (fetch, load)]
    assert mounted == [{"work", "tmp", "key", "repository"}, {"work", "tmp", "target"}]
    claims = {v["persistentVolumeClaim"]["claimName"] for v in pod["volumes"] if "persistentVolumeClaim" in v}
    assert claims == {"cos-redis-data-1", "cos-redis-backup-main"}
    assert pod["securityContext"]["runAsUser"] == 999, "what it writes is the engine's"
    assert pod["nodeSelector"] == {"disk": "fast"}, "the volume must be of use where the engine may run"


@pytest.mark.parametrize("calls", range(3))
def test_an_operator_that_dies_between_any_two_calls_goes_on(calls: int) -> None:
    world = with_backup()
    world.restore("r", existingData="SetAside")
    reported = False
    for _ in range(20):
        world.step(die_after=calls)
        world.step()
        if world.jobs and not reported:
            world.end(LOADED, container=LOAD)
            reported = True
        world.switch()
    assert world.restored().phase is RestorePhase.SUCCEEDED
    assert sorted(world.claims) == ["cos-redis-backup-main", "cos-redis-data-0", "cos-redis-data-1"]
    assert not world.jobs


def test_data_is_not_put_aside_unless_somebody_says_so() -> None:
    world = with_backup()
    world.restore("r")
    world.step()
    status = world.restored()
    assert status.phase is RestorePhase.FAILED
    assert "redis has data on volume cos-redis-data-0: write existingData: SetAside" in status.message
    assert sorted(world.claims) == ["cos-redis-backup-main", "cos-redis-data-0"]


def test_a_volume_on_which_nothing_ever_ran_needs_no_word() -> None:
    world = with_backup()
    world.claims["cos-redis-data-0"] = claim_named("cos-redis-data-0", "new", {})
    world.restore("r")
    for _ in range(4):
        world.step()
    assert world.restored().phase is RestorePhase.RUNNING


@pytest.mark.parametrize(("container", "code"), [("fetch", 1), (LOAD, 1)])
def test_what_cannot_be_filled_changes_nothing(container: str, code: int) -> None:
    world = filling()
    world.end("the copy has another checksum than was recorded", code, container)
    world.step(11)
    status = world.restored()
    assert status.phase is RestorePhase.FAILED
    assert "another checksum" in status.message
    assert world.current() == "cos-redis-data-0"
    world.step()
    assert not world.jobs
    world.restore("again", existingData="SetAside")
    for _ in range(4):
        world.step()
    assert world.restored("again").components[0].claim == "cos-redis-data-2", "each begins on an empty volume"


def switched() -> World:
    """A pod runs on the new volume, and nobody knows yet whether it serves."""
    world = filling()
    world.end(LOADED, container=LOAD)
    world.step()
    world.step()
    world.serves = world.ready = False
    world.switch()
    return world


def test_a_component_that_does_not_serve_goes_back_to_the_volume_that_it_had() -> None:
    world = switched()
    world.step(590)
    assert world.current() == "cos-redis-data-1"
    world.step(20)
    assert world.current() == "cos-redis-data-0"
    assert world.restored().phase is RestorePhase.SWITCHING, "told only once it is so"
    world.step()
    status = world.restored()
    assert status.phase is RestorePhase.FAILED
    assert (
        "did not serve from volume cos-redis-data-1 in time, and goes back to cos-redis-data-0"
        in status.message
    )
    for _ in range(3):
        assert world.step().claims == ()


def test_its_time_begins_with_its_pod_however_long_that_waits_for_its_turn() -> None:
    world = filling()
    world.end(LOADED, container=LOAD)
    world.step()
    world.step(1800)
    world.step()
    assert (world.restored().phase, world.current()) == (RestorePhase.SWITCHING, "cos-redis-data-1")
    world.serves = world.ready = False
    world.switch()
    world.step(590)
    assert world.current() == "cos-redis-data-1"
    world.step(20)
    assert world.current() == "cos-redis-data-0"


def test_nor_does_it_wait_for_its_turn_for_ever() -> None:
    world = filling()
    world.end(LOADED, container=LOAD)
    world.step()
    world.step(3600)
    assert world.current() == "cos-redis-data-0"


def test_an_operator_that_was_away_does_not_take_back_what_serves() -> None:
    world = switched()
    world.ready = True
    world.step(3600)
    assert world.current() == "cos-redis-data-1", "its row is of before"
    world.serves = True
    world.step()
    assert world.restored().phase is RestorePhase.SUCCEEDED


def test_one_that_is_ready_and_does_not_serve_goes_back() -> None:
    world = switched()
    world.ready = True
    world.found_wanting = world.now
    world.step(590)
    assert world.current() == "cos-redis-data-1"
    world.step(20)
    assert world.current() == "cos-redis-data-0"


def test_a_gate_that_fails_is_no_success() -> None:
    world = switched()
    world.serves = world.ready = True
    world.gates = [{"name": "Health", "verdict": "Failed", "since": timestamp(START)}]
    world.step()
    assert world.restored().phase is RestorePhase.SWITCHING
    world.gates = []
    world.step()
    assert world.restored().phase is RestorePhase.SUCCEEDED


def test_without_the_volume_before_it_there_is_no_going_back() -> None:
    world = switched()
    del world.claims["cos-redis-data-0"]
    world.step(700)
    status = world.restored()
    assert status.phase is RestorePhase.FAILED
    assert "does not serve from volume cos-redis-data-1, and stays on it: there is no other" in status.message
    assert world.current() == "cos-redis-data-1"


def test_what_is_being_deleted_is_not_set_aside() -> None:
    world = with_backup()
    world.claims["cos-redis-data-0"]["metadata"]["deletionTimestamp"] = timestamp(START)
    world.restore("r", existingData="SetAside")
    world.step()
    assert "volume cos-redis-data-0 is being deleted and could not be set aside" in world.restored().message
    assert "cos-redis-data-1" not in world.claims
    world = filling()
    world.claims["cos-redis-data-0"]["metadata"]["deletionTimestamp"] = timestamp(START)
    world.end(LOADED, container=LOAD)
    world.step()
    assert world.restored().phase is RestorePhase.FAILED


def test_a_new_volume_that_somebody_deletes_does_not_come_into_use() -> None:
    world = filling()
    world.claims["cos-redis-data-1"]["metadata"]["deletionTimestamp"] = timestamp(START)
    world.end(LOADED, container=LOAD)
    world.step()
    assert world.restored().message == "redis: volume cos-redis-data-1 was deleted"


def test_what_came_to_be_used_meanwhile_is_not_exchanged_unasked() -> None:
    world = with_backup()
    world.claims["cos-redis-data-0"] = claim_named("cos-redis-data-0", "new", {})
    world.restore("r")
    for _ in range(4):
        world.step()
    world.claims["cos-redis-data-0"] = claim_named(
        "cos-redis-data-0", "new", {ANNOTATION_DATA_VERSION: "8.0"}
    )
    world.end(LOADED, container=LOAD)
    world.step()
    assert world.restored().phase is RestorePhase.FAILED
    assert "write existingData: SetAside" in world.restored().message


def test_a_stack_that_is_paused_meanwhile_is_left_alone() -> None:
    world = filling()
    world.spec = world.spec | {"paused": True}
    world.end(LOADED, container=LOAD)
    world.step()
    assert world.restored().message == "redis: filled; a change waits: spec.paused"
    world.step(3600)
    assert world.current() == "cos-redis-data-0"
    world.spec = world.spec | {"paused": False}
    world.step()
    world.step()
    assert world.current() == "cos-redis-data-1"


def test_a_backup_without_copies_is_not_restored() -> None:
    world = World(image="")
    world.create("b")
    world.step()
    world.image = "cos-operator:1"
    world.restore("r", existingData="SetAside")
    world.step()
    assert world.restored().phase is RestorePhase.FAILED
    assert "backup b has no copies" in world.restored().message


def test_while_a_volume_comes_into_use_nothing_is_copied_from_either() -> None:
    world = switched()
    world.create("meanwhile")
    world.step()
    world.step()
    assert "waits until r has ended, which takes another volume into use" in world.message("meanwhile")


def test_of_two_restores_the_second_waits_until_the_first_is_in_use() -> None:
    world = filling()
    world.restore("second", existingData="SetAside")
    world.end(LOADED, container=LOAD)
    for _ in range(3):
        world.step()
    assert world.restored().phase is RestorePhase.SWITCHING
    assert (
        "waits until r has ended: one restore of a component is made at a time"
        in world.restored("second").message
    )
    world.switch()
    for _ in range(4):
        world.step()
    assert world.restored().phase is RestorePhase.SUCCEEDED
    assert world.restored("second").components[0].claim == "cos-redis-data-2"


def test_a_pod_that_was_ready_before_the_switch_proves_nothing() -> None:
    world = filling()
    world.end(LOADED, container=LOAD)
    for _ in range(5):
        world.step()
    assert world.restored().phase is RestorePhase.SWITCHING


def test_a_restore_and_a_backup_wait_for_each_other() -> None:
    world = filling()
    world.create("meanwhile")
    world.step()
    world.step()
    assert "redis: waits until r has ended" in world.message("meanwhile")


def test_what_a_lost_volume_was_called_is_not_used_again() -> None:
    world = with_backup()
    del world.claims["cos-redis-data-0"]
    world.restore("r")
    for _ in range(4):
        world.step()
    assert world.restored().components[0].claim == "cos-redis-data-1", "a pod waits for the old name"


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"backup": "none"}, "there is no StackBackup none of stack cos"),
        ({"components": ["neo4j"]}, "the backup has no neo4j; it has redis"),
    ],
)
def test_what_is_not_there_is_told(change: dict[str, Any], says: str) -> None:
    world = with_backup()
    world.restore("r", existingData="SetAside", startingDeadlineSeconds=60, **change)
    world.step()
    world.step(60)
    assert world.restored().phase is RestorePhase.FAILED
    assert says in world.restored().message


def test_a_copy_that_failed_is_not_restored() -> None:
    world = World()
    world.create("b")
    world.step()
    world.step()
    world.end("disk full", 1)
    world.step(11)
    world.restore("r", existingData="SetAside")
    world.step()
    assert world.restored().message == "backup b has no good copy of redis"


def test_a_copy_of_a_newer_version_is_refused() -> None:
    world = World()
    world.create("b")
    world.step()
    world.step()
    world.end(report().replace("8.0.2", "8.2.1"))
    world.step()
    world.restore("r", existingData="SetAside")
    world.step()
    assert world.restored().phase is RestorePhase.FAILED
    assert "Redis 8.0 may not read what Redis 8.2.1 has written" in world.restored().message


def test_a_repository_that_was_exchanged_holds_nothing_of_it() -> None:
    world = with_backup()
    world.claims["cos-redis-backup-main"] = claim_named("cos-redis-backup-main", "made anew, empty", {})
    world.restore("r", existingData="SetAside")
    world.step()
    assert world.restored().phase is RestorePhase.FAILED
    assert (
        "the copy of redis is at 77aa-volume, which is not what the stack calls main now"
        in world.restored().message
    )


def test_a_paused_stack_is_left_alone() -> None:
    world = with_backup()
    world.spec = world.spec | {"paused": True}
    world.restore("r", existingData="SetAside")
    world.step()
    assert (world.restored().phase, world.restored().message) == (
        RestorePhase.PENDING,
        "a change waits: spec.paused",
    )


def test_a_restore_that_is_deleted_leaves_the_stack_as_it_was() -> None:
    world = filling()
    world.restores.clear()
    world.step()
    assert not world.jobs
    assert world.current() == "cos-redis-data-0"
