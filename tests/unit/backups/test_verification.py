"""Copies that are restored for proof: by themselves, onto volumes that are thrown away, and nothing else changes."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import Any

import pytest
from backup_world import SPEC, START, World
from test_search import copy, found

from cos_controllers.api.restore import RestorePhase, StackRestoreStatus
from cos_controllers.backups.job import FINDER, LOAD, told
from cos_controllers.backups.order import Fetch, Find
from cos_controllers.backups.restore_begin import proved
from cos_controllers.conditions import timestamp
from cos_controllers.k8s import Manifest
from cos_controllers.timetable import VERIFICATION, late

WEEKLY: Manifest = {"schedule": "0 5 * * *"}
FIRST = "cos-verification-202601010500-aecf"


def verified(**changes: Any) -> World:
    backup = SPEC["backup"] | {"verification": {**WEEKLY, **changes}}
    return World(spec=SPEC | {"backup": backup})


def begun(**changes: Any) -> World:
    """The first one is made, and looks for copies."""
    world = verified(**changes)
    world.now = START + timedelta(hours=5)
    for _ in range(3):
        world.step()
    return world


def filling(**changes: Any) -> World:
    world = begun(**changes)
    world.end(found(copy()), container=FINDER)
    for _ in range(4):
        world.step()
    return world


def status(world: World, name: str = FIRST) -> StackRestoreStatus:
    return world.restored(name)


def test_the_newest_copies_are_restored_by_themselves_and_thrown_away() -> None:
    world = begun(components=["redis"], activeDeadlineSeconds=120)
    spec = world.restores[FIRST]["spec"]
    assert (spec["source"], spec["into"], spec["components"]) == ({}, "Throwaway", ["redis"])
    assert told(world.jobs["cos-redis-backup"], Find)
    world.end(found(copy()), container=FINDER)
    for _ in range(4):
        world.step()
    job = world.jobs["cos-redis-backup"]
    assert told(job, Fetch)
    (target,) = [item for item in job["spec"]["template"]["spec"]["volumes"] if item["name"] == "target"]
    claim = target["ephemeral"]["volumeClaimTemplate"]["spec"]
    assert claim["resources"]["requests"] == {"storage": "2Gi"}, "as large as the stack's"
    assert (claim["storageClassName"], claim["accessModes"]) == ("fast", ["ReadWriteOnce"])
    world.now += timedelta(seconds=60)
    world.end(json.dumps({"entries": 3}), container=LOAD)
    for _ in range(3):
        world.step()
    found_status = status(world)
    (row,) = found_status.components
    assert (found_status.phase, found_status.message) == (RestorePhase.SUCCEEDED, "restored")
    assert (row.entries, row.claim, row.switch_time) == (3, "", None)
    assert row.start_time
    assert row.completion_time
    assert not world.jobs
    assert sorted(world.claims) == ["cos-redis-backup-main", "cos-redis-data-0"], (
        "nothing of the stack changes"
    )
    assert world.current() == "cos-redis-data-0"
    assert proved(world.seen().restores) == {"redis": row}


def test_it_needs_no_word_about_data_and_goes_on_in_a_paused_stack() -> None:
    world = verified()
    world.spec["paused"] = True
    world.now = START + timedelta(hours=5)
    for _ in range(3):
        world.step()
    world.end(found(copy()), container=FINDER)
    for _ in range(4):
        world.step()
    world.end(json.dumps({"entries": 3}), container=LOAD)
    world.step()
    assert status(world).phase is RestorePhase.SUCCEEDED


@pytest.mark.parametrize("calls", range(3))
def test_an_operator_that_dies_between_any_two_calls_goes_on(calls: int) -> None:
    world = verified()
    world.now = START + timedelta(hours=4, minutes=59, seconds=50)
    for _ in range(24):
        world.step(5, die_after=calls)
        world.step(5)
        for job in list(world.jobs.values()):
            if not job.get("status"):
                is_search = told(job, Find) is not None
                text = found(copy()) if is_search else json.dumps({"entries": 3})
                world.end(text, container=FINDER if is_search else LOAD)
    assert status(world).phase is RestorePhase.SUCCEEDED
    assert sorted(world.claims) == ["cos-redis-backup-main", "cos-redis-data-0"]
    assert not world.jobs


def test_a_copy_that_cannot_be_restored_says_why() -> None:
    world = filling()
    world.end("there are 2 keys, and 3 in the copy", 1, LOAD)
    world.step(11)
    assert status(world).phase is RestorePhase.FAILED
    assert "there are 2 keys" in status(world).message


def test_a_restore_that_people_wait_for_does_not_wait_for_a_proof_that_has_not_begun() -> None:
    world = begun()
    world.end(found(copy()), container=FINDER)
    for _ in range(2):
        world.step()
    world.ready = False
    world.restore("urgent", source={}, existingData="SetAside")
    world.now += timedelta(hours=2)
    for _ in range(3):
        world.step()
    assert "one restore of a component is made at a time" not in world.restored("urgent").message


def test_old_ones_go_and_the_newest_that_succeeded_stays() -> None:
    world = verified(historyLimit=2)
    phases = ["Succeeded", "Succeeded", "Failed", "Failed", "Failed"]
    for number, phase in enumerate(phases):
        world.now = START + timedelta(minutes=number)
        name = f"v{number}"
        world.restore(name, source={}, into="Throwaway")
        world.restores[name]["metadata"]["labels"] = {"cos.dev/backup-schedule": VERIFICATION}
        world.restores[name]["status"] = {"phase": phase, "completionTime": timestamp(world.now)}
    world.restore("by-hand", source={}, into="Throwaway")
    world.restores["by-hand"]["status"] = {"phase": "Succeeded", "completionTime": timestamp(world.now)}
    world.step()
    assert sorted(world.restores) == ["by-hand", "v1", "v3", "v4"]


def test_who_has_not_been_verified_twice_in_time_is_late() -> None:
    world = begun()
    stack = world.seen().stack
    assert stack
    restores = world.seen().restores
    second = START + timedelta(days=2, hours=5) + timedelta(hours=3)
    world.touched = timestamp(START + timedelta(hours=5))
    stack = world.seen().stack
    assert stack
    assert late(stack, [], restores, second - timedelta(seconds=10)) == []
    ((name, _),) = late(stack, [], restores, second)
    assert name == VERIFICATION
